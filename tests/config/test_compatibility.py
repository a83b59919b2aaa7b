from __future__ import annotations

import logging

import pytest
import yaml

from ovseg.config import get_default_cfg, known_methods, load_cfg
from ovseg.config.compatibility import WITHOUT_EFFECT
from ovseg.d2._lite.defaults import DEFAULTS
from ovseg.d2.config import CfgNode, get_cfg
from ovseg.d2.methods import import_method
from tests.config.key_reads import keys_read, leaves, reads_of
from tests.helpers import ROOT

CONFIGS = [
    file
    for folder in (ROOT / "configs", ROOT / "projects")
    for file in sorted(folder.rglob("*.yaml"))
    if not file.stem.startswith("clip_")
]


def _keys(cfg: CfgNode) -> set[str]:
    return {".".join(key) for key in leaves(cfg)}


def _accepted_keys() -> set[str]:
    """Keys of this package and of Detectron2, without those of detectors, and of our methods."""
    cfg = get_default_cfg()
    for module in sorted({m for m in known_methods().values() if m.startswith("ovseg.projects.")}):
        name = next(name for name, its in known_methods().items() if its == module)
        getattr(import_method(name), "add_config", lambda _: None)(cfg)
    return _keys(CfgNode(DEFAULTS)) | (_keys(cfg) - _keys(get_cfg())) | WITHOUT_EFFECT.keys()


def test_the_listed_keys_are_exactly_those_that_nothing_reads():
    read = {".".join(key) for key in keys_read()}
    unread = {key for key in _accepted_keys() if key not in read}

    assert sorted(unread - WITHOUT_EFFECT.keys()) == [], "keys that nothing reads; remove or list"
    assert sorted(WITHOUT_EFFECT.keys() - unread) == [], "listed keys that are read; take them out"


def test_reads_are_found_through_variables_and_writes_are_not():
    source = (
        "def build(cfg, other):\n"
        "    solver, net = cfg.SOLVER, cfg.MODEL.RESNETS\n"
        "    solver.BASE_LR = 1\n"
        "    return solver.AMP.ENABLED, net.DEPTH, cfg.SEED, self.cfg.VERSION\n"
    )

    found = {".".join(key) for key in reads_of(source)}
    assert found - {"", "SOLVER", "MODEL.RESNETS", "SOLVER.AMP", "MODEL"} == {
        "SOLVER.AMP.ENABLED",
        "MODEL.RESNETS.DEPTH",
        "SEED",
        "VERSION",
    }


def _value(cfg: CfgNode, key: str) -> object:
    for name in key.split("."):
        cfg = cfg[name]
    return cfg


def test_where_detectron2_has_a_key_without_effect_the_defaults_are_equal():
    known = get_cfg()
    shared = _keys(known) & WITHOUT_EFFECT.keys()

    assert {k: _value(known, k) for k in shared} == {k: WITHOUT_EFFECT[k][0] for k in shared}


@pytest.mark.parametrize(
    "text",
    [
        "SOLVER: {NUM_DECAYS: 5, BIAS_LR_FACTOR: 2.0}",
        "MODEL: {MASK_FORMER: {TEST: {PANOPTIC_ON: true, OBJECT_MASK_THRESHOLD: 0.8}}}",
    ],
)
def test_a_key_without_effect_is_accepted_and_warned_of_once(tmp_path, caplog, text):
    path = tmp_path / "old.yaml"
    path.write_text(text)
    keys = {".".join(key) for key in leaves(CfgNode(yaml.safe_load(text)))}
    with caplog.at_level(logging.WARNING):
        cfg = load_cfg(path)
        load_cfg(path)

    assert {record.getMessage().split()[0] for record in caplog.records} == keys
    assert len(caplog.records) == len(keys) == 2
    for record in caplog.records:
        key = record.getMessage().split()[0]
        assert f"set to {_value(cfg, key)!r} and has no effect: " in record.getMessage()


def test_a_key_without_effect_is_warned_of_in_overrides_too(caplog):
    with caplog.at_level(logging.WARNING):
        load_cfg("ovseg_swinB", ["VIS_PERIOD", "50"])

    assert "VIS_PERIOD is set to 50 and has no effect: nothing is drawn" in caplog.text


def test_the_defaults_written_out_cause_no_warning(tmp_path, caplog):
    path = tmp_path / "full.yaml"
    path.write_text(get_default_cfg().dump())
    with caplog.at_level(logging.WARNING):
        load_cfg(path)

    assert caplog.records == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_shipped_configs_set_no_key_without_effect(path):
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    values.pop("_BASE_", None)

    assert sorted(_keys(CfgNode(values)) & WITHOUT_EFFECT.keys()) == []


def test_two_configs_share_no_list_of_a_key_without_effect():
    get_default_cfg().MODEL.SEM_SEG_HEAD.ASPP_DILATIONS.append(9)

    assert get_default_cfg().MODEL.SEM_SEG_HEAD.ASPP_DILATIONS == [6, 12, 18]
