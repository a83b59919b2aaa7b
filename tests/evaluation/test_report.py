from __future__ import annotations

import csv
import math

import numpy as np
import pytest

from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.evaluation.report import ClassRow, class_rows, class_table, summary_table, write_csv
from ovseg.vocab.class_sets import ClassSets

NAMES = ["sky", "red star", "tree"]
SEEN = {"seen": [0]}


@pytest.fixture
def matrix() -> np.ndarray:
    prediction = np.array([[0, 0, 1, 1]])
    truth = np.array([[0, 1, 1, 255]])
    return confusion_matrix(prediction, truth, 3, 255)


def test_rows_hold_counts_groups_and_undefined_scores(matrix) -> None:
    rows = class_rows(matrix, NAMES, scores(matrix, NAMES), {"seen": [0, 1], "sharp": [1]})
    assert [row.groups for row in rows] == ["seen", "seen|sharp", ""]
    star = rows[1]
    assert (star.pixels_true, star.pixels_predicted, star.pixels_correct) == (2, 1, 1)
    assert (star.iou, star.accuracy) == (50.0, 50.0)
    assert math.isnan(rows[2].iou)


def test_csv_leaves_undefined_scores_empty(matrix, tmp_path) -> None:
    path = tmp_path / "per_class.csv"
    write_csv(path, class_rows(matrix, NAMES, scores(matrix, NAMES)), ClassRow)
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == NAMES
    assert lines[1]["iou"] == "50.0000"
    assert lines[2]["iou"] == lines[2]["accuracy"] == ""
    assert lines[2]["pixels_true"] == "0"


def test_summary_names_conventions_and_groups(matrix) -> None:
    sets = ClassSets.make(SEEN, {"stars": [1]}, 3)
    table = summary_table(scores(matrix, NAMES, SEEN, {"stars": [1]}), 3, sets)
    rows = {line[:30].strip(): line[30:].split() for line in table.splitlines()}
    assert rows[""] == ["classes", "mIoU", "mIoU-gt", "pAcc"]
    assert rows["all"] == ["3", "50.00", "50.00", "66.67"]
    assert rows["unseen"] == ["2", "50.00", "50.00", "50.00"]
    assert rows["harmonic mean (seen, unseen)"] == ["50.00", "50.00"]
    assert rows["stars"][0] == "1"
    assert "mIoU = ovseg:" in table
    assert "mIoU-gt = detectron2:" in table


def test_class_table_goes_down_the_columns_and_marks_absent_classes(matrix) -> None:
    lines = class_table(class_rows(matrix, NAMES, scores(matrix, NAMES)), 2).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["sky", "50.00", "100.00", "tree", "-", "-"]
    assert lines[2].split() == ["red", "star", "50.00", "50.00"]
