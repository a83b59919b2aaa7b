from __future__ import annotations

import numpy as np
import pytest

from ovseg.regions import xywh
from ovseg.utils import label_runs
from ovseg.utils.label_runs import class_runs
from ovseg.utils.masks import encode_rle


@pytest.mark.parametrize("piece", [1, 37, 10**6])
@pytest.mark.parametrize("repeat", [1, 40])
@pytest.mark.parametrize(("kind", "blank"), [(np.uint8, 255), (np.uint16, 65535)])
def test_runs_are_those_of_every_class_by_itself(monkeypatch, piece, repeat, kind, blank):
    monkeypatch.setattr(label_runs, "_PIECE", piece)
    rng = np.random.default_rng(piece + repeat)
    for height, width in [(1, 1), (1, 9), (9, 1), (13, 11), (40, 7)]:
        labels = rng.integers(0, 5, (height, width)).astype(kind)
        labels[labels == 4] = blank
        labels = labels.repeat(repeat, 0).repeat(repeat, 1)  # counts of several characters
        found = class_runs(labels, blank=blank)
        assert [each.label for each in found] == sorted(set(labels.ravel().tolist()) - {blank})
        for each in found:
            mask = labels == each.label
            assert each.rle == encode_rle(mask)
            assert (each.pixels, each.box) == (mask.sum(), xywh(mask))


def test_a_map_without_any_class_has_no_runs():
    assert class_runs(np.full((3, 4), 255, np.uint8), blank=255) == []


def test_more_pixels_than_counts_can_hold_are_refused():
    huge = np.broadcast_to(np.uint8(0), (2**16, 2**16))
    with pytest.raises(ValueError, match="expected at most 2147483647 pixels, got 4294967296"):
        class_runs(huge, blank=255)
