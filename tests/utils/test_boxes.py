from __future__ import annotations

import pytest
import torch

from ovseg.utils.boxes import masks_to_boxes


def test_boxes_are_tight_with_exclusive_ends():
    masks = torch.zeros(3, 5, 7, dtype=torch.bool)
    masks[0, 1, 2] = True
    masks[1, 0:5, 6] = masks[1, 4, 3] = True
    masks[2] = True

    assert masks_to_boxes(masks).tolist() == [[2, 1, 3, 2], [3, 0, 7, 5], [0, 0, 7, 5]]


def test_an_empty_mask_has_an_empty_box():
    masks = torch.zeros(2, 3, 3, dtype=torch.bool)
    masks[1, 2, 0] = True

    assert masks_to_boxes(masks).tolist() == [[0, 0, 0, 0], [0, 2, 1, 3]]


def test_boxes_agree_with_a_search_over_pixels():
    masks = torch.rand(20, 6, 9, generator=torch.Generator().manual_seed(0)) > 0.9
    for mask, box in zip(masks, masks_to_boxes(masks).tolist(), strict=True):
        ys, xs = torch.nonzero(mask, as_tuple=True)
        expected = [0, 0, 0, 0]
        if len(ys):
            expected = [int(v) for v in (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)]
        assert box == expected


def test_no_masks_have_no_boxes():
    assert masks_to_boxes(torch.zeros(0, 4, 4, dtype=torch.bool)).shape == (0, 4)


def test_a_single_mask_without_its_dimension_is_refused():
    with pytest.raises(ValueError, match=r"must be \(N, H, W\), got shape \(4, 4\)"):
        masks_to_boxes(torch.zeros(4, 4, dtype=torch.bool))
