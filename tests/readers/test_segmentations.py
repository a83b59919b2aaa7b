from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from ovseg.readers.limits import LimitError
from ovseg.readers.segmentations import decode_polygons, decode_run_lengths, decode_segmentation
from ovseg.utils.masks import decode_rle, encode_rle

SQUARE = [1.0, 1.0, 1.0, 3.0, 3.0, 3.0, 3.0, 1.0]


@pytest.mark.parametrize("seed", range(20))
def test_masks_of_any_form_come_back_from_both_forms_of_run_lengths(seed):
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 90, 2).tolist())
    mask = rng.random(size) < rng.random() ** 2
    if seed % 2:
        mask = np.repeat(mask, 37, axis=1)
    encoded = encode_rle(mask)

    assert np.array_equal(decode_rle(encoded), mask)
    column = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff(np.concatenate(([0], edges, [column.size]))).tolist()
    plain = {"size": encoded["size"], "counts": [0, *runs] if column[0] else runs}
    assert np.array_equal(decode_run_lengths(plain), mask)


@pytest.mark.parametrize(
    "counts",
    [
        encode_rle(np.zeros((4, 4), bool))["counts"],  # fills 16 of 400 pixels
        encode_rle(np.ones((30, 30), bool))["counts"],
        "0" * 7,
        "",
        "oooooooooooooooooooo1",
        "PPPPPPPo",
        "\x00\x01",
        "é",
        [200, 100],
        [500, -100],
        [2**63, -(2**63) + 400],
        [399.5, 0.5],
        [400, float("nan")],
        None,
    ],
)
def test_run_lengths_that_do_not_fill_the_picture_exactly_are_refused(counts):
    with pytest.raises(ValueError, match=r"run lengths|a count of"):
        decode_run_lengths({"size": [20, 20], "counts": counts})


@pytest.mark.parametrize("size", [[20], [20, -20], "ab", None, [20.5, 2], [True, 400]])
def test_a_mask_without_a_size_is_refused(size):
    with pytest.raises(ValueError, match="size of a mask"):
        decode_run_lengths({"size": size, "counts": [400]})


def test_a_mask_beyond_the_limit_is_refused_before_it_is_made():
    with pytest.raises(LimitError, match="picture pixels, got 100000000000000"):
        decode_run_lengths({"size": [10**7, 10**7], "counts": [10**14]})


@pytest.mark.parametrize(
    "number", [float("nan"), float("inf"), -float("inf"), 1e8, -1e300, 10**400]
)
def test_coordinates_that_are_no_place_are_refused_before_the_native_call(number, monkeypatch):
    monkeypatch.setattr(coco_mask, "frPyObjects", lambda *_: pytest.fail("it was called"))
    with pytest.raises((ValueError, OverflowError), match=r"coordinate|too large"):
        decode_polygons([SQUARE, [*SQUARE[:-1], number]], (5, 6))


def test_an_outline_without_end_is_refused():
    zigzag = [value for n in range(2000) for value in (0, (n % 2) * 4000)]
    with pytest.raises(LimitError, match="outline pixels"):
        decode_polygons([zigzag], (400, 400))


def test_a_polygon_that_reaches_a_little_outside_is_drawn_as_before():
    mask = decode_segmentation([[-2.0, -2.0, -2.0, 3.0, 3.0, 3.0, 3.0, -2.0]], (5, 6))
    assert mask.sum() == 9
    assert mask[:3, :3].all()
