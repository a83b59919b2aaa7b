"""Specks of a label map go to what surrounds them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from ovseg.utils.specks import merge_specks

CORNERS = np.ones((3, 3), int)


def parts_of(labels: np.ndarray) -> list[np.ndarray]:
    """List the connected parts as masks, in the order of their first pixels."""
    found = []
    for label in np.unique(labels):
        numbers, count = ndimage.label(labels == label, structure=CORNERS)
        found += [numbers == n for n in range(1, count + 1)]
    return sorted(found, key=lambda mask: int(mask.ravel().argmax()))


def merged_one_by_one(labels: np.ndarray, min_area: int) -> np.ndarray:
    """The rule in its plainest form: find all parts anew after every merge."""
    labels = labels.copy()
    while True:
        parts = parts_of(labels)
        small = [mask for mask in parts if mask.sum() < min_area]
        if not small or len(parts) == 1:
            return labels
        speck = min(small, key=lambda mask: mask.sum())  # the first of the smallest
        ranks: dict[int, list[int]] = {}
        for part in parts:
            if part is speck or not (ndimage.binary_dilation(part, CORNERS) & speck).any():
                continue
            sides = 0
            for shift in ((0, 1), (0, -1), (1, 0), (-1, 0)):
                moved = ndimage.shift(part, shift, order=0, cval=False)
                sides += int((moved & speck).sum())
            rank = ranks.setdefault(int(labels[part][0]), [0, 0, -labels.size])
            rank[0] += sides
            rank[1] += int(part.sum())
            rank[2] = max(rank[2], -int(part.ravel().argmax()))
        labels[speck] = max(ranks, key=lambda label: ranks[label])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("min_area", [2, 5, 30, 1000])
def test_it_does_what_merging_one_by_one_does(seed: int, min_area: int) -> None:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(-1, 4, (4, 5))
    labels = np.kron(coarse, np.ones((3, 3), int))
    noise = rng.random(labels.shape) < 0.2
    labels[noise] = rng.integers(-1, 4, noise.sum())
    np.testing.assert_array_equal(
        merge_specks(labels, min_area), merged_one_by_one(labels, min_area)
    )


def test_a_speck_takes_the_label_of_its_longest_border() -> None:
    labels = np.array([[0, 0, 0, 0], [1, 2, 1, 1], [1, 1, 1, 1]])
    assert merge_specks(labels, 2)[1].tolist() == [1, 1, 1, 1]
    assert labels[1, 1] == 2  # the argument stays as it was


def test_a_part_of_the_stated_size_stays() -> None:
    labels = np.zeros((4, 4), np.int32)
    labels[1, 1:3] = 1
    assert (merge_specks(labels, 2) == labels).all()
    assert (merge_specks(labels, 3) == 0).all()
    assert merge_specks(labels, 3).dtype == np.int32


@pytest.mark.parametrize("off", [0, 1])
def test_off_changes_nothing(off: int) -> None:
    labels = np.arange(12, dtype=np.int32).reshape(3, 4)
    assert (merge_specks(labels, off) == labels).all()


def test_numbers_of_the_labels_have_no_influence() -> None:
    labels = np.random.default_rng(0).integers(0, 5, (24, 30))
    order = np.array([3, 0, 4, 2, 1])
    np.testing.assert_array_equal(merge_specks(order[labels], 6), order[merge_specks(labels, 6)])


def test_blank_is_a_label_like_any_other() -> None:
    labels = np.zeros((5, 8), int)
    labels[:, 4:] = -1
    labels[2, 1], labels[2, 6] = -1, 0  # a hole in the class, a speck amid blank pixels
    assert merge_specks(labels, 2).tolist() == [[0, 0, 0, 0, -1, -1, -1, -1]] * 5


def test_small_parts_may_grow_into_one_that_stays() -> None:
    labels = np.zeros((4, 6), int)
    labels[0, 1:4], labels[1, 1:4] = 1, 2  # the upper one shares 3 sides with the lower, 2 with 0
    merged = merge_specks(labels, 4)
    assert merged[:2].tolist() == [[0, 2, 2, 2, 0, 0]] * 2 and (merged[2:] == 0).all()


def test_pixels_at_a_corner_are_one_part() -> None:
    labels = np.eye(6, dtype=int)
    assert (merge_specks(labels, 6) == labels).all()
    assert (merge_specks(labels, 7) == 0).all()


def test_a_picture_below_the_size_keeps_one_label() -> None:
    assert merge_specks(np.array([[4, 4, 7]]), 100).tolist() == [[4, 4, 4]]
    assert merge_specks(np.full((2, 2), 3), 100).tolist() == [[3, 3], [3, 3]]
    assert merge_specks(np.zeros((0, 3), int), 5).shape == (0, 3)


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(ValueError, match="0 for none, got -1"):
        merge_specks(np.zeros((2, 2), int), -1)
