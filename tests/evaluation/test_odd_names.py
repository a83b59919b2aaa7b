"""Names of files that are not UTF-8, and results that no evaluation gives."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.evaluation.evaluate import evaluate
from ovseg.evaluation.results import ResultError, find_results, load_result
from tests.evaluation.tiny_evaluation import (
    DATASETS,
    WEIGHTS,
    Shades,
    cfg_for,
    register,
    write_pictures,
)


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Folder of an evaluation of pictures of which one has a name that is not UTF-8."""
    root = tmp_path_factory.mktemp("pictures")
    write_pictures(root)
    odd = os.fsdecode(b"caf\xe9\x1b.png")
    for folder in ("images", "labels"):
        (root / folder / "0.png").rename(root / folder / odd)
    register(root)
    output = tmp_path_factory.mktemp("output")
    try:
        evaluate(cfg_for(output), Shades(), weights=WEIGHTS)
    finally:
        for name in DATASETS:
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
    return output / "inference" / DATASETS[0]


def test_an_evaluation_keeps_its_scores(results):
    for file in results.rglob("*"):
        if file.suffix in (".csv", ".json", ".html", ".jsonl"):
            file.read_text(encoding="utf-8")
    assert "caf\\udce9" in (results / "images.csv").read_text()
    found = load_result(results)
    assert 0 < found.scores["mIoU"] <= 100
    assert len(found.rows("images")) == 9
    counts = found.counts()
    assert counts is not None
    assert len(counts[0]) == 9


@pytest.mark.parametrize("score", [-1, 1e400, -0.5, 100.5, "50", True, [50]])
def test_scores_that_cannot_be_are_refused(results, tmp_path, score):
    metrics = json.loads((results / "metrics.json").read_text())
    metrics["sem_seg"]["mIoU"] = score
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ResultError, match=r"metrics\.json: mIoU: expected percents from 0 to 100"):
        find_results(tmp_path)


@pytest.mark.parametrize("interval", [[1, 1e400], [-5, 3], 7, [1]])
def test_intervals_that_cannot_be_are_refused(results, tmp_path, interval):
    metrics = json.loads((results / "metrics.json").read_text())
    metrics["intervals"]["scores"]["mIoU"] = interval
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ResultError, match=r"mIoU: expected percents"):
        load_result(tmp_path)
    (tmp_path / "metrics.json").write_text(json.dumps({**metrics, "intervals": interval}))
    with pytest.raises(ResultError, match=r"metrics\.json: intervals: expected two numbers"):
        load_result(tmp_path)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("cells", np.array([10**6] * 3)),
        ("pixels", np.array([-5])),
        ("ends", np.array([99])),
        ("ends", np.array([5, 3])),
        ("num_classes", np.array(-1)),
        ("num_classes", np.array([1, 2])),
        ("files", np.array(["a"])),
        ("cells", np.array([0.5])),
    ],
)
def test_damaged_counts_are_refused(results, tmp_path, name, values):
    with np.load(results / "image_counts.npz") as arrays:
        content = dict(arrays)
    (tmp_path / "metrics.json").write_bytes((results / "metrics.json").read_bytes())
    np.savez(tmp_path / "image_counts.npz", **{**content, name: values})
    with pytest.raises(ResultError, match=r"image_counts\.npz: expected the confusion counts"):
        load_result(tmp_path).counts()


def test_a_damaged_table_names_itself(results, tmp_path):
    (tmp_path / "metrics.json").write_bytes((results / "metrics.json").read_bytes())
    (tmp_path / "images.csv").write_bytes(b"file,miou\nW\xfcste,3\n")
    with pytest.raises(ResultError, match=r"images\.csv: expected text in UTF-8"):
        load_result(tmp_path).rows("images")
