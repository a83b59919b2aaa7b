"""The stages of the bundled model: what they need, what they leave, what they refuse."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.data.catalog import register_builtin
from ovseg.tinyscapes.recipe import CONFIG, FULL, QUICK, Recipe, Schedule
from ovseg.utils.run_record import AnotherRunError
from ovseg.weights.load import read_state_dict

ROOT = Path(__file__).resolve().parents[2]
TOY = Schedule(
    pictures=20,
    clip_steps=1,
    longer_steps=1,
    iterations=2,
    mined_pictures=12,
    adaptation_steps=1,
    rounds=2,
)


def test_masks_and_the_image_tower_wait_for_the_texts_alone():
    stages = FULL.stages
    assert list(stages) == [
        *("pictures", "clip", "proposals", "longer", "base"),
        *("round 1", "round 2"),
    ]
    assert stages["proposals"] == ("pictures", "clip") and stages["longer"] == ("clip",)
    assert stages["round 2"] == ("pictures", "round 1") and FULL.last == "round 2"
    assert replace(QUICK, rounds=0).last == "base"


def test_a_folder_of_another_seed_or_length_is_refused(tmp_path):
    Recipe(tmp_path, 0, TOY)._claim("clip")
    Recipe(tmp_path, 0, replace(TOY, iterations=9))._claim("clip")  # of no concern to this stage
    with pytest.raises(AnotherRunError, match=r"seed: 0 -> 1"):
        Recipe(tmp_path, 1, TOY)._claim("clip")
    with pytest.raises(AnotherRunError, match=r"schedule.clip_steps: 1 -> 2"):
        Recipe(tmp_path, 0, replace(TOY, clip_steps=2))._claim("clip")


@pytest.mark.slow
def test_stages_side_by_side_give_the_model_of_stages_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")  # its workers look there, too
    tool = importlib.import_module("build_tiny")
    monkeypatch.setattr(tool, "QUICK", TOY)
    evaluated = []
    monkeypatch.setattr(tool, "train_net", lambda *words: evaluated.append(words))
    results = []
    for name in ("one", "two"):
        monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / name))
        register_builtin()
        recipe = Recipe(tmp_path / name / "run", 0, TOY)
        if name == "one":
            for stage in TOY.stages:
                recipe.run(stage)
        else:
            words = ["--quick", "--output", str(recipe.folder), "--workers", "2"]
            tool.main(tool.make_parser().parse_args(words))
        results.append(read_state_dict(recipe.weights_of(TOY.last)))
    assert evaluated[0][-1] == str(recipe.weights_of(TOY.last))
    first, second = results
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)
    model = build_model(load_cfg(CONFIG, ["MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", ""]))
    model.load_weights(recipe.weights_of(TOY.last))
    base = read_state_dict(recipe.weights_of("base"))
    changed = {name.split(".")[0] for name in base if not torch.equal(base[name], first[name])}
    assert changed == {"clip_adapter"}
    recipe.run(TOY.last)  # finished: nothing is made anew
    recipe.weights_of("base").write_bytes(b"other")
    with pytest.raises(AnotherRunError, match="made from"):
        recipe.run("round 1")
