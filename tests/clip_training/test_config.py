from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from ovseg.clip_training.config import ClipTrainConfig, load_clip_config
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("name", "mode", "model", "batch_size", "lr"),
    [
        ("clip_ft_vitL14_paper", "full", "ViT-L/14", 256, 5e-6),
        ("clip_ft_vitL14_script", "full", "ViT-L/14", 128, 5e-6),
        ("clip_ft_vitB16_paper", "full", "ViT-B/16", 1024, 5e-6),
        ("clip_ft_vitB16_script", "full", "ViT-B/16", 512, 5e-6),
        ("clip_mpt_vitL14_paper", "mask_prompt", "ViT-L/14", 256, 2e-2),
        ("clip_mpt_vitL14_script", "mask_prompt", "ViT-L/14", 128, 5e-2),
        ("clip_tiny_ft", "full", "ovseg-tiny", 128, 3e-4),
        ("clip_tiny_mpt", "mask_prompt", "ovseg-tiny", 128, 5e-3),
    ],
)
def test_the_shipped_recipes_carry_the_published_settings(name, mode, model, batch_size, lr):
    config = load_clip_config(name)
    assert (config.mode, config.model) == (mode, model)
    assert (config.batch_size, config.lr) == (batch_size, lr)
    assert (config.beta1, config.beta2, config.eps) == (0.9, 0.98, 1e-6)
    assert (config.mask_prompt_depth, config.min_scale) == (3, 0.9)
    assert config.duplicates == "negative"
    if mode == "full":
        assert config.weight_decay == 0.2
    else:
        assert config.prompt_weight_decay == 0.0
    if "tiny" not in name:
        assert (config.epochs, config.warmup) == (5, 100)


@pytest.mark.parametrize(
    ("name", "mode", "steps", "lr"),
    [("clip_tiny_from_nothing", "towers", 2000, 2e-3), ("clip_tiny_longer", "full", 6000, 1e-3)],
)
def test_recipes_from_nothing_step_the_blocks_by_muon(name, mode, steps, lr):
    config = load_clip_config(name)
    assert (config.mode, config.steps, config.batch_size) == (mode, steps, 128)
    assert (config.optimizer, config.lr, config.weight_decay) == ("muon", lr, 0.05)
    assert (config.beta1, config.beta2, config.eps, config.warmup) == (0.9, 0.98, 1e-6, 100)
    assert (config.weights, config.trains_prompt) == ("random", False)


@pytest.mark.parametrize(
    ("name", "base", "share"),
    [("clip_tiny_adapt", "clip_tiny_ft", None), ("clip_adapt_vitL14", "clip_ft_vitL14_paper", 0.5)],
)
def test_recipes_with_labels_differ_from_those_without_in_the_pairs_alone(name, base, share):
    config, plain = asdict(load_clip_config(name)), asdict(load_clip_config(base))
    changed = {key: value for key, value in config.items() if value != plain[key]}
    assert {key: changed.pop(key) for key in ("damage", "duplicates")} == {
        "damage": 0.5,
        "duplicates": "positive",
    }
    assert changed.pop("label_share", None) == share
    assert changed.pop("noun_exponent", 1.0) == (0.5 if "tiny" in name else 1.0)
    assert set(changed) <= {"epochs", "workers"}


def test_shares_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"damage: expected a share in \[0, 1\], got 1.5"):
        ClipTrainConfig(damage=1.5)
    with pytest.raises(ValueError, match=r"label_share: .* got 1.0; leave out --labels or --pairs"):
        ClipTrainConfig(label_share=1.0)


def test_every_recipe_is_among_those_tested():
    shipped = {file.stem for file in (ROOT / "configs").glob("clip_*.yaml")}
    assert len(shipped) == 8 + 2 + 2


def test_settings_are_overridden_by_name():
    config = load_clip_config("clip_tiny_ft", ["lr", "1e-3", "steps", "12", "prompt_lr", "5e-3"])
    assert (config.lr, config.steps, config.prompt_lr) == (1e-3, 12, 5e-3)
    config = load_clip_config("clip_tiny_ft", {"duplicates": "positive", "steps": 0})
    assert (config.duplicates, config.total_steps(1000)) == ("positive", 0)


def test_what_is_written_is_read_back(tmp_path: Path):
    config = ClipTrainConfig(mode="both", steps=3, prompt_lr=1e-3, grad_checkpointing=True)
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    assert load_clip_config(tmp_path / "config.yaml") == config


def test_the_length_is_counted_in_whole_batches():
    assert ClipTrainConfig(epochs=5, batch_size=128).total_steps(1000) == 35
    assert ClipTrainConfig(epochs=5, batch_size=128, steps=9).total_steps(1000) == 9


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["learning_rate", "1"], "unknown setting 'learning_rate'"),
        (["batchsize", "1"], "did you mean 'batch_size'"),
        (
            ["mode", "all"],
            r"mode: expected one of \('full', 'mask_prompt', 'both', 'towers'\), got",
        ),
        (["optimizer", "sgd"], r"optimizer: expected one of \('adamw', 'muon'\), got 'sgd'"),
        (["lr", "fast"], "lr: expected a number, got 'fast'"),
        (["batch_size", "1.5"], "batch_size: expected int, got 1.5"),
        (["epochs", "true"], "epochs: expected int, got True"),
        (["batch_size", "0"], "batch_size >= 1"),
        (["lr"], "odd number"),
        (["lr", "1", "--eval-only"], "--eval-only: expected flags before the settings"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_clip_config("clip_tiny_ft", overrides)


def test_a_value_out_of_range_names_its_file(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("damage: 2.0\n")
    with pytest.raises(ValueError, match=r"a\.yaml: damage: expected a share in \[0, 1\]"):
        load_clip_config(tmp_path / "a.yaml")


def test_python_tags_are_refused(tmp_path: Path):
    (tmp_path / "evil.yaml").write_text("mode: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_clip_config(tmp_path / "evil.yaml")
