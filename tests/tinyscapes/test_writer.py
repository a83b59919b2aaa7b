"""The miniature world on disk."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from ovseg import tinyscapes
from ovseg.tinyscapes import (
    ALL_NAMES,
    CLASSES,
    SEEN_NAMES,
    VERSION,
    ensure_split,
    render_scene,
    training_labels,
    write_split,
    writer,
)
from ovseg.tinyscapes.version import SAME_CONTENT
from tests.helpers import ROOT


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "CHUNK_SIZE", 3)


def _bytes(folder: Path) -> dict[str, bytes]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def _read_map(folder: Path, split: str, index: int) -> np.ndarray:
    path = folder / "stuffthingmaps" / f"{split}2017" / f"{index:012d}.png"
    labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    assert labels is not None and labels.ndim == 2
    return labels


def test_layout_and_formats_are_those_of_coco(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "val", 4, workers=0)
    names = set(_bytes(folder))
    assert names == {
        *(f"val2017/{i:012d}.jpg" for i in range(4)),
        *(f"stuffthingmaps/val2017/{i:012d}.png" for i in range(4)),
        "annotations/instances_val2017.json",
        "annotations/captions_val2017.json",
        "version_val.json",
    }
    coco = COCO(str(folder / "annotations" / "instances_val2017.json"))
    for index in range(4):
        scene = render_scene("val", index)
        info = coco.loadImgs([index])[0]
        assert (info["height"], info["width"]) == scene.labels.shape
        assert (_read_map(folder, "val", index) == scene.labels).all()
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[index]))
        assert [a["category_id"] - 1 for a in annotations] == [c for c, _ in scene.instances]
        for annotation, (class_id, mask) in zip(annotations, scene.instances, strict=True):
            assert (coco.annToMask(annotation).astype(bool) == mask).all()
            assert annotation["area"] == mask.sum()
            x, y, w, h = annotation["bbox"]
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            assert coco.cats[class_id + 1]["name"] == ALL_NAMES[class_id]
    captions = COCO(str(folder / "annotations" / "captions_val2017.json"))
    assert [a["caption"] for a in captions.imgToAnns[2]] == render_scene("val", 2).captions


def test_training_files_hide_unseen_classes(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "train", 12, workers=0)
    ignored = 0
    for index in range(12):
        labels, full = _read_map(folder, "train", index), render_scene("train", index).labels
        unseen = full >= len(SEEN_NAMES)
        assert (labels[unseen] == 255).all() and (labels[~unseen] == full[~unseen]).all()
        ignored += unseen.sum()
    assert ignored > 0
    written = json.loads((folder / "annotations" / "instances_train2017.json").read_text())
    assert {c["name"] for c in written["categories"]} == {
        c.name for c in CLASSES if c.seen and c.kind == "thing"
    }
    assert max(a["category_id"] for a in written["annotations"]) <= len(SEEN_NAMES)
    captions = json.loads((folder / "annotations" / "captions_train2017.json").read_text())
    assert len(captions["annotations"]) == 60
    assert [a["id"] for a in captions["annotations"]] == list(range(1, 61))


def test_training_labels_of_an_empty_picture_are_empty() -> None:
    assert training_labels(np.zeros((0, 4), np.uint8)).shape == (0, 4)


def test_validation_files_show_all_classes(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "test", 6, workers=0)
    values = np.unique([v for i in range(6) for v in np.unique(_read_map(folder, "test", i))])
    assert values.max() < len(ALL_NAMES) and (values >= len(SEEN_NAMES)).any()
    assert json.loads((folder / "version_test.json").read_text())["classes"] == list(ALL_NAMES)


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    alone = write_split(tmp_path / "a", "val", 5, workers=1)
    together = write_split(tmp_path / "b", "val", 5, workers=2)
    assert _bytes(alone) == _bytes(together)


def test_interrupted_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    real = writer.render_scene

    def draws_until_seven(split: str, index: int) -> tinyscapes.Scene:
        if index == 7:
            raise KeyboardInterrupt
        drawn.append(index)
        return real(split, index)

    with monkeypatch.context() as patch:
        patch.setattr(writer, "render_scene", draws_until_seven)
        with pytest.raises(KeyboardInterrupt):
            write_split(tmp_path / "a", "val", 9, workers=0)
    assert not (tmp_path / "a" / "tinyscapes" / "version_val.json").exists()
    images = tmp_path / "a" / "tinyscapes" / "val2017"
    (images / ".000000000007.half.jpg").write_bytes(b"half")  # as kill -9 leaves it

    resumed: list[int] = []
    monkeypatch.setattr(writer, "render_scene", lambda s, i: resumed.append(i) or real(s, i))
    write_split(tmp_path / "a", "val", 9, workers=0)
    assert resumed == [6, 7, 8]  # the two finished chunks are kept
    write_split(tmp_path / "b", "val", 9, workers=0)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_finished_split_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_split(tmp_path, "val", 2, workers=0)
    monkeypatch.setattr(writer, "render_scene", None)
    assert write_split(tmp_path, "val", 2, workers=0) == folder
    assert ensure_split(tmp_path, "val") == folder  # any count will do


def test_other_version_is_drawn_anew(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "val", 2, workers=0)
    fresh = _bytes(folder)
    (folder / "version_val.json").write_text('{"version": "0123", "split": "val", "images": 2}')
    (folder / "val2017" / f"{0:012d}.jpg").write_bytes(b"old")
    (folder / ".parts_val_0123").mkdir()
    ensure_split(tmp_path, "val", 2)
    assert _bytes(folder) == fresh
    assert json.loads(fresh["version_val.json"])["version"] == VERSION
    assert not (folder / ".parts_val_0123").exists()


def test_an_older_stamp_of_the_same_content_is_not_drawn_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_split(tmp_path, "val", 2, workers=0)
    stamp = {"version": SAME_CONTENT[0], "split": "val", "images": 2}
    (folder / "version_val.json").write_text(json.dumps(stamp))
    monkeypatch.setattr(writer, "render_scene", None)
    ensure_split(tmp_path, "val", 2)
    assert json.loads((folder / "version_val.json").read_text()) == stamp


def test_damaged_version_file_counts_as_missing(tmp_path: Path) -> None:
    folder = write_split(tmp_path, "val", 1, workers=0)
    fresh = _bytes(folder)
    (folder / "version_val.json").write_text("{")
    ensure_split(tmp_path, "val", 1)
    assert _bytes(folder) == fresh


def test_smaller_count_removes_surplus_pictures(tmp_path: Path) -> None:
    write_split(tmp_path / "a", "val", 4, workers=0)
    write_split(tmp_path / "a", "val", 2, workers=0)
    write_split(tmp_path / "b", "val", 2, workers=0)
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")


def test_bad_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="train, val, test, got 'dev'"):
        write_split(tmp_path, "dev", 2)
    with pytest.raises(ValueError, match="count of pictures >= 1, got 0"):
        ensure_split(tmp_path, "val", 0)


def test_command_line_writes_the_chosen_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    script = Path(__file__).parents[2] / "datasets" / "prepare_tinyscapes.py"
    spec = importlib.util.spec_from_file_location("prepare_tinyscapes", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    counts = ["--train", "0", "--val", "2", "--test", "1"]
    assert module.main(["--root", str(tmp_path), "--workers", "1", *counts]) == 0
    assert f"version {VERSION}," in capsys.readouterr().out
    folder = tmp_path / "tinyscapes"
    assert len(list((folder / "val2017").iterdir())) == 2
    assert len(list((folder / "test2017").iterdir())) == 1
    assert not (folder / "train2017").exists()


def test_the_workers_of_a_killed_run_end_with_it(tmp_path: Path) -> None:
    script = ROOT / "datasets" / "prepare_tinyscapes.py"
    words = ["--root", str(tmp_path), "--workers", "2", "--train", "4000", "--val", "0"]
    run = subprocess.Popen(
        [sys.executable, str(script), *words, "--test", "0"], stderr=subprocess.DEVNULL
    )
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
    workers: list[int] = []
    until = time.monotonic() + 60
    while len(workers) < 3 and time.monotonic() < until:  # two, and Python's resource tracker
        time.sleep(0.1)
        workers = [int(number) for number in children.read_text().split()]
    run.kill()
    run.wait()
    until = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in workers):
        assert time.monotonic() < until, "workers of a killed run are still there"
        time.sleep(0.1)
    assert len(workers) == 3
