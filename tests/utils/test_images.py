from __future__ import annotations

import io
import re
import struct

import numpy as np
import pytest
from PIL import Image

from ovseg.readers.pictures import ImageError, image_size, pil_to_rgb, read_image, read_label
from ovseg.utils.images import write_png


def gradient(height: int = 6, width: int = 9) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 30, columns * 20, (rows + columns) * 10], axis=-1).astype(np.uint8)


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def test_a_plain_picture_keeps_its_pixels(tmp_path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(gradient()))
    got = read_image(path)
    assert got.dtype == np.uint8
    assert got.flags.writeable
    np.testing.assert_array_equal(got, gradient())


@pytest.mark.parametrize(
    ("orientation", "stored_to_upright"),
    [
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.swapaxes(0, 1)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: a[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda a: np.rot90(a, 1)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation: int, stored_to_upright) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "a.png", Image.fromarray(gradient()), exif=exif)
    expected = stored_to_upright(gradient())
    np.testing.assert_array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_transparency_lies_over_white(tmp_path) -> None:
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = [255, 0, 128]
    path = saved(tmp_path / "a.png", Image.fromarray(rgba, "RGBA"))
    got = read_image(path)
    assert got[0, 0].tolist() == [200, 0, 0]
    assert got[0, 1].tolist() == [255, 255, 255]
    np.testing.assert_allclose(got[0, 2], [227, 127, 127], atol=1)


def test_palette_with_a_transparent_entry(tmp_path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    path = saved(tmp_path / "a.png", image, transparency=1)
    assert read_image(path).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, suffix: str) -> None:
    values = np.array([[0, 257, 65535, 32768, 128, 129]], np.uint16)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(values))
    assert read_image(path)[0, :, 1].tolist() == [0, 1, 255, 128, 0, 1]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "CMYK", "YCbCr", "HSV"])
def test_any_mode_becomes_rgb_of_the_same_size(mode: str) -> None:
    grey = Image.fromarray(np.full((4, 5), 255, np.uint8))
    image = grey.convert("RGB").convert(mode) if mode == "HSV" else grey.convert(mode)
    got = pil_to_rgb(image)
    assert got.shape == (4, 5, 3)
    np.testing.assert_allclose(got.astype(int), 255, atol=1)


def test_a_cmyk_jpeg_is_read(tmp_path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)))
    np.testing.assert_allclose(read_image(path)[4, 4].astype(int), [255, 0, 0], atol=4)


def test_floating_point_pictures_are_refused_with_the_remedy(tmp_path) -> None:
    path = saved(tmp_path / "a.tif", Image.fromarray(np.zeros((2, 2), np.float32)))
    with pytest.raises(ImageError, match=r"a\.tif: .*floating-point.*8 bits"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_a_truncated_file_is_named_with_the_reason(tmp_path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = saved(tmp_path / f"broken.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=rf"broken\.{suffix}: .+"):
        read_image(path)


def test_missing_folder_and_foreign_files_are_told_apart(tmp_path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for path, reason in (
        (tmp_path / "no.jpg", "no such file"),
        (tmp_path, "got a folder"),
        (tmp_path / "notes.txt", "not an image"),
        (tmp_path / "empty.jpg", "not an image"),
    ):
        with pytest.raises(ImageError, match=f"{re.escape(str(path))}: .*{reason}"):
            read_image(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_exif_block_does_not_hide_the_picture(tmp_path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(gradient()).save(buffer, "JPEG", exif=b"Exif\0\0II*\0" + struct.pack("<L", 99))
    path = tmp_path / "a.jpg"
    path.write_bytes(buffer.getvalue())
    assert read_image(path).shape == (6, 9, 3)


def test_pictures_beyond_pillows_limit_are_read(tmp_path, monkeypatch) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(gradient()))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # 54 pixels are more than twice as many
    np.testing.assert_array_equal(read_image(path), gradient())
    assert Image.MAX_IMAGE_PIXELS == 10
    with pytest.raises(ImageError, match="9 x 6 pixels, the limit is 50"):
        read_image(path, max_pixels=50)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_labels_keep_their_values(tmp_path, suffix: str) -> None:
    wide = np.array([[0, 458, 65535]], np.uint16)
    narrow = np.array([[0, 170, 255]], np.uint8)
    for labels in (wide, narrow):
        path = saved(tmp_path / f"{labels.dtype}.{suffix}", Image.fromarray(labels))
        got = read_label(path)
        assert got.dtype == np.int32
        np.testing.assert_array_equal(got, labels)


def test_palette_labels_are_the_indices(tmp_path) -> None:
    labels = np.array([[0, 3], [2, 1]], np.uint8)
    image = Image.fromarray(labels, "P")
    image.putpalette([200, 100, 50] * 4)
    path = saved(tmp_path / "a.png", image)
    np.testing.assert_array_equal(read_label(path), labels)


def test_eight_bits_are_refused_for_classes_that_need_more(tmp_path) -> None:
    cut_off = np.array([[300, 65535]]).astype(np.uint8)
    path = saved(tmp_path / "a.tif", Image.fromarray(cut_off))
    np.testing.assert_array_equal(read_label(path, classes=255), [[44, 255]])
    with pytest.raises(ImageError, match=r"expected 16 bits for 256 classes, got .* 8 bits"):
        read_label(path, classes=256)
    wide = saved(tmp_path / "b.tif", Image.fromarray(np.array([[300, 65535]], np.uint16)))
    np.testing.assert_array_equal(read_label(wide, classes=847), [[300, 65535]])


def test_coloured_labels_are_refused(tmp_path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(gradient()))
    with pytest.raises(ImageError, match=r"one integer channel.*mode RGB.*class ids"):
        read_label(path)


@pytest.mark.parametrize(
    "array",
    [np.array([[0, 255]], np.uint8), np.array([[0, 65535]], np.uint16), gradient()],
    ids=["grey", "grey16", "colour"],
)
def test_written_png_reads_back_the_same(tmp_path, array: np.ndarray) -> None:
    path = tmp_path / "new" / "a.png"
    write_png(path, array)
    got = read_image(path) if array.ndim == 3 else read_label(path)
    np.testing.assert_array_equal(got, array)
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_writing_another_dtype_says_what_to_do(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"uint8 or uint16.*got.*int64.*astype"):
        write_png(tmp_path / "a.png", np.zeros((2, 2), np.int64))
    assert not list(tmp_path.iterdir())
