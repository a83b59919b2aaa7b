from __future__ import annotations

import json

import numpy as np
import pytest

from ovseg.utils.masks import decode_rle, encode_rle


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
