from __future__ import annotations

import pytest

from ovseg.utils.files import atomic_path, reason_of


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
