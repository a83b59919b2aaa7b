"""Scores of an evaluation: what must hold whatever the pictures and predictions are."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.evaluation.counts import ImageCounts, add_up, class_counts, mean_ious
from tests.properties.strategies import labels_of

K, IGNORED = 4, 255
NAMES = ("a", "b", "c", "d")
TRUTHS = labels_of(K + 1).map(lambda labels: np.where(labels == K, IGNORED, labels))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A prediction, with pixels of no class among it, and its truth."""
    truth = draw(TRUTHS)
    guess = arrays(np.int32, truth.shape, elements=st.integers(0, K))
    known = np.where(truth == IGNORED, 0, truth)
    return draw(guess | st.just(known)), truth


def matrix_of(pair: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return confusion_matrix(*pair, K, IGNORED)


def same(one: dict[str, float], other: dict[str, float]) -> bool:
    return one.keys() == other.keys() and all(
        np.isclose(one[name], other[name], rtol=1e-12, equal_nan=True) for name in one
    )


@given(truth=TRUTHS, rest=st.integers(0, K))
def test_the_truth_scores_100_whatever_is_said_of_ignored_pixels(truth, rest):
    assume((truth != IGNORED).any())
    found = scores(matrix_of((np.where(truth == IGNORED, rest, truth), truth)), NAMES)
    for name in ("mIoU", "mIoU-gt", "fwIoU", "mACC", "pACC"):
        assert found[name] == 100.0


@given(pair=pairs(), data=st.data())
def test_ignored_pixels_never_count(pair, data):
    guess, truth = pair
    other = data.draw(arrays(np.int32, truth.shape, elements=st.integers(0, K)))
    changed = np.where(truth == IGNORED, other, guess)
    assert same(scores(matrix_of(pair), NAMES), scores(matrix_of((changed, truth)), NAMES))


@given(pair=pairs())
def test_scores_are_percentages_and_never_above_those_over_the_truth_alone(pair):
    found = scores(matrix_of(pair), NAMES)
    for name, value in found.items():
        assert np.isnan(value) or 0 <= value <= 100, name
    assert np.isnan(found["mIoU"]) or found["mIoU"] <= found["mIoU-gt"]
    if (pair[1] != IGNORED).any():
        assert found["mIoU"] <= found["mACC"] + 1e-9


@given(given_pairs=st.lists(pairs(), min_size=1, max_size=5), data=st.data())
def test_neither_order_nor_shares_of_pictures_change_the_scores(given_pairs, data):
    images = [ImageCounts.of_matrix(matrix_of(pair)) for pair in given_pairs]
    whole = add_up(images, K)
    np.testing.assert_array_equal(whole, sum(matrix_of(pair) for pair in given_pairs))
    mixed = data.draw(st.permutations(images))
    np.testing.assert_array_equal(add_up(mixed, K), whole)
    cut = data.draw(st.integers(0, len(images)))
    np.testing.assert_array_equal(add_up(images[:cut], K) + add_up(images[cut:], K), whole)
    found = scores(whole, NAMES)
    sums = class_counts([ImageCounts.of_matrix(whole)], K)
    means = mean_ious(sums)
    np.testing.assert_allclose([found["mIoU"], found["mIoU-gt"]], np.ravel(means), rtol=1e-9)


@given(pair=pairs(), data=st.data())
def test_renumbered_classes_have_the_same_scores(pair, data):
    order = np.array(data.draw(st.permutations(range(K))))
    table = np.concatenate((order, [K]))
    guess, truth = pair
    renumbered = np.where(truth == IGNORED, IGNORED, table[np.minimum(truth, K)])
    found = scores(matrix_of((table[guess], renumbered)), [NAMES[i] for i in np.argsort(order)])
    assert same(scores(matrix_of(pair), NAMES), {name: found[name] for name in found})
