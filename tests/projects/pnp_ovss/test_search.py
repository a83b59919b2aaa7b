from __future__ import annotations

import json

import pytest
import torch

from ovseg.projects.pnp_ovss import bundle, search_reward
from ovseg.projects.pnp_ovss.reward import Judged, wins
from ovseg.projects.pnp_ovss.search import search
from ovseg.tinyscapes import write_split
from ovseg.utils.run_record import AnotherRunError
from ovseg.weights.load import read_state_dict
from tests.projects.pnp_ovss.tiny import write_config, write_matcher

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


def test_the_command_judges_pictures_by_names_and_goes_on_where_it_stopped(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    write_split(tmp_path, "val", 2, workers=0)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    words = ["--config-file", str(write_config(tmp_path)), "--dataset", "tinyscapes_val_sem_seg"]
    words += ["--images", "2", "--output", str(tmp_path / "found"), "--thresholds", "0.15", "0.45"]
    parse = search_reward.make_parser().parse_args
    words += ["--iterations"]
    search_reward.main(parse([*words, "2"]))
    known = json.loads((tmp_path / "found/rewards.json").read_text())
    search_reward.main(parse([*words, "6"]))
    rewards = json.loads((tmp_path / "found/rewards.json").read_text())
    assert known.items() <= rewards.items()
    found = json.loads((tmp_path / "found/search.json").read_text())
    assert len(found["tried"]) == 6 and all(one["layer"] in (1, 2) for one in found["tried"])
    won = max(one["wins"] for one in found["tried"])
    best = {**found["best"], "wins": won}
    assert best in found["tried"] and 0 <= won <= found["classes"]
    with pytest.raises(AnotherRunError, match="thresholds"):
        search_reward.main(parse([*words, "6", "--thresholds", "0.3"]))


def test_bundled_weights_are_half_as_large_and_still_a_matcher(tmp_path):
    pytest.importorskip("transformers")
    path = write_matcher(tmp_path)
    words = [str(path), str(tmp_path / "half.safetensors")]
    bundle.main(bundle.make_parser().parse_args(words))
    whole, half = read_state_dict(path), read_state_dict(tmp_path / "half.safetensors")
    assert torch.equal(half["matcher.header"], whole["matcher.header"])
    assert half["matcher.model.itm_head.weight"].dtype == torch.float16
