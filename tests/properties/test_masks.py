"""Masks and results: through run lengths, polygons, files and the formats of other tools."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from unicodedata import category

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovseg.exports import EXPORT_FORMATS
from ovseg.readers.segmentations import decode_polygons, decode_segmentation
from ovseg.segmentation import Segmentation
from ovseg.utils.masks import decode_rle, encode_rle, paint_by_area
from ovseg.utils.polygons import mask_to_polygons
from tests.exports.readers import read_labelme
from tests.exports.test_exports import READERS
from tests.properties.strategies import MASKS, SIZES, TEXTS, labels_of

# Without control characters, which no vocabulary takes.
NAMES = TEXTS.map(lambda text: "x" + "".join(c for c in text.strip() if category(c) != "Cc"))


@given(mask=MASKS)
def test_run_lengths_give_a_mask_back(mask):
    encoded = encode_rle(mask)
    np.testing.assert_array_equal(decode_rle(encoded), mask)
    np.testing.assert_array_equal(decode_segmentation(encoded, mask.shape), mask)
    column = mask.ravel(order="F").astype(np.int8)
    ends = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff(np.concatenate(([0], ends, [mask.size]))).tolist()
    plain = {"size": list(mask.shape), "counts": [0, *runs] if column[0] else runs}
    np.testing.assert_array_equal(decode_rle(plain), mask)


@given(mask=MASKS, cut=st.data())
def test_run_lengths_of_another_size_are_refused(mask, cut):
    encoded = encode_rle(mask)
    height, width = mask.shape
    other = {**encoded, "size": [height, width + cut.draw(st.integers(1, 3))]}
    with pytest.raises(ValueError, match="fill"):
        decode_rle(other)


@given(mask=MASKS)
def test_polygons_lie_in_the_picture_and_give_the_mask_back(mask):
    again = np.zeros(mask.shape, np.uint8)
    for polygon in mask_to_polygons(mask):
        assert len(polygon) >= 3
        assert (polygon >= 0).all() and (polygon < mask.shape[::-1]).all()
        cv2.fillPoly(again, [polygon], 1)
    np.testing.assert_array_equal(again > 0, mask)


@given(
    size=SIZES,
    shares=arrays(np.float64, st.tuples(st.integers(3, 8), st.just(2)), elements=st.floats(-1, 2)),
)
def test_a_drawn_polygon_stays_in_its_box(size, shares):
    points = shares * size[::-1]
    drawn = decode_polygons([points.ravel().tolist()], size)
    assert drawn.shape == size
    rows, columns = np.nonzero(drawn)
    if len(rows):
        low, high = points.min(axis=0), points.max(axis=0)
        assert low[0] - 1 <= columns.min() and columns.max() <= high[0] + 1
        assert low[1] - 1 <= rows.min() and rows.max() <= high[1] + 1


@given(masks=arrays(np.bool_, st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))))
def test_painted_masks_cover_what_the_masks_cover(masks):
    regions = paint_by_area(masks)
    np.testing.assert_array_equal(regions > 0, masks.any(axis=0))
    assert regions.max(initial=0) <= len(masks)


@st.composite
def results(draw: st.DrawFn, *, lowest: int = -1) -> Segmentation:
    names = tuple(draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)))
    labels = draw(labels_of(len(names), lowest=lowest))
    scores = draw(arrays(np.float32, len(names), elements=st.floats(0, 1, width=32)))
    background = draw(st.none() | st.integers(0, len(names) - 1))
    image = np.full((*labels.shape, 3), 9, np.uint8)
    return Segmentation(image, labels, names, scores, background=background)


@given(result=results())
def test_a_saved_result_is_loaded_again(result):
    with tempfile.TemporaryDirectory() as folder:
        result.save(folder, views=())
        found = Segmentation.load(folder, image=result.image)
    np.testing.assert_array_equal(found.labels, result.labels)
    assert (found.names, found.background) == (result.names, result.background)
    areas = {area.label: area.score for area in result.areas()}
    for label, score in areas.items():
        assert abs(found.scores[label] - score) <= 1e-6


@pytest.mark.parametrize("name", EXPORT_FORMATS)
@given(result=results())
def test_an_export_holds_every_region(name, result):
    read = READERS[name]
    if name == "labelme":
        read = partial(read_labelme, names=list(result.names))
    with tempfile.TemporaryDirectory() as folder:
        result.export(name, Path(folder) / "out", stem="x")
        [labels] = read(Path(folder) / "out").values()
    expected = np.where(result.labels == result.background, -1, result.labels)
    if labels is None:
        assert (expected == -1).all()
    else:
        np.testing.assert_array_equal(labels, expected)
