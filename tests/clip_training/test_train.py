from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ovseg.clip import encode_texts
from ovseg.clip_training.parameters import make_optimizer, set_trainable
from ovseg.clip_training.train import train_clip
from ovseg.data.pairs import ArrayPairDataset
from ovseg.weights.clip import load_clip_state
from ovseg.weights.load import read_state_dict
from tests.clip.tiny import make_images
from tests.clip_training.tiny_pairs import CONFIG, STEPS, tiny_clip, tiny_pairs
from tests.helpers import run_two_processes

PROMPT = "visual.mask_embedding"


def snapshot(clip) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in clip.state_dict().items()}


def changed(before, clip) -> set[str]:
    now = clip.state_dict()
    return {name for name in before if not torch.equal(before[name], now[name])}


def losses(folder: Path) -> list[float]:
    lines = map(json.loads, (folder / "metrics.json").read_text().splitlines())
    return [line["loss_contrastive"] for line in lines if "loss_contrastive" in line]


def test_mask_prompt_tuning_changes_the_prompt_and_the_temperature_alone(tmp_path):
    clip = tiny_clip()
    before = snapshot(clip)
    train_clip(
        replace(CONFIG, mode="mask_prompt", lr=0.02), clip, tiny_pairs(), output_dir=tmp_path
    )
    assert changed(before, clip) == {PROMPT, "logit_scale"}
    # So without its prompt the CLIP is what it was.
    images = make_images()
    with torch.no_grad():
        assert torch.equal(clip.visual(images), _reload(before).visual(images))


def test_full_fine_tuning_changes_the_image_tower_and_no_text_or_prompt(tmp_path):
    clip = tiny_clip()
    before = snapshot(clip)
    clip.requires_grad_(False)  # torch takes other kernels for parameters that require one
    rows = encode_texts(clip, ["a cat", "two dogs"])
    train_clip(CONFIG, clip, tiny_pairs(), output_dir=tmp_path)
    expected = {n for n in before if n.startswith("visual.")} - {PROMPT} | {"logit_scale"}
    assert changed(before, clip) == expected
    assert torch.equal(encode_texts(clip, ["a cat", "two dogs"]), rows)


def test_both_at_once_change_everything_but_the_text_tower(tmp_path):
    clip = tiny_clip()
    before = snapshot(clip)
    train_clip(
        replace(CONFIG, mode="both", prompt_lr=0.02), clip, tiny_pairs(), output_dir=tmp_path
    )
    assert changed(before, clip) == {n for n in before if n.startswith("visual.")} | {"logit_scale"}


@pytest.mark.parametrize("mode", ["full", "mask_prompt", "both"])
def test_a_run_of_no_steps_leaves_the_clip_as_it_was(tmp_path, mode):
    clip = tiny_clip()
    before = snapshot(clip)
    result = train_clip(
        replace(CONFIG, mode=mode, steps=0), clip, tiny_pairs(), output_dir=tmp_path
    )
    assert changed(before, clip) == set()
    written = load_clip_state(tmp_path / "clip.safetensors")
    assert all(torch.equal(written[name], before[name]) for name in before)
    assert (result["steps"], result["pairs_per_second"]) == (0, None)


def test_a_trained_prompt_is_used_and_kept_by_full_fine_tuning(tmp_path):
    clip = tiny_clip(prompt=True)
    before = snapshot(clip)
    train_clip(replace(CONFIG, steps=1), clip, tiny_pairs(), output_dir=tmp_path / "prompted")
    assert PROMPT not in changed(before, clip)
    train_clip(replace(CONFIG, steps=1), tiny_clip(), tiny_pairs(), output_dir=tmp_path / "plain")
    assert losses(tmp_path / "prompted") != losses(tmp_path / "plain")


def test_regions_and_nouns_are_learnt_to_match(tmp_path):
    config = replace(CONFIG, steps=40, lr=1e-2, duplicates="positive", log_period=1)
    train_clip(config, tiny_clip(), tiny_pairs(), output_dir=tmp_path)
    found = losses(tmp_path)
    assert found[-1] < 0.5 * found[0]


class StoppedError(Exception):
    pass


class Stopping(ArrayPairDataset):
    """Fails when the given number of regions were read."""

    left = 60

    def region(self, index):
        self.left -= 1
        if self.left < 0:
            raise StoppedError
        return super().region(index)


@pytest.mark.parametrize("mode", ["both", "mask_prompt"])
def test_an_interrupted_run_ends_with_the_weights_of_an_undisturbed_one(tmp_path, mode):
    config = replace(CONFIG, mode=mode, epochs=4)  # 12 steps of 8 pairs
    whole, resumed = tiny_clip(), tiny_clip()
    train_clip(config, whole, tiny_pairs(), output_dir=tmp_path / "whole")
    with pytest.raises(StoppedError):
        train_clip(config, tiny_clip(), Stopping.load(tiny_pairs()), output_dir=tmp_path / "cut")
    assert (tmp_path / "cut" / "last_checkpoint").read_text() == "model_0000005.pth"
    train_clip(config, resumed, tiny_pairs(), output_dir=tmp_path / "cut", resume=True)
    assert changed(snapshot(whole), resumed) == set()
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


def test_a_run_with_other_settings_is_not_continued(tmp_path):
    train_clip(replace(CONFIG, steps=3), tiny_clip(), tiny_pairs(), output_dir=tmp_path)
    other = replace(CONFIG, steps=3, lr=1e-3, workers=1)
    with pytest.raises(ValueError, match=r": lr: 0\.002 -> 0\.001\. .*choose"):
        train_clip(other, tiny_clip(), tiny_pairs(), output_dir=tmp_path, resume=True)


