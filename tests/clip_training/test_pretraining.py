from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.clip import MaskPromptedCLIP, build_clip
from ovseg.clip_training.pretraining import (
    BackboneTower,
    PretrainConfig,
    learning_rate,
    make_optimizer,
    normalise_images,
    pretrain,
)
from ovseg.d2.layers import ShapeSpec
from ovseg.d2.modeling import Backbone

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 210), "grey": (128,) * 3}
CONFIG = PretrainConfig(
    steps=12, batch_size=4, lr=3e-3, warmup=2, bf16=False, workers=0, checkpoint_period=4
)


def _render(index: int) -> tuple[np.ndarray, str]:
    name = list(COLOURS)[index % len(COLOURS)]
    noise = np.random.default_rng(index).integers(-20, 20, (16, 16, 3))
    return np.clip(COLOURS[name] + noise, 0, 255).astype(np.uint8), f"a {name} picture"


def _clip() -> MaskPromptedCLIP:
    torch.manual_seed(0)
    return build_clip(
        {
            "embed_dim": 8,
            "vision_cfg": {
                "image_size": 16,
                "layers": 1,
                "width": 16,
                "head_width": 8,
                "patch_size": 8,
            },
            "text_cfg": {
                "context_length": 77,
                "vocab_size": 49408,
                "width": 8,
                "heads": 1,
                "layers": 1,
            },
        }
    )


def _losses(folder: Path) -> dict[int, float]:
    lines = (folder / "log.jsonl").read_text().splitlines()
    return {r["step"]: r["loss"] for r in map(json.loads, lines) if "loss" in r}


def test_pictures_and_captions_are_learnt_to_match(tmp_path: Path) -> None:
    pretrain(
        _clip(),
        _render,
        config=replace(CONFIG, steps=60, lr=0.05, log_period=1),
        output_dir=tmp_path,
    )
    losses = _losses(tmp_path)
    assert losses[1] > 0.8 * math.log(4)
    assert losses[60] < 0.2 * math.log(4)


def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path: Path) -> None:
    whole, resumed = _clip(), _clip()
    pretrain(whole, _render, config=CONFIG, output_dir=tmp_path / "whole")

    class StoppedError(Exception):
        pass

    def failing(index: int) -> tuple[np.ndarray, str]:
        if index >= 4 * 9:
            raise StoppedError
        return _render(index)

    with pytest.raises(StoppedError):
        pretrain(_clip(), failing, config=CONFIG, output_dir=tmp_path / "cut")
    pretrain(resumed, _render, config=CONFIG, output_dir=tmp_path / "cut")
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_checkpoint_of_other_settings_is_refused(tmp_path: Path) -> None:
    pretrain(_clip(), _render, config=replace(CONFIG, steps=2), output_dir=tmp_path)
    with pytest.raises(ValueError, match="other settings"):
        pretrain(_clip(), _render, config=CONFIG, output_dir=tmp_path)


def test_learning_rate_warms_up_and_ends_at_zero() -> None:
    config = PretrainConfig(steps=110, warmup=10, lr=1.0)
    assert learning_rate(0, config) == pytest.approx(0.1)
    assert learning_rate(9, config) == pytest.approx(1.0)
    assert learning_rate(60, config) == pytest.approx(0.5)
    assert learning_rate(109, config) == pytest.approx(0.0, abs=1e-3)


def test_muon_steps_the_matrices_of_the_blocks_and_nothing_else() -> None:
    clip = _clip()
    muon, adamw = make_optimizer(clip, CONFIG).parts
    stepped = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in clip.named_parameters() if id(p) in stepped}
    assert all("resblocks" in name and name.endswith("weight") for name in names)
    assert len(names) == 2 * 4  # in_proj, out_proj, c_fc, c_proj of either tower's block
    others = sum(len(group["params"]) for group in adamw.param_groups)
    assert others + len(names) == len(list(clip.parameters()))


def test_a_backbone_learns_beside_a_text_tower_that_stays_as_it_is(tmp_path: Path) -> None:
    clip = _clip()
    before = {name: tensor.clone() for name, tensor in clip.state_dict().items()}
    torch.manual_seed(1)
    towers = BackboneTower(
        backbone=_Pooling(), clip=clip, pixel_mean=[100.0] * 3, pixel_std=[50.0] * 3
    )
    config = replace(CONFIG, steps=40, lr=0.05, log_period=1, first_pair=8)
    pretrain(towers, _render, config=config, output_dir=tmp_path)
    losses = _losses(tmp_path)
    assert losses[40] < 0.7 * losses[1]
    assert all(torch.equal(clip.state_dict()[name], tensor) for name, tensor in before.items())


def test_a_backbone_sees_pictures_normalised_as_in_segmentation() -> None:
    towers = BackboneTower(
        backbone=_Pooling(), clip=_clip(), pixel_mean=[100.0] * 3, pixel_std=[50.0] * 3
    )
    picture = torch.full((1, 3, 4, 4), 200.0)
    towers.encode_image(normalise_images(picture))
    assert torch.allclose(towers.backbone.seen, torch.full((1, 3, 4, 4), 2.0), atol=1e-5)


class _Pooling(Backbone):
    """Remembers its input and returns it through one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.Conv2d(3, 8, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.seen = images
        return {"res5": self.blocks(images)}

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"res5": ShapeSpec(channels=8, stride=1)}
