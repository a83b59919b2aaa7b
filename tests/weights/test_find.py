from __future__ import annotations

from ovseg.config import load_cfg
from ovseg.weights.find import find_clip_weights


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
