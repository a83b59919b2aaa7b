from __future__ import annotations

import http.server
import io
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg.readers.pictures import ImageError
from ovseg.utils.pictures import as_list, picture_name, to_rgb


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def _png(pixels) -> bytes:
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, format="PNG")
    return stored.getvalue()


def test_files_bytes_and_streams_give_the_same_pixels(pixels, tmp_path):
    (tmp_path / "a.png").write_bytes(_png(pixels))
    path = tmp_path / "a.png"
    forms = (path, str(path), _png(pixels), bytearray(_png(pixels)), io.BytesIO(_png(pixels)))
    for form in (*forms, Image.fromarray(pixels)):
        np.testing.assert_array_equal(to_rgb(form), pixels)
    with path.open("rb") as file:
        np.testing.assert_array_equal(to_rgb(file), pixels)


def test_pil_images_are_turned_upright(tmp_path):
    assert to_rgb(Image.new("L", (6, 4), 9)).tolist() == np.full((4, 6, 3), 9).tolist()
    turned = Image.new("RGB", (6, 4))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert to_rgb(tmp_path / "turned.jpg").shape == (6, 4, 3)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_arrays_and_tensors_of_any_channels(pixels, as_tensor):
    def form(array):
        if not as_tensor:
            return array
        return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))

    grey = pixels[..., :1]
    half = np.concatenate((pixels, np.full((4, 6, 1), 255, np.uint8)), axis=2)
    half[:, 3:, 3] = 0
    np.testing.assert_array_equal(to_rgb(form(pixels)), pixels)
    np.testing.assert_array_equal(to_rgb(form(pixels[..., ::-1]), image_format="BGR"), pixels)
    np.testing.assert_array_equal(to_rgb(form(grey)), np.repeat(grey, 3, axis=2))
    over_white = to_rgb(form(half))
    np.testing.assert_array_equal(over_white[:, :3], pixels[:, :3])
    assert (over_white[:, 3:] == 255).all()
    turned = np.concatenate((half[..., 2::-1], half[..., 3:]), axis=2)
    np.testing.assert_array_equal(to_rgb(form(turned), image_format="BGR"), over_white)


@pytest.mark.parametrize("grey", [np.full((4, 6), 200, np.uint8), torch.full((4, 6), 200 / 255)])
def test_two_dimensions_are_grey(grey):
    assert (to_rgb(grey) == 200).all() and to_rgb(grey).shape == (4, 6, 3)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1.0]]),
        np.array([[0, 1]], np.float32),
        np.array([[False, True]]),
        np.array([[0, 65535]], np.uint16),
        torch.tensor([[0, 1]], dtype=torch.bfloat16),
    ],
    ids=lambda values: str(values.dtype),
)
def test_values_of_other_types_are_scaled_over_their_range(values):
    assert to_rgb(values)[..., 0].tolist() == [[0, 255]]


def test_the_callers_array_is_neither_copied_nor_changed(pixels):
    before = pixels.copy()
    assert to_rgb(pixels) is pixels or np.shares_memory(to_rgb(pixels), pixels)
    to_rgb(pixels, image_format="BGR")
    np.testing.assert_array_equal(pixels, before)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((3, 4, 6), np.uint8), r"got \(3, 4, 6\); .*array.transpose\(1, 2, 0\)"),
        (torch.zeros(5, 6, 3), r"got \(5, 6, 3\); .*tensor.permute\(2, 0, 1\)"),
        (np.zeros((5, 6, 2), np.uint8), r"of 1, 3 or 4 channels, got \(5, 6, 2\)$"),
        (np.zeros((0, 4, 3), np.uint8), r"got \(0, 4, 3\)"),
        (torch.zeros(3, 0, 4), r"got \(3, 0, 4\)"),
        (np.zeros((4, 6), np.int64), r"uint8, uint16, bool or float, got int64; convert"),
        (np.full((4, 6), 200.0), r"floats in \[0, 1\], got 200 to 200; for 0 to 255"),
        (np.full((4, 6), np.nan), r"floats in \[0, 1\], got nan to nan"),
        (torch.full((3, 4, 6), -1.0), r"floats in \[0, 1\], got -1 to -1"),
        (None, r"image: expected a path, an address, .* got a NoneType"),
    ],
)
def test_unfit_pictures_are_refused_with_what_to_do(image, message):
    with pytest.raises(ValueError, match=message):
        to_rgb(image)


def test_the_order_of_channels_is_for_arrays_only(pixels):
    with pytest.raises(ValueError, match=r"image_format: expected one of .* got 'bgr'"):
        to_rgb(pixels, image_format="bgr")
    with pytest.raises(ValueError, match=r"expected 'RGB' for a str"):
        to_rgb("a.png", image_format="BGR")


def test_damaged_bytes_are_an_image_error():
    with pytest.raises(ImageError, match=r"image \(bytes\): not an image"):
        to_rgb(b"nothing")


def test_a_picture_from_an_address(pixels):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/a.png" else 404)
            self.end_headers()
            self.wfile.write(_png(pixels))

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    try:
        np.testing.assert_array_equal(to_rgb(f"{root}/a.png"), pixels)
        with pytest.raises(ImageError, match=r"/b.png: the server answered 404"):
            to_rgb(f"{root}/b.png")
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(ImageError, match="could not be downloaded: "):
        to_rgb(f"{root}/a.png")


def test_several_pictures_are_told_from_one(pixels):
    assert as_list(pixels) is None and as_list("a.png") is None and as_list(b"x") is None
    assert as_list(("a.png", pixels)) == ["a.png", pixels]
    batch = as_list(torch.zeros(2, 3, 4, 6))
    assert [tuple(each.shape) for each in batch] == [(3, 4, 6)] * 2


def test_only_files_and_addresses_have_names(pixels):
    named = [picture_name(given) for given in (Path("a.png"), "http://x/b.png", pixels, b"x")]
    assert named == ["a.png", "http://x/b.png", None, None]
