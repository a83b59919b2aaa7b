from __future__ import annotations

import errno
import json
import math
import os
import tempfile
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from ovseg.utils.files import (
    atomic_path,
    reason_of,
    require_writable,
    sha256_of,
    write_json,
)


def test_the_file_appears_when_the_block_ends(tmp_path):
    target = tmp_path / "new" / "a.json"
    with atomic_path(target) as partial:
        partial.write_text("done")
        assert not target.exists()
        assert (partial.parent, partial.suffix) == (target.parent, ".json")

    assert target.read_text() == "done"
    assert [p.name for p in target.parent.iterdir()] == ["a.json"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="stop"), atomic_path(str(target)) as partial:
        partial.write_text("half")
        raise RuntimeError("stop")

    assert target.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_result_has_the_rights_of_any_new_file(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    with atomic_path(tmp_path / "atomic") as partial:
        partial.write_text("")

    assert (tmp_path / "atomic").stat().st_mode == plain.stat().st_mode


def test_the_reason_of_a_file_error_does_not_repeat_the_file(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        (tmp_path / "none.png").read_bytes()
    assert reason_of(caught.value) == "No such file or directory"
    assert reason_of(ValueError("cut off")) == "cut off"
    assert reason_of(OSError("cannot identify image")) == "cannot identify image"


def test_json_is_plain_text_that_ends_in_a_newline(tmp_path):
    path = tmp_path / "new" / "a.json"
    value = {"b": (1, 2.5), "a": MappingProxyType({"é": None, "on": True})}

    write_json(path, value)
    assert path.read_text() == (
        '{\n "b": [\n  1,\n  2.5\n ],\n "a": {\n  "\\u00e9": null,\n  "on": true\n }\n}\n'
    )
    write_json(path, value, indent=None, sort_keys=True, ensure_ascii=False)
    assert path.read_text("utf-8") == '{"a":{"on":true,"é":null},"b":[1,2.5]}\n'


def test_json_has_null_for_what_is_not_a_number(tmp_path):
    write_json(tmp_path / "a.json", {"scores": [math.nan, np.float64("nan"), 1.0]}, indent=None)

    assert (tmp_path / "a.json").read_text() == '{"scores":[null,null,1.0]}\n'


@pytest.mark.parametrize("value", [math.inf, {1, 2}, np.arange(2)])
def test_what_json_cannot_hold_leaves_the_old_file(tmp_path, value):
    path = tmp_path / "a.json"
    write_json(path, "old")
    with pytest.raises((TypeError, ValueError)):
        write_json(path, {"value": value})

    assert path.read_text() == '"old"\n'
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_holds_the_names_of_files_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9.jpg")  # Latin-1 bytes: a lone surrogate in Python

    write_json(tmp_path / "a.json", [name])

    assert json.loads((tmp_path / "a.json").read_text()) == [name]


def test_a_pipe_has_no_hash(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe: expected a regular file"):
        sha256_of(tmp_path / "pipe")


@pytest.mark.parametrize("below", ["", "deep"])
def test_a_folder_without_rights_is_told_with_what_to_do(below):
    # Not pytest's folder, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        user = os.geteuid()
        try:
            if user == 0:  # whom rights do not bind
                os.seteuid(65534)
            with pytest.raises(OSError, match=r"written to, got: Permission denied; make it wri"):
                require_writable(Path(name) / below)
        finally:
            os.seteuid(user)
            Path(name).chmod(0o755)


def test_a_folder_that_is_made_for_the_check_is_left_empty(tmp_path):
    require_writable(tmp_path / "new" / "one")
    assert list(tmp_path.rglob("*")) == [tmp_path / "new", tmp_path / "new" / "one"]


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path):
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    told = pytest.raises(OSError, match=r"No space left on device: .*a\.json'")
    with told, atomic_path(tmp_path / "a.json"):
        raise full
    assert list(tmp_path.iterdir()) == []
