from __future__ import annotations

import json
import pickle

import pytest

from ovseg.utils.run_record import AnotherRunError, RunRecord, changed_settings

SETTINGS = {
    "format": 2,
    "models": {"clip": "ViT-L/14", "seed": None},
    "config": {"sizes": (640, 480), "matching": {"threshold": 0.2}},
    "hash": "0123",
}


class ParsingError(AnotherRunError, RuntimeError):
    pass


def record(settings=SETTINGS, **options):
    return RunRecord(settings, what="parsing run", remedy="choose another folder", **options)


@pytest.mark.parametrize(
    ("before", "now", "changed"),
    [
        ({}, {}, {}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {}),
        ({"a": 1}, {"a": 2}, {"a": (1, 2)}),
        ({"a": 0}, {"a": "0"}, {"a": (0, "0")}),
        ({"a": 1}, {"b": 1}, {"a": (1, None), "b": (None, 1)}),
        ({"a": None}, {}, {}),
        ({"a": {}}, {}, {"a": ({}, None)}),
        ({"a": [1, [2]]}, {"a": (1, (2,))}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"a": ([1, 2], [2, 1])}),
        ({"7": "x"}, {7: "x"}, {}),
        ({"a": {"b": {"c": 1, "d": 1}}}, {"a": {"b": {"c": 3, "d": 1}}}, {"a.b.c": (1, 3)}),
        ({"a": {"b": 1}}, {"a": "x"}, {"a": ({"b": 1}, "x")}),
        ([1], {"a": 1}, {"": ([1], {"a": 1})}),
        ({"free": {"b": 1}, "x": {"free": 1}}, {"free": 2, "x": {"free": 2}}, {"x.free": (1, 2)}),
        ({"x": {"y": 1}}, {"x": {"y": 2}}, {}),
    ],
)
def test_settings_are_compared_key_by_key(before, now, changed):
    assert changed_settings(before, now, free=("free", "x.y")) == changed


def test_a_folder_is_claimed_once_and_left_as_it_was(tmp_path):
    path = tmp_path / "new" / "record.json"
    record().claim(path)
    content = path.read_bytes()
    assert json.loads(content)["config"] == {"matching": {"threshold": 0.2}, "sizes": [640, 480]}
    assert list(json.loads(content)) == ["config", "format", "hash", "models"]

    record({**SETTINGS, "hash": "4567"}, free=("hash",)).claim(path)
    with pytest.raises(AnotherRunError):
        record({**SETTINGS, "hash": "4567"}).claim(path)
    assert path.read_bytes() == content
    assert [file.name for file in path.parent.iterdir()] == ["record.json"]


def test_another_run_is_refused_with_what_differs_alone_and_a_remedy(tmp_path):
    record().claim(tmp_path / "record.json")
    other = {**SETTINGS, "models": {"clip": "x" * 99, "seed": 7}}
    with pytest.raises(AnotherRunError) as caught:
        record(other).claim(tmp_path / "record.json")
    assert str(caught.value) == (
        f"{tmp_path}: expected this same parsing run, got one with other settings (there -> here): "
        f"models.clip: ViT-L/14 -> {'x' * 80}...; models.seed: None -> 7. "
        "To go on, choose another folder"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"record\.json: expected the settings of a parsing run, got no JSON \(.*; choose"),
        ("[1, 2]", r"all: \[1, 2\] -> \{'format': 2.*To go on, choose another folder"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, content, message):
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(AnotherRunError, match=message):
        record().claim(tmp_path / "record.json")
    assert (tmp_path / "record.json").read_text() == content


def test_an_error_of_its_own_reaches_other_processes():
    with pytest.raises(
        RuntimeError, match=r"a\.yaml: expected this same .*format: 1 -> 2"
    ) as found:
        record(error=ParsingError).check({**SETTINGS, "format": 1}, "a.yaml")
    copy = pickle.loads(pickle.dumps(found.value))
    assert type(copy) is ParsingError and isinstance(copy, ValueError)
    assert str(copy) == str(found.value)
