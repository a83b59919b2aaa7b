from __future__ import annotations

import json

import pytest

from ovseg.utils.part_files import PartFiles, remove_unfinished


def write(parts, index, text="data", **facts):
    parts.write(index, lambda path: path.write_text(text), facts)


def test_a_part_is_finished_when_its_record_is_there(tmp_path):
    parts = PartFiles(tmp_path, ".txt")
    assert not parts.any_finished() and not parts.is_finished(3)
    parts.path(3).write_text("of a killed process")
    assert not parts.is_finished(3)

    write(parts, 3, images=["a"])

    assert parts.is_finished(3) and parts.any_finished() and not parts.is_finished(2)
    record = parts.read(3)
    assert (record["shard"], record["file"], record["bytes"]) == (3, "part-00003.txt", 4)
    assert record["images"] == ["a"] and len(record["sha256"]) == 64
    assert record == json.loads((tmp_path / "part-00003.json").read_text())


def test_data_that_were_changed_are_refused_with_the_callers_error(tmp_path):
    class PartError(ValueError):
        pass

    parts = PartFiles(tmp_path, ".txt", PartError)
    write(parts, 0)
    parts.path(0).write_text("other data")

    with pytest.raises(PartError, match=r"part-00000\.txt: expected 4 bytes, got 10.*Delete it"):
        parts.read(0)


def test_only_the_named_unfinished_files_are_removed(tmp_path):
    for name in (".part-00001.x7.txt", ".summary.a8.json", ".DS_Store", "part-00001.txt"):
        (tmp_path / name).write_text("x")

    remove_unfinished([tmp_path, tmp_path / "nowhere"], ("part-", "summary."))

    assert sorted(path.name for path in tmp_path.iterdir()) == [".DS_Store", "part-00001.txt"]