def test_a_finished_run_is_continued_without_a_step(tmp_path):
    config = replace(CONFIG, steps=3)
    first, second = tiny_clip(), tiny_clip()
    train_clip(config, first, tiny_pairs(), output_dir=tmp_path)
    result = train_clip(config, second, tiny_pairs(), output_dir=tmp_path, resume=True)
    assert changed(snapshot(first), second) == set()
    assert result["pairs_per_second"] is None


def test_workers_do_not_change_what_is_learnt(tmp_path):
    alone, helped = tiny_clip(), tiny_clip()
    train_clip(CONFIG, alone, tiny_pairs(), output_dir=tmp_path / "alone")
    config = replace(CONFIG, workers=2)
    train_clip(config, helped, tiny_pairs(), output_dir=tmp_path / "helped")
    assert changed(snapshot(alone), helped) == set()


def gradients(tmp_path: Path, **changes) -> dict[str, torch.Tensor]:
    clip = tiny_clip(prompt=True)
    config = replace(CONFIG, **{"steps": 1, **changes})
    train_clip(config, clip, tiny_pairs(), output_dir=tmp_path)
    return {name: p.grad for name, p in clip.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("mode", ["full", "mask_prompt"])
def test_gradient_checkpointing_gives_the_same_gradients(tmp_path, mode):
    plain = gradients(tmp_path / "plain", mode=mode)
    kept = gradients(tmp_path / "kept", mode=mode, grad_checkpointing=True)
    assert plain.keys() == kept.keys()
    for name, gradient in plain.items():
        assert torch.equal(gradient, kept[name]), name


def test_two_processes_reach_the_gradient_of_one_with_the_double_batch(tmp_path):
    command = ("-m", "tests.clip_training.tiny_pairs", "--num-gpus", "0")
    run_two_processes(*command, TINY_OUTPUT=str(tmp_path))
    for mode, duplicates in STEPS:
        found = torch.load(tmp_path / mode / "gradients.pth", weights_only=True)
        whole = gradients(tmp_path / "whole", mode=mode, duplicates=duplicates)
        assert found.keys() == whole.keys()
        for name, gradient in whole.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_figures_come_before_the_first_step_and_after_every_epoch(tmp_path):
    seen = []

    def evaluate(clip) -> dict[str, float]:
        seen.append(snapshot(clip)[PROMPT])
        return {"top1": float(len(seen))}

    config = replace(CONFIG, mode="mask_prompt")  # 2 epochs
    result = train_clip(config, tiny_clip(), tiny_pairs(), output_dir=tmp_path, evaluate=evaluate)
    assert (result["before"], result["after"]) == ({"top1": 1.0}, {"top1": 3.0})
    assert len(seen) == 3
    assert seen[0].count_nonzero() == 0  # an untouched CLIP is what the first figures are of
    assert not torch.equal(seen[1], seen[2])


def test_the_temperature_stays_in_its_bounds(tmp_path):
    clip = tiny_clip()
    with torch.no_grad():
        clip.logit_scale.fill_(math.log(100) - 1e-4)
    config = replace(CONFIG, steps=4, lr=0.5, warmup=1, mode="mask_prompt", prompt_lr=1e-6)
    train_clip(config, clip, tiny_pairs(), output_dir=tmp_path)
    assert 0 <= float(clip.logit_scale.detach()) <= math.log(100) + 1e-6


def test_decay_spares_gains_biases_the_temperature_and_the_prompt():
    clip = tiny_clip()
    set_trainable(clip, "both")
    groups = make_optimizer(clip, replace(CONFIG, prompt_lr=0.5)).param_groups
    decays = {name: (g["lr"], g["weight_decay"]) for g in groups for name in g["names"]}
    assert decays["visual.conv1.weight"] == (2e-3, 0.2)
    assert decays["visual.positional_embedding"] == (2e-3, 0.2)
    assert decays["visual.transformer.resblocks.0.attn.in_proj_weight"] == (2e-3, 0.2)
    for name in ("visual.ln_pre.weight", "visual.class_embedding", "logit_scale"):
        assert decays[name] == (2e-3, 0.0)
    assert decays["visual.transformer.resblocks.0.mlp.c_fc.bias"] == (2e-3, 0.0)
    assert decays[PROMPT] == (0.5, 0.0)


def test_what_cannot_be_trained_is_refused_with_the_reason(tmp_path):
    with pytest.raises(ValueError, match="this CLIP has none"):
        train_clip(
            replace(CONFIG, mode="mask_prompt"), tiny_clip(0), tiny_pairs(), output_dir=tmp_path
        )
    with pytest.raises(ValueError, match="at least 8 pairs, one batch, got 4"):
        train_clip(CONFIG, tiny_clip(), tiny_pairs(4), output_dir=tmp_path)


def test_half_precision_trains_the_same_parameters(tmp_path):
    clip = tiny_clip()
    before = snapshot(clip)
    config = replace(CONFIG, mode="both", precision="bf16", steps=2)
    train_clip(config, clip, tiny_pairs(), output_dir=tmp_path)
    assert {t.dtype for t in read_state_dict(tmp_path / "clip.safetensors").values()} == {
        torch.float32
    }
    assert PROMPT in changed(before, clip)


def _reload(state):
    clip = tiny_clip()
    clip.load_state_dict(state)
    return clip
