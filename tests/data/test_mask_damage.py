from __future__ import annotations

import numpy as np
import pytest

from ovseg.data.mask_damage import DAMAGES, MIN_IOU, damage_mask

SIZE = (60, 80)
ROWS, COLUMNS = np.mgrid[: SIZE[0], : SIZE[1]]
DISC = (ROWS - 30) ** 2 + (COLUMNS - 40) ** 2 < 12**2
RADIUS = 12.0


def dot() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[5, 7] = True
    return mask


def pole() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[4:50, 20:22] = True
    return mask


@pytest.mark.parametrize("mask", [DISC, dot(), pole(), np.ones(SIZE, bool)])
def test_damage_leaves_most_of_a_region_and_never_nothing(mask):
    before = mask.copy()
    for seed in range(60):
        damaged = damage_mask(mask, np.random.default_rng(seed))
        assert (damaged.dtype, damaged.shape) == (np.bool_, SIZE)
        assert (damaged & mask).sum() >= MIN_IOU * (damaged | mask).sum() > 0
    assert np.array_equal(mask, before)


def test_most_draws_change_a_mask_and_all_kinds_come():
    results = {damage_mask(DISC, np.random.default_rng(seed)).tobytes() for seed in range(60)}

    assert len(results) > 50


@pytest.mark.parametrize(
    ("kind", "gains", "loses"),
    [
        ("dilate", True, False),
        ("erode", False, True),
        ("coarsen", True, True),
        ("shift", True, True),
        ("cut", False, True),
        ("gain", True, False),
        ("lose", False, True),
    ],
)
def test_each_kind_gains_and_loses_what_its_name_says(kind, gains, loses):
    assert len(DAMAGES) == 7
    found = [DAMAGES[kind](DISC, RADIUS, np.random.default_rng(seed)) for seed in range(20)]
    assert any((damaged & ~DISC).any() for damaged in found) == gains
    assert any((DISC & ~damaged).any() for damaged in found) == loses
    assert sum((damaged != DISC).any() for damaged in found) > 18


def test_dilating_and_eroding_move_the_edge_by_a_share_of_the_radius():
    distance = np.hypot(ROWS - 30, COLUMNS - 40)
    for seed in range(20):
        wide = distance[DAMAGES["dilate"](DISC, RADIUS, np.random.default_rng(seed))].max()
        narrow = distance[DAMAGES["erode"](DISC, RADIUS, np.random.default_rng(seed))].max()
        assert 1.05 * RADIUS < wide < 1.5 * RADIUS
        assert 0.6 * RADIUS < narrow < 0.95 * RADIUS


def test_a_shift_keeps_the_shape_and_a_cut_is_a_straight_half():
    rng = np.random.default_rng(1)
    assert DAMAGES["shift"](DISC, RADIUS, rng).sum() == DISC.sum()
    for seed in range(20):
        kept = DAMAGES["cut"](DISC, RADIUS, np.random.default_rng(seed))
        assert 0.5 < kept.sum() / DISC.sum() < 0.95
        inside, outside = np.argwhere(kept).mean(0), np.argwhere(DISC & ~kept).mean(0)
        along = np.argwhere(DISC) @ (outside - inside)  # what was cut off lies beyond what is kept
        gone = ~kept[DISC]
        assert np.corrcoef(along, gone)[0, 1] > 0.5


def test_coarsening_leaves_few_corners():
    noisy = DISC & (np.random.default_rng(0).random(SIZE) < 0.8)

    def edges(mask):
        return np.count_nonzero(np.diff(mask.astype(int), axis=1))

    assert edges(DAMAGES["coarsen"](noisy, 6.0, np.random.default_rng(0))) < edges(noisy) / 3
