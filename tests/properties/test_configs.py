"""Configs: through YAML, by overrides, and with keys that there are not."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from ovseg.config import load_cfg

FLOATS = st.floats(0, 1e6, allow_nan=False) | st.integers(0, 1000).map(float)
TEXTS = st.text(st.sampled_from("ab/.-_é01:e"), min_size=1, max_size=8)
NUMBERS = st.integers(1, 10**6)
VALUES = {
    "SOLVER.MAX_ITER": NUMBERS,
    "SOLVER.BASE_LR": FLOATS,
    "SOLVER.IMS_PER_BATCH": NUMBERS,
    "SOLVER.STEPS": st.lists(NUMBERS, max_size=3).map(tuple),
    "SEED": st.integers(-1, 2**31 - 1),
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": st.booleans(),
    "DATASETS.TEST": st.lists(st.sampled_from(["a", "b_c", "d.yaml"]), max_size=3).map(tuple),
    "OUTPUT_DIR": TEXTS,
    "TEST.TUNED_ON": TEXTS,
}
SETTINGS = st.fixed_dictionaries({}, optional=VALUES)
KEYS = st.text(st.sampled_from("ABZ_01"), min_size=1, max_size=6).map(lambda text: f"X{text}")


def value_at(cfg, key):
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def nested(key: str, value: object) -> dict[str, object]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


@given(settings=SETTINGS)
@example(settings={"OUTPUT_DIR": "2024_11", "TEST.TUNED_ON": "1e3"})
def test_overrides_are_taken_and_survive_yaml(tmp_path, settings):
    words = [word for key, value in settings.items() for word in (key, value)]
    cfg = load_cfg("ovseg_tiny", words)
    for key, value in settings.items():
        found = value_at(cfg, key)
        assert found == value and type(found) is type(value), key
    path = tmp_path / "config.yaml"
    path.write_text(cfg.dump(), encoding="utf-8")
    assert load_cfg(path) == cfg


@given(settings=SETTINGS)
def test_a_file_says_the_same_as_overrides(tmp_path, settings):
    path = tmp_path / "file.yaml"
    sections = [f"_BASE_: {tmp_path / 'base.yaml'}"]
    (tmp_path / "base.yaml").write_text(load_cfg("ovseg_tiny").dump(), encoding="utf-8")
    merged: dict = {}
    for key, value in settings.items():
        place = merged
        *above, last = key.split(".")
        for part in above:
            place = place.setdefault(part, {})
        place[last] = list(value) if isinstance(value, tuple) else value
    path.write_text("\n".join([*sections, yaml.safe_dump(merged) if merged else ""]))
    words = [word for key, value in settings.items() for word in (key, value)]
    found, wanted = load_cfg(path), load_cfg("ovseg_tiny", words)
    for key in VALUES:
        one, other = value_at(found, key), value_at(wanted, key)
        assert (list(one) == list(other)) if isinstance(one, (list, tuple)) else one == other


@given(key=KEYS, section=st.sampled_from(["", "SOLVER.", "MODEL.", "MODEL.CLIP_ADAPTER."]))
def test_a_key_that_there_is_not_is_refused_alike_wherever_it_stands(tmp_path, key, section):
    name = section + key
    with pytest.raises(KeyError, match=name):
        load_cfg("ovseg_tiny", [name, 1])
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump(nested(name, 1)), encoding="utf-8")
    with pytest.raises(KeyError, match=name):
        load_cfg(path)
