from __future__ import annotations

import pytest

from ovseg.config import config_path, load_cfg
from ovseg.weights import catalogue
from ovseg.weights.find import find_clip_weights, trained_weights
from ovseg.weights.record import config_for


def test_training_starts_clip_from_the_released_weights_of_its_name(monkeypatch, tmp_path):
    asked = []

    def found(name, **_):
        asked.append(name)
        return tmp_path / "clip.pt"

    monkeypatch.setattr("ovseg.weights.catalogue.resolve", found)
    adapter = load_cfg("ovseg_swinB").MODEL.CLIP_ADAPTER
    assert find_clip_weights(adapter) == str(tmp_path / "clip.pt")
    assert asked == ["clip_ViT-L-14"]


def test_clip_weights_random_or_unknown_mean_none(caplog):
    opts = ["MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "random"]
    assert find_clip_weights(load_cfg("ovseg_swinB", opts).MODEL.CLIP_ADAPTER) == ""
    assert not caplog.records
    assert find_clip_weights(load_cfg("ovseg_tiny").MODEL.CLIP_ADAPTER) == ""
    assert "random weights" in caplog.text


def test_a_config_of_released_weights_answers_with_them_and_trains_from_the_backbone():
    for name in ("ovseg_swinB", "ovseg_swinB_demo", "eval/ovseg_swinB_ade20k_150"):
        cfg = load_cfg(name)
        assert trained_weights(cfg) == "ovseg_swinB"
        assert cfg.MODEL.WEIGHTS == "swin_base_patch4_window12_384_22k"
    assert trained_weights(load_cfg("ovseg_R101c")) == "ovseg_R101c"
    assert trained_weights(load_cfg("ovseg_tiny")) == "ovseg_tiny"
    # A backbone alone: evaluation says so, instead of loading a model of another architecture.
    assert trained_weights(load_cfg("ovseg_swinB_points")) == "swin_base_patch4_window12_384_22k"


def test_whoever_names_weights_means_them(tmp_path):
    assert trained_weights(load_cfg("ovseg_swinB", ["MODEL.WEIGHTS", "mine.pth"])) == "mine.pth"
    (tmp_path / "mine.yaml").write_text(
        f"_BASE_: {config_path('ovseg_swinB')}\nMODEL:\n  WEIGHTS: mine.pth\n"
    )
    assert trained_weights(load_cfg(tmp_path / "mine.yaml")) == "mine.pth"
    (tmp_path / "ours.yaml").write_text("_BASE_: mine.yaml\nMODEL:\n  TRAINED_WEIGHTS: ours.pth\n")
    cfg = load_cfg(tmp_path / "ours.yaml")
    assert (cfg.MODEL.WEIGHTS, trained_weights(cfg)) == ("mine.pth", "ours.pth")


def test_the_config_of_weights_comes_from_the_catalogue_or_lies_beside_them(tmp_path):
    assert config_for(None) == config_for("ovseg_tiny") == "ovseg_tiny"
    assert config_for("somewhere/ovseg_R101c_vitB16_ft_mpt.pth") == "ovseg_R101c"
    page = catalogue.drive_page(catalogue.entries()["ovseg_swinB"].drive_id)
    assert config_for(page) == "ovseg_swinB"
    weights = tmp_path / "model_final.pth"
    weights.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no config.yaml beside it; give one such as"):
        config_for(weights)
    (tmp_path / "config.yaml").write_text("SEED: 1\n")
    assert config_for(weights) == str(tmp_path / "config.yaml")
    for wanted in (tmp_path / "gone.pth", "random", ""):
        with pytest.raises(ValueError, match="config: expected"):
            config_for(wanted)
