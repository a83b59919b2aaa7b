from __future__ import annotations

import json

import pytest
import torch

from ovseg.projects.pnp_ovss.reward import Judged, wins
from ovseg.projects.pnp_ovss.search import search

SPACE = {"layer": list(range(10)), "head": list(range(10))}


def hill(setting):
    return -((setting["layer"] - 7) ** 2) - (setting["head"] - 3) ** 2


def test_annealing_finds_the_top_of_a_hill_with_fewer_evaluations_than_settings():
    found = search(SPACE, hill, 60, seed=1)
    assert found.best == ({"layer": 7, "head": 3}, 0.0)
    assert len(found.tried) == 60 and len(found.rewards) < 60


def test_random_search_draws_from_the_whole_space():
    found = search(SPACE, hill, 40, seed=0, method="random")
    assert len({(one["layer"], one["head"]) for one, _ in found.tried}) > 25
    assert found.best[1] >= -4


def test_the_same_seed_tries_the_same_settings_and_another_seed_others():
    first, again = search(SPACE, hill, 20, seed=5), search(SPACE, hill, 20, seed=5)
    assert first.tried == again.tried
    assert first.tried != search(SPACE, hill, 20, seed=6).tried


@pytest.mark.parametrize("method", ["annealing", "random"])
def test_a_search_that_was_stopped_goes_on_without_asking_again(tmp_path, method):
    whole = search(SPACE, hill, 30, seed=2, method=method)
    asked = []

    def stopping(setting):
        if len(asked) == 4:
            raise KeyboardInterrupt
        asked.append(setting)
        return hill(setting)

    journal = tmp_path / "rewards.json"
    with pytest.raises(KeyboardInterrupt):
        search(SPACE, stopping, 30, seed=2, method=method, journal=journal)
    known = json.loads(journal.read_text())
    assert len(known) == 4

    def once(setting):
        assert json.dumps(setting, sort_keys=True) not in known
        return hill(setting)

    assert search(SPACE, once, 30, seed=2, method=method, journal=journal).tried == whole.tried


def test_a_space_of_one_setting_is_searched_at_once():
    found = search({"layer": [1]}, lambda _: 3.0, 5, seed=0)
    assert found.best == ({"layer": 1}, 3.0) and len(found.rewards) == 1


def test_empty_spaces_and_unknown_methods_are_refused():
    with pytest.raises(ValueError, match=r"got none for \['head'\]"):
        search({"layer": [1], "head": []}, hill, 3, seed=0)
    with pytest.raises(ValueError, match=r"got 0 and 'annealing'"):
        search(SPACE, hill, 0, seed=0)
    with pytest.raises(ValueError, match=r"got 3 and 'grid'"):
        search(SPACE, hill, 3, seed=0, method="grid")


class Halves:
    """A judge that sees how much there is in the upper and in the lower half."""

    def encode_image(self, pixels):
        return pixels.abs().mean(1).unflatten(1, (2, -1)).flatten(2).mean(2) + 0.1  # (B, 2)


def test_a_map_wins_where_it_shows_its_class_and_an_empty_one_never():
    picture = Judged(torch.ones(3, 32, 32), torch.eye(2), torch.empty(0))
    maps = torch.zeros(2, 4, 4)
    maps[0, :2] = maps[1, 2:] = 1.0
    assert wins(Halves(), picture, maps, 0.5) == 2
    assert wins(Halves(), picture, maps[[0, 0]], 0.5) == 1
    assert wins(Halves(), picture, maps.flip(0), 0.5) == 0
    assert wins(Halves(), picture, torch.zeros(2, 4, 4), 0.5) == 0


def test_with_one_class_nothing_can_win():
    picture = Judged(torch.ones(3, 32, 32), torch.tensor([[1.0, 0.0]]), torch.empty(0))
    maps = torch.zeros(1, 4, 4)
    maps[0, :2] = 1.0
    assert wins(Halves(), picture, maps, 0.5) == 0
