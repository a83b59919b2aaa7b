from __future__ import annotations

import json

import numpy as np
import pytest

from ovseg.utils.masks import decode_rle, encode_rle, paint_by_area, paint_by_score


def test_a_mask_survives_json():
    mask = np.random.default_rng(0).random((5, 7)) > 0.5
    encoded = json.loads(json.dumps(encode_rle(mask)))

    assert encoded["size"] == [5, 7]
    assert np.array_equal(decode_rle(encoded), mask)
    assert decode_rle(encoded).dtype == np.bool_


def test_the_encoding_is_cocos():
    # Column-major runs 1 0, 2 1, 3 0 as COCO's text.
    mask = np.array([[0, 1, 0], [1, 0, 0]], dtype=bool)

    assert encode_rle(mask) == {"size": [2, 3], "counts": "123"}


@pytest.mark.parametrize("value", [False, True])
def test_uniform_masks_survive(value):
    mask = np.full((3, 2), value)

    assert np.array_equal(decode_rle(encode_rle(mask)), mask)


def test_a_label_map_is_refused():
    with pytest.raises(ValueError, match=r"\(H, W\) bool, got uint8"):
        encode_rle(np.zeros((2, 2), dtype=np.uint8))


def overlapping():
    masks = np.zeros((3, 4, 6), dtype=bool)
    masks[0, 0:3, 0:4] = True  # 12 pixels
    masks[1, 1:2, 1:3] = True  # 2, inside the first
    masks[2, 2:4, 3:6] = True  # 6, over the first one's corner
    return masks


def test_larger_masks_cover_smaller_ones_and_are_numbered_by_area():
    painted = paint_by_area(overlapping())

    assert painted.dtype == np.int32
    assert painted.tolist() == [
        [3, 3, 3, 3, 0, 0],
        [3, 3, 3, 3, 0, 0],
        [3, 3, 3, 3, 2, 2],
        [0, 0, 0, 2, 2, 2],
    ]


def test_smaller_masks_can_lie_on_top():
    painted = paint_by_area(overlapping(), larger_on_top=False)

    assert painted[1].tolist() == [1, 3, 3, 1, 0, 0]
    assert painted[2].tolist() == [1, 1, 1, 2, 2, 2]


def test_masks_of_one_area_keep_their_order():
    masks = np.zeros((2, 1, 3), dtype=bool)
    masks[0, 0, :2] = masks[1, 0, 1:] = True

    assert paint_by_area(masks).tolist() == [[1, 2, 2]]


def test_certain_masks_cover_uncertain_ones_and_keep_their_place_as_number():
    painted = paint_by_score(overlapping(), np.array([0.9, 0.2, 0.6], np.float32), min_score=0.5)

    assert painted[1].tolist() == [1, 1, 1, 1, 0, 0]
    assert painted[2].tolist() == [1, 1, 1, 1, 2, 2]


def test_no_masks_make_an_empty_map():
    assert not paint_by_area(np.zeros((0, 3, 4), dtype=bool)).any()


@pytest.mark.parametrize("masks", [np.zeros((2, 3), bool), np.zeros((1, 2, 3), np.uint8)])
def test_what_is_no_stack_of_masks_is_refused(masks):
    with pytest.raises(ValueError, match=r"expected masks \(Q, H, W\) bool"):
        paint_by_area(masks)


def test_scores_must_fit_the_masks():
    with pytest.raises(ValueError, match="a score for each of 3 masks"):
        paint_by_score(overlapping(), np.ones(2, np.float32))
