"""Rare nouns among frequent ones."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ovseg.data.balanced_pairs import NounBalancedPairs
from ovseg.data.pairs import ArrayPairDataset
from ovseg.data.sampling import SampleKey

NOUNS = ["sky"] * 81 + ["moon"] * 9 + ["crab"]


def pairs():
    regions = [
        (np.full((4, 4, 3), index, dtype=np.uint8), np.ones((4, 4), dtype=bool))
        for index in range(len(NOUNS))
    ]
    return ArrayPairDataset(regions, texts=NOUNS, image_size=(4, 4), min_scale=1.0)


def drawn(exponent, count=2000, seed=0):
    balanced = NounBalancedPairs(pairs(), exponent=exponent, seed=seed)
    return Counter(balanced[SampleKey(position, 0)]["noun"] for position in range(count))


def test_nouns_come_in_proportion_to_a_power_of_their_pairs():
    alike = drawn(0.0)
    assert all(600 < alike[noun] < 735 for noun in ("sky", "moon", "crab"))
    root = drawn(0.5)  # 9 : 3 : 1
    assert 1310 < root["sky"] < 1460 and 390 < root["moon"] < 540 and 110 < root["crab"] < 200


def test_all_pairs_of_a_noun_are_drawn_and_a_position_gives_the_same_again():
    balanced = NounBalancedPairs(pairs(), exponent=0.0, seed=3)
    found = [balanced[SampleKey(position, 0)] for position in range(300)]
    moons = {item["image"].mean().item() for item in found if item["noun"] == "moon"}
    assert len(moons) == 9
    again = balanced[SampleKey(7, 5)]
    assert again["noun"] == found[7]["noun"] and again["image"].equal(found[7]["image"])
    assert balanced[90]["noun"] == "crab" and len(balanced) == 91


@pytest.mark.parametrize("exponent", [-0.1, 1.5])
def test_an_exponent_out_of_range_is_refused(exponent):
    with pytest.raises(ValueError, match="exponent"):
        NounBalancedPairs(pairs(), exponent=exponent)
