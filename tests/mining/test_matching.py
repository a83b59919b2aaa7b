from __future__ import annotations

import math

import numpy as np
import pytest

from ovseg.mining.matching import Match, MatchConfig, match_nouns

# 3 regions x 2 nouns
SCORES = np.array([[0.30, 0.10], [0.25, 0.28], [0.05, 0.20]])


def test_each_noun_gets_its_best_region_with_runner_up_and_margin():
    first, second = match_nouns(SCORES, MatchConfig(softmax_temperature=10.0))

    assert first == Match(0, 0, 0.3, 0.25, 0.05, round(1 / (1 + math.exp(-2.0)), 4), True)
    assert second == Match(1, 1, 0.28, 0.2, 0.08, round(1 / (1 + math.exp(-0.3)), 4), True)


def test_nothing_is_dropped_by_default_and_two_nouns_may_share_a_region():
    matches = match_nouns(np.array([[-0.4, -0.6], [-0.9, -0.8]]), MatchConfig())

    assert [(m.noun_index, m.region_index) for m in matches] == [(0, 0), (1, 0)]
    assert [m.mutual for m in matches] == [True, False]


def test_equal_scores_go_to_the_lower_index():
    [first, second] = match_nouns(np.full((3, 2), 0.2), MatchConfig())

    assert (first.region_index, second.region_index) == (0, 0)
    assert (first.mutual, second.mutual) == (True, False)
    assert (first.runner_up, first.margin, first.probability) == (0.2, 0.0, 0.5)


def test_a_single_region_has_no_runner_up():
    [match] = match_nouns(np.array([[0.123456]]), MatchConfig())

    assert match == Match(0, 0, 0.1235, None, None, 1.0, True)


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        (MatchConfig(threshold=0.29), [0]),
        (MatchConfig(threshold=0.28), [0, 1]),
        (MatchConfig(margin=0.08), [1]),
        (MatchConfig(margin=0.05), [0, 1]),
        (MatchConfig(mutual=True), [0, 1]),
    ],
)
def test_limits_keep_what_reaches_them(config, kept):
    assert [m.noun_index for m in match_nouns(SCORES, config)] == kept


def test_mutual_keeps_one_noun_of_a_shared_region():
    shared = np.array([[0.3, 0.4], [0.1, 0.1]])

    assert [m.noun_index for m in match_nouns(shared, MatchConfig(mutual=True))] == [1]


def test_a_margin_that_is_asked_for_drops_matches_that_have_none():
    assert match_nouns(np.array([[0.5]]), MatchConfig(margin=0.0)) == []


def test_large_temperatures_do_not_overflow():
    [first, second] = match_nouns(np.array([[1.0, -1.0]]), MatchConfig(softmax_temperature=1e6))

    assert (first.probability, second.probability) == (1.0, 0.0)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_no_regions_or_no_nouns_give_no_matches(shape):
    assert match_nouns(np.zeros(shape), MatchConfig()) == []


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"finite scores \(regions, nouns\).* 1 values"):
        match_nouns(np.array([[0.1, np.nan]]), MatchConfig())


def test_a_temperature_of_zero_is_refused():
    with pytest.raises(ValueError, match="positive factor, got 0"):
        MatchConfig(softmax_temperature=0)
