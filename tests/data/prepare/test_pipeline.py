from __future__ import annotations

import errno
import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest

from ovseg.data.prepare.labels import relabel
from ovseg.data.prepare.pipeline import (
    PreparationError,
    PreparationReport,
    Task,
    list_files,
    prepare,
)
from ovseg.readers.pictures import read_image, read_label
from ovseg.utils.folder_lock import only_run
from ovseg.utils.images import write_png
from tests.helpers import run_python

CONVERTED = "convert was called for "


def plus_one(task: Task) -> list[np.ndarray] | None:
    """Add 1 to every label; a file of zeros has none."""
    labels = read_label(task.sources[0])
    return None if not labels.any() else [(labels + 1).astype(np.uint8)]


def refuse(task: Task) -> list[np.ndarray]:
    raise AssertionError(f"{CONVERTED}{task.sources[0]}")


@pytest.fixture
def tasks(tmp_path) -> list[Task]:
    """Four label maps of odd sizes; those of number 2 are all zero."""
    made = []
    for index in range(4):
        source = tmp_path / "raw" / f"{index}.png"
        values = np.full((3 + index, 5), 10 * index if index != 2 else 0, np.uint8)
        values[0, 0] = 0 if index == 2 else 7
        write_png(source, values)
        made.append(Task((source,), (tmp_path / "made" / f"{index}.png",)))
    return made


def names(folder: Path) -> list[str]:
    """The files of a folder but the notes on what was made there."""
    found = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    return [name for name in found if name != ".made_by_ovseg"]


@pytest.mark.parametrize("workers", [1, 2])
def test_labels_are_written_and_files_without_labels_left_out(tmp_path, tasks, workers) -> None:
    many = [
        *tasks,
        *(Task(tasks[1].sources, (tmp_path / "made" / f"more{i}.png",)) for i in range(20)),
    ]
    report = prepare(many, plus_one, workers=workers)
    assert report == PreparationReport(written=23, skipped=1)
    assert names(tmp_path / "made")[:4] == ["0.png", "1.png", "3.png", "more0.png"]
    expected = np.full((6, 5), 31)
    expected[0, 0] = 8
    assert (read_label(tmp_path / "made" / "3.png") == expected).all()


