from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.clip_training.parameters import make_optimizer, set_trainable, warmup_cosine
from ovseg.clip_training.train import train_clip
from tests.clip_training.tiny_captions import CONFIG, captions, colour_clip, render


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [line["loss_contrastive"] for line in lines if "loss_contrastive" in line]


def test_pictures_and_captions_are_learnt_to_match_by_both_towers(tmp_path: Path) -> None:
    clip = colour_clip()
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    config = replace(CONFIG, steps=60, lr=0.03)
    train_clip(config, clip, captions(steps=60), output_dir=tmp_path)
    found = losses(tmp_path)
    assert found[0] > 0.8 * math.log(4)
    assert found[-1] < 0.2 * math.log(4)
    assert all(
        not torch.equal(before[name], tensor)
        for name, tensor in clip.named_parameters()
        if tensor.requires_grad
    )


def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole, resumed = colour_clip(), colour_clip()
    train_clip(CONFIG, whole, captions(), output_dir=tmp_path / "whole")

    class StoppedError(Exception):
        pass

    def failing(index: int) -> tuple[np.ndarray, str]:
        if index >= 4 * 9:
            raise StoppedError
        return render(index)

    with pytest.raises(StoppedError):
        train_clip(CONFIG, colour_clip(), captions(draw=failing), output_dir=tmp_path / "cut")
    train_clip(CONFIG, resumed, captions(), output_dir=tmp_path / "cut", resume=True)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_the_learning_rate_warms_up_and_ends_at_zero() -> None:
    factors = [warmup_cosine(step, warmup=10, steps=110) for step in (0, 9, 60, 110)]
    assert factors == pytest.approx([0.1, 1.0, 0.5, 0.0])


def test_muon_steps_the_matrices_of_the_blocks_and_nothing_else() -> None:
    clip = colour_clip()
    set_trainable(clip, "towers")
    muon, adamw = make_optimizer(clip, CONFIG).parts
    names = {name for group in muon.param_groups for name in group["names"]}
    assert all("resblocks" in name and name.endswith("weight") for name in names)
    assert len(names) == 2 * 4  # in_proj, out_proj, c_fc, c_proj of either tower's block
    assert [group["weight_decay"] for group in muon.param_groups] == [0.05]
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.0]
    others = {name for group in adamw.param_groups for name in group["names"]}
    assert names | others == {n for n, _ in clip.named_parameters()} - {"visual.mask_embedding"}
