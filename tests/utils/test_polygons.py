from __future__ import annotations

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from ovseg.utils.polygons import mask_to_polygons


def blobs(seed: int, sigma: float, shape=(60, 80)) -> np.ndarray:
    noise = np.random.default_rng(seed).random(shape).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return smooth > np.median(smooth)


def filled_by_opencv(polygons, shape):
    canvas = np.zeros(shape, np.uint8)
    for polygon in polygons:
        cv2.fillPoly(canvas, [polygon], 1)
    return canvas.astype(bool)


def filled_by_pillow(polygons, shape):
    canvas = np.zeros(shape, bool)
    for polygon in polygons:
        image = Image.new("1", shape[::-1])
        ImageDraw.Draw(image).polygon([tuple(map(float, p)) for p in polygon], outline=1, fill=1)
        canvas |= np.array(image)
    return canvas


@pytest.mark.parametrize("fill", [filled_by_opencv, filled_by_pillow])
@pytest.mark.parametrize("sigma", [1.0, 2.5, 5.0])
def test_filled_polygons_give_parts_with_holes_back_exactly(fill, sigma):
    mask = blobs(0, sigma)
    polygons = mask_to_polygons(mask)
    assert len(polygons) == cv2.connectedComponents(mask.astype(np.uint8))[0] - 1
    np.testing.assert_array_equal(fill(polygons, mask.shape), mask)


@pytest.mark.parametrize("fill", [filled_by_opencv, filled_by_pillow])
@pytest.mark.parametrize("shape, hole", [((7, 9), np.s_[2:4, 6:8]), ((6, 12), np.s_[4, 4])])
def test_a_hole_is_cut_in(fill, shape, hole):
    mask = np.ones(shape, bool)
    mask[hole] = False
    [polygon] = mask_to_polygons(mask)
    np.testing.assert_array_equal(fill([polygon], shape), mask)
    assert polygon[:, 0].max() == shape[1] - 1 and polygon[:, 1].max() == shape[0] - 1


def test_a_cut_crosses_no_gap_to_a_bump_that_is_near():
    mask = np.ones((60, 18), bool)
    mask[2:, 7:10] = False
    mask[30, 9] = True
    mask[30, 4] = False
    [polygon] = mask_to_polygons(mask)
    np.testing.assert_array_equal(filled_by_opencv([polygon], mask.shape), mask)


@pytest.mark.parametrize("pixels", [[(1, 1)], [(1, 1), (1, 2)], [(1, 1), (2, 2)]])
def test_the_smallest_parts_have_three_vertices_too(pixels):
    mask = np.zeros((4, 5), bool)
    for place in pixels:
        mask[place] = True
    [polygon] = mask_to_polygons(mask)
    assert len(polygon) == 3 and polygon.dtype == np.int32
    np.testing.assert_array_equal(filled_by_opencv([polygon], mask.shape), mask)


def test_a_tolerance_leaves_vertices_out_and_most_of_the_mask_as_it_is():
    mask = blobs(1, 4.0)
    exact, coarse = mask_to_polygons(mask), mask_to_polygons(mask, tolerance=1.0)
    assert sum(map(len, coarse)) < 0.6 * sum(map(len, exact))
    again = filled_by_opencv(coarse, mask.shape)
    assert (again & mask).sum() / (again | mask).sum() > 0.9


def test_an_empty_mask_has_no_polygon_and_other_input_is_refused():
    assert mask_to_polygons(np.zeros((4, 5), bool)) == []
    with pytest.raises(ValueError, match=r"\(H, W\) bool, got uint8"):
        mask_to_polygons(np.zeros((4, 5), np.uint8))
    with pytest.raises(ValueError, match="tolerance: expected a number of pixels"):
        mask_to_polygons(np.zeros((4, 5), bool), tolerance=-1)