def test_what_is_there_and_readable_is_kept(tmp_path, tasks) -> None:
    prepare(tasks[:2], plus_one)
    assert prepare(tasks[:2], refuse) == PreparationReport(kept=2)
    whole = tasks[1].targets[0].read_bytes()
    tasks[1].targets[0].write_bytes(whole[: len(whole) // 2])
    assert prepare(tasks[:2], plus_one) == PreparationReport(written=1, kept=1)
    assert tasks[1].targets[0].read_bytes() == whole
    write_png(tasks[0].sources[0], np.full((3, 5), 40, np.uint8))
    assert prepare(tasks[:2], plus_one, force=True).written == 2
    assert (read_label(tasks[0].targets[0]) == 41).all()


def test_bad_files_are_set_aside_with_their_reason(tmp_path, tasks) -> None:
    broken = tasks[1].sources[0]
    broken.write_bytes(broken.read_bytes()[:-30])
    tasks[3].sources[0].unlink()
    report = prepare(tasks, plus_one)
    assert (report.written, report.skipped) == (1, 1)
    assert [Path(file).name for file, _ in report.failed] == ["1.png", "3.png"]
    assert "no such file" in report.failed[1][1]
    assert names(tmp_path / "made") == ["0.png"]
    report.write(tmp_path / "report.json")
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["set_aside"][0] == {"file": str(broken), "reason": report.failed[0][1]}
    assert record["written"] == 1


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_stops_the_run_and_leaves_whole_files_only(
    tmp_path, tasks, monkeypatch, code
) -> None:
    write_bytes, written = Path.write_bytes, []

    def write(self: Path, content: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            write_bytes(self, content[:10])
            raise OSError(code, os.strerror(code))
        return write_bytes(self, content)

    monkeypatch.setattr(Path, "write_bytes", write)
    with pytest.raises(PreparationError, match=rf"1\.png: {os.strerror(code)}\nmake room"):
        prepare(tasks, plus_one)
    assert names(tmp_path / "made") == ["0.png"]
    monkeypatch.undo()
    assert prepare(tasks, plus_one) == PreparationReport(written=2, kept=1, skipped=1)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_read_only_target_is_told_once(tmp_path, tasks, monkeypatch, code) -> None:
    def mkstemp(**_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(tempfile, "mkstemp", mkstemp)
    with pytest.raises(PreparationError, match=rf"cannot write .*0\.png: {os.strerror(code)}"):
        prepare(tasks, plus_one)
    assert names(tmp_path / "made") == []


def test_a_target_folder_that_is_a_file_is_told(tmp_path, tasks) -> None:
    (tmp_path / "made").write_text("")
    with pytest.raises(PreparationError, match=r"cannot write .*made"):
        prepare(tasks, plus_one)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.data.prepare.test_pipeline import Task, plus_one, prepare

replace, count = Path.replace, 0
def dies(self, target):
    global count
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
Path.replace = dies
raw, made = map(Path, sys.argv[1:])
prepare([Task((file,), (made / file.name,)) for file in sorted(raw.iterdir())], plus_one)
"""


def test_a_killed_run_leaves_no_half_label_and_goes_on(tmp_path, tasks) -> None:
    made = tmp_path / "made"
    done = run_python("-c", KILLED, str(tmp_path / "raw"), str(made))
    assert done.returncode == -9
    visible = [name for name in names(made) if not name.startswith(".")]
    assert visible == ["0.png"] and len(names(made)) == 3 and ".lock" in names(made)
    (made / ".keep").touch()
    assert prepare(tasks, plus_one) == PreparationReport(written=2, kept=1, skipped=1)
    assert names(made) == [".keep", "0.png", "1.png", "3.png"]


def test_a_second_run_for_the_same_folder_is_refused(tmp_path, tasks) -> None:
    told = r"in use \(another run, process \d+ on .*wait until that run is done"
    with only_run(tmp_path / "made", what="another run"):
        with pytest.raises(PreparationError, match=told):
            prepare(tasks, plus_one)
        assert names(tmp_path / "made") == [".lock"]
    assert prepare(tasks, plus_one).written == 3


def die(task: Task) -> list[np.ndarray]:
    os._exit(3)


def test_a_worker_that_dies_is_told(tmp_path, tasks) -> None:
    many = [Task(tasks[1].sources, (tmp_path / "made" / f"{i}.png",)) for i in range(40)]
    with pytest.raises(PreparationError, match="use fewer workers"):
        prepare(many, die, workers=2)
    assert names(tmp_path / "made") == []


def test_sixteen_bits_pictures_and_bytes_are_written_as_they_are(tmp_path) -> None:
    labels = np.array([[0, 300, 65535]], np.uint16)
    picture = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    targets = tuple(tmp_path / name for name in ("a.tif", "b.jpg", "c.jpg"))
    outputs = [labels, picture, b"as it is"]
    assert prepare([Task((tmp_path,), targets)], lambda _: outputs).written == 1
    assert (read_label(targets[0]) == labels).all()
    assert np.abs(read_image(targets[1]).astype(int) - picture).max() < 4
    assert targets[2].read_bytes() == b"as it is"


def test_arrays_of_another_type_are_set_aside_and_leave_nothing(tmp_path) -> None:
    task = Task((tmp_path / "x",), (tmp_path / "made" / "x.png",))
    report = prepare([task], lambda _: [np.zeros((2, 2), np.int64)])
    assert "got shape (2, 2) of int64" in report.failed[0][1]
    assert names(tmp_path / "made") == []


def test_mistakes_in_the_tasks_are_refused(tmp_path, tasks) -> None:
    with pytest.raises(ValueError, match=r"got twice: .*0\.png"):
        prepare([tasks[0], tasks[0]], plus_one)
    with pytest.raises(ValueError, match=r"endings among .* got \['\.bmp'\]"):
        prepare([Task(tasks[0].sources, (tmp_path / "x.bmp",))], plus_one)
    with pytest.raises(ValueError, match="workers: expected at least 1, got 0"):
        prepare(tasks, plus_one, workers=0)
    assert prepare([], plus_one) == PreparationReport()


def test_missing_raw_files_are_told_with_the_remedy(tmp_path) -> None:
    with pytest.raises(PreparationError, match=r"expected the folder .*raw, .*\nget it"):
        list_files(tmp_path / "raw", ".png", "get it")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / ".hidden.png").touch()
    with pytest.raises(PreparationError, match=r"expected \*\.png files in .*, got none\nget it"):
        list_files(tmp_path / "raw", ".png", "get it")
    (tmp_path / "raw" / "A.PNG").touch()
    assert [file.name for file in list_files(tmp_path / "raw", ".png", "get it")] == ["A.PNG"]


def test_relabelling_names_what_it_does_not_know() -> None:
    raw = np.array([[3, 5, 9]])
    made = relabel(raw, {3: 1, 5: 0}, ignored=(9,))
    assert made.tolist() == [[1, 0, 255]] and made.dtype == np.uint8
    wide = relabel(raw, {3: 400, 5: 0}, ignored=(9,), ignore_label=65535)
    assert wide.tolist() == [[400, 0, 65535]] and wide.dtype == np.uint16
    with pytest.raises(ValueError, match=r"labels in 3, 5-6, got 9 in 1 pixels"):
        relabel(raw, {3: 1, 5: 0, 6: 2})


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("linked", [False, True])
def test_no_file_is_written_over_by_what_is_made_of_it(tmp_path, tasks, force, linked) -> None:
    raw = tmp_path / "raw"
    (tmp_path / "link").symlink_to(raw)
    folder = tmp_path / "link" if linked else raw
    before = {path.name: path.read_bytes() for path in raw.iterdir()}
    # Task 0 would write over the source of task 1, which is read afterwards.
    own = [Task(tasks[n].sources, (folder / f"{(n + 1) % 4}.png",)) for n in range(4)]
    with pytest.raises(ValueError, match=r"expected a folder for what is made.*choose another"):
        prepare(own, plus_one, force=force)
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == before


def test_files_that_were_not_made_here_are_neither_replaced_nor_removed(tmp_path, tasks) -> None:
    made = tmp_path / "made"
    for number in (0, 2):  # 2 has no labels: what is there would be removed
        write_png(made / f"{number}.png", np.full((2, 2), 99, np.uint8))
    (made / "1.png").write_bytes(b"notes of mine")
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    with pytest.raises(PreparationError, match=r"made/0\.png: 3 files would be written over"):
        prepare(tasks, plus_one, force=True)
    report = prepare(tasks, plus_one)
    assert (report.written, report.kept) == (1, 2)
    assert report.failed[0][1].endswith("1.png is there and was not made by this; move it away")
    assert {name: (made / name).read_bytes() for name in before} == before
    assert names(made) == ["0.png", "1.png", "2.png", "3.png"]
