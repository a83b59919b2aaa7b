"""Pictures and label maps: what is written is read, and sizes are what decoding gives."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from ovseg.readers.pictures import decode_image, decode_label, image_size, read_image, read_label
from ovseg.utils.images import write_png
from ovseg.utils.resizing import resize, resize_shortest_edge, resized_shape
from tests.properties.strategies import SIZES, labels_of, pictures

LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True, "exact": True}}


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("kind", LOSSLESS)
@given(picture=pictures())
def test_colours_come_back_from_every_lossless_format(kind, picture):
    data = saved(Image.fromarray(picture), kind, **LOSSLESS[kind])
    np.testing.assert_array_equal(decode_image(data, "x"), picture)


@given(picture=pictures(4), kind=st.sampled_from(["PNG", "TIFF", "WEBP"]))
def test_transparency_is_laid_over_white(picture, kind):
    read = decode_image(saved(Image.fromarray(picture), kind, **LOSSLESS[kind]), "x")
    alpha = picture[..., 3]
    assert (read[alpha == 0] == 255).all()
    np.testing.assert_array_equal(read[alpha == 255], picture[alpha == 255][:, :3])


@given(picture=pictures(None, np.uint16))
def test_16_bits_are_scaled_to_8_within_half_a_step(picture):
    read = decode_image(saved(Image.fromarray(picture), "PNG"), "x")
    assert (read == read[..., :1]).all()
    assert np.abs(read[..., 0] * 257.0 - picture).max() <= 128.5


@given(
    size=SIZES,
    kind=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP"]),
    mode=st.sampled_from(["L", "RGB"]),
    orientation=st.integers(0, 9),
)
@example(size=(1, 2), kind="TIFF", mode="L", orientation=5)
def test_the_size_in_the_header_is_that_of_the_decoded_picture(
    tmp_path, size, kind, mode, orientation
):
    image, exif = Image.new(mode, size[::-1]), Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "x"
    path.write_bytes(saved(image, kind, exif=exif))
    assert image_size(path) == read_image(path).shape[:2]


@given(labels=labels_of(65536), deep=st.booleans())
def test_label_maps_come_back_unchanged(tmp_path, labels, deep):
    kept = labels.astype(np.uint16) if deep else (labels % 256).astype(np.uint8)
    write_png(tmp_path / "x.png", kept)
    np.testing.assert_array_equal(read_label(tmp_path / "x.png"), kept)
    np.testing.assert_array_equal(decode_label((tmp_path / "x.png").read_bytes(), "x"), kept)


@given(height=st.integers(1, 9000), width=st.integers(1, 9000), data=st.data())
def test_a_resized_shape_keeps_its_bounds_and_the_direction_of_its_sides(height, width, data):
    short = data.draw(st.integers(1, 2000))
    longest = data.draw(st.integers(1, 4000))
    new = resized_shape(height, width, short, longest)
    assert 1 <= min(new) <= short and max(new) <= longest
    assert (new[0] - new[1]) * (height - width) >= 0
    assert min(new) == short or max(new) == longest
    assert resized_shape(width, height, short, longest) == new[::-1]


@given(picture=pictures(), labels=labels_of(300), size=SIZES)
def test_resizing_keeps_kind_range_and_labels(picture, labels, size):
    small = resize(picture, size)
    assert small.shape == (*size, 3) and small.dtype == np.uint8
    assert picture.min() <= small.min() and small.max() <= picture.max()
    kept = resize(labels, size)
    assert kept.shape == size and set(np.unique(kept)) <= set(np.unique(labels))
    assert resize(picture, picture.shape[:2]) is picture
    shape = resize_shortest_edge(picture, 16, 24).shape
    assert shape[:2] == resized_shape(*picture.shape[:2], 16, 24)
