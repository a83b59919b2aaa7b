"""The same evaluation in one process, in two, and killed and started again."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.evaluation.evaluate import evaluate
from ovseg.evaluation.journal import JournalError
from ovseg.utils import folder_lock
from ovseg.utils.folder_lock import BusyFolderError, only_run
from tests.evaluation.tiny_evaluation import (
    COUNT,
    DATASETS,
    WEIGHTS,
    Shades,
    cfg_for,
    register,
    write_pictures,
)
from tests.helpers import run_python


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_pictures(folder)
    register(folder)
    yield folder
    for name in DATASETS:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory):
    """Folder of an evaluation in one process, without interruption."""
    output = tmp_path_factory.mktemp("whole")
    evaluate(cfg_for(output), Shades(), weights=WEIGHTS)
    return output / "inference"


def in_own_processes(root: Path, output: Path, *words: str, **environment: str):
    return run_python(
        *("-m", "tests.evaluation.tiny_evaluation", *words),
        TINY_ROOT=str(root),
        TINY_OUTPUT=str(output),
        timeout=900,
        **environment,
    )


def content(folder: Path) -> dict[str, object]:
    """All that the images decide in a folder of results."""
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics.pop("environment")
    tables = {p.name: p.read_text() for p in sorted(folder.glob("*.csv"))}
    pictures = {p.name: p.read_bytes() for p in sorted((folder / "examples").iterdir())}
    with np.load(folder / "image_counts.npz") as arrays:
        counts = {name: arrays[name].tolist() for name in arrays}
    return {"metrics": metrics, **tables, **pictures, **counts}


def manifest(folder: Path) -> dict[str, object]:
    return json.loads((folder / "manifest.json").read_text())


def test_the_folder_holds_everything(whole) -> None:
    names = {path.name for path in (whole / DATASETS[0]).iterdir()}
    tables = {"per_class.csv", "confusion_pairs.csv", "images.csv", "image_counts.npz"}
    assert names == tables | {"metrics.json", "manifest.json", "report.html", "examples"}
    together = (whole / "report.html").read_text()
    assert all(name in together for name in DATASETS)
    metrics = json.loads((whole / DATASETS[0] / "metrics.json").read_text())
    assert metrics["images"] == {"expected": COUNT, "scored": COUNT, "missing": {}}
    low, high = metrics["intervals"]["scores"]["mIoU"]
    assert 0 < low < metrics["sem_seg"]["mIoU"] < high < 100
    assert metrics["sem_seg"]["mIoU"] < metrics["sem_seg"]["mIoU-gt"]


def test_two_processes_leave_the_same_numbers(root, whole, tmp_path) -> None:
    done = in_own_processes(root, tmp_path, "--num-gpus", "2")
    assert done.returncode == 0, done.stderr
    for name in DATASETS:
        folder = tmp_path / "inference" / name
        assert manifest(folder)["processes"] == 2
        assert content(folder) == content(whole / name)


def test_a_killed_evaluation_goes_on_where_it_stopped(root, whole, tmp_path) -> None:
    # The second dataset's fourth picture is the end of it.
    killed = in_own_processes(root, tmp_path, DIE_AFTER=str(COUNT + 4))
    assert killed.returncode == -signal.SIGKILL
    first, second = (tmp_path / "inference" / name for name in DATASETS)
    assert (first / "metrics.json").is_file() and not (second / "metrics.json").exists()
    with pytest.raises(JournalError, match=r"weights: \w+ -> 6{64}\..* another OUTPUT_DIR"):
        evaluate(cfg_for(tmp_path), Shades(), weights=WEIGHTS | {"sha256": "6" * 64})
    with pytest.raises(JournalError, match=r": key\.settings: \w+ -> \w+\. "):
        evaluate(cfg_for(tmp_path, "TEST.SLIDING_OVERLAP", 0.5), Shades(), weights=WEIGHTS)
    model = Shades()
    evaluate(cfg_for(tmp_path), model, weights=WEIGHTS)
    assert model.seen == [f"{number}.png" for number in range(3, COUNT)]
    for name in DATASETS:
        folder = tmp_path / "inference" / name
        assert content(folder) == content(whole / name)
        assert not (folder / "journal").exists()
    assert manifest(second)["images_of_interrupted_runs"] == 3
    model = Shades()
    evaluate(cfg_for(tmp_path), model, weights=WEIGHTS)  # a finished one starts over
    assert len(model.seen) == 2 * COUNT


def test_a_folder_that_another_run_writes_to_is_refused(root, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(folder_lock, "_PATIENCE_SECONDS", 0)
    model = Shades()
    with only_run(tmp_path, what="a training"):
        with pytest.raises(BusyFolderError, match=r"in use \(a training, process"):
            evaluate(cfg_for(tmp_path), model, weights=WEIGHTS)
        assert not model.seen
        evaluate(cfg_for(tmp_path), model, weights=WEIGHTS, goes_on=False)  # the training's own
    assert len(model.seen) == 2 * COUNT


def test_without_a_hash_of_the_weights_nothing_is_continued(root, whole, tmp_path) -> None:
    class Dies(Shades):
        def forward(self, batched_inputs):
            if len(self.seen) == 4:
                raise KeyboardInterrupt
            return super().forward(batched_inputs)

    with pytest.raises(KeyboardInterrupt):
        evaluate(cfg_for(tmp_path), Dies())
    assert not (tmp_path / "inference" / DATASETS[0] / "journal").exists()


def test_the_manifest_says_how_the_numbers_came_about(whole) -> None:
    found = manifest(whole / DATASETS[0])
    assert found["protocol"]["short_side"] == 24 and found["protocol"]["ignore_label"] == 255
    assert found["hashes"]["weights"] == "5" * 64
    assert len(found["hashes"]["labels"]) == len(found["hashes"]["class_names"]) == 64
    assert found["backend"] in ("lite", "real") and found["environment"]["packages"]["torch"]
    # The same pictures under another name have the same labels.
    assert manifest(whole / DATASETS[1])["hashes"] == found["hashes"]
