from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovseg.clip import clip_config
from ovseg.clip.released import OPEN_CLIP, released_weights
from ovseg.config import load_cfg
from ovseg.config.load import config_path
from ovseg.data.catalog import register_builtin
from ovseg.evaluation.protocol import check_protocol
from ovseg.projects.corrclip.tower import CorrelationSettings
from tests.helpers import ROOT

CONFIGS = sorted((ROOT / "projects/corrclip/configs").rglob("[!_]*.yaml"))
NAMED = [file for file in CONFIGS if file.parent.name != "_base_"]
REPORTED = json.loads((ROOT / "docs/results/reported_corrclip.json").read_text())["rows"]


@pytest.mark.parametrize("file", NAMED, ids=lambda file: file.stem)
def test_each_config_is_found_by_name_and_fits_its_dataset(file: Path):
    name = f"eval/{file.stem}" if file.parent.name == "eval" else file.stem
    assert config_path(name) == file
    cfg = load_cfg(name)
    assert cfg.MODEL.META_ARCHITECTURE == "CorrCLIP"
    register_builtin()
    for dataset in cfg.DATASETS.TEST:
        check_protocol(cfg, dataset)


@pytest.mark.parametrize(
    "file", [f for f in NAMED if f.parent.name == "eval"], ids=lambda f: f.stem
)
def test_the_expected_score_of_a_config_is_the_reported_one(file: Path):
    cfg = load_cfg(file)
    model = {"ViT-B-16-quickgelu": "ViT-B/16", "ViT-L-14-quickgelu": "ViT-L/14"}
    version = "CorrCLIPv2" if "corrclip2" in file.stem else "CorrCLIP"
    setting = "no memory bank" if version == "CorrCLIPv2" else "regions of SAM 2, 32 x 32 points"
    [row] = [
        row
        for row in REPORTED
        if row["method"] == f"{version}, {model[cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME]}"
        and [row["dataset"]] == list(cfg.DATASETS.TEST)
        and row["setting"] == setting
    ]
    assert row["scores"]["ovseg"]["value"] == cfg.TEST.PROTOCOL.REPORTED
    node = cfg.MODEL.CORRCLIP
    assert (("image", False) if version == "CorrCLIPv2" else ("window", True)) == (
        node.CORRELATION,
        node.MERGE,
    )


def test_the_defaults_of_the_keys_are_those_of_the_settings():
    assert CorrelationSettings.from_config(load_cfg("corrclip_vitB")) == CorrelationSettings()


def test_the_clips_of_the_configs_have_the_activation_of_their_weights(monkeypatch):
    monkeypatch.setattr("ovseg.clip.released.download_pretrained", lambda cfg: cfg["hf_hub"])
    for name in ("corrclip_vitB", "corrclip_vitL", "corrclip_vitH"):
        adapter = load_cfg(name).MODEL.CLIP_ADAPTER
        assert adapter.CLIP_WEIGHTS.startswith(OPEN_CLIP)
        tag = adapter.CLIP_WEIGHTS.removeprefix(OPEN_CLIP)
        assert str(released_weights(adapter.CLIP_MODEL_NAME, tag))
        assert clip_config(adapter.CLIP_MODEL_NAME).get("quick_gelu", False) == (tag[0] == "m")
