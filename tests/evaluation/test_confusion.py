from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ovseg.evaluation.confusion import (
    confusion_matrix,
    scores,
    scores_in_convention,
    unique_names,
)

RECORDING = json.loads((Path(__file__).parent / "recorded_metrics.json").read_text())


def oracle_iou(pairs, num_classes, ignore):
    """IoU and accuracy per class by counting pixel after pixel in plain Python."""
    hits, true, predicted = ([0] * num_classes for _ in range(3))
    for prediction, truth in pairs:
        for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t == ignore:
                continue
            predicted[p] += 1
            true[t] += 1
            hits[t] += p == t
    iou, accuracy, mentioned = {}, {}, 0
    for k in range(num_classes):
        mentioned += bool(true[k] or predicted[k])
        if true[k]:
            iou[k] = 100 * hits[k] / (true[k] + predicted[k] - hits[k])
            accuracy[k] = 100 * hits[k] / true[k]
    total = sum(true)
    return {
        "mIoU": sum(iou.values()) / mentioned if mentioned else math.nan,
        "mIoU-gt": sum(iou.values()) / len(iou) if iou else math.nan,
        "mACC": sum(accuracy.values()) / len(iou) if iou else math.nan,
        "pACC": 100 * sum(hits) / total if total else math.nan,
        "fwIoU": sum(iou[k] * true[k] for k in iou) / total if total else math.nan,
        "iou": iou,
        "accuracy": accuracy,
    }


@pytest.mark.parametrize("convention", ["ovseg", "detectron2"])
def test_both_recorded_conventions_are_reproduced(convention: str) -> None:
    got = scores_in_convention(
        np.array(RECORDING["conf_matrix"]),
        RECORDING["classes"],
        RECORDING["evaluation_set"],
        convention=convention,
    )
    expected = {
        key: value
        for key, value in RECORDING[f"{convention}_convention"].items()
        if not key.startswith(("BoundaryIoU", "min("))
    }
    for key, value in expected.items():
        if value is None:
            assert math.isnan(got[key]), key
        else:
            assert got[key] == pytest.approx(value, abs=1e-6), key


def test_all_scores_name_both_conventions() -> None:
    got = scores(
        np.array(RECORDING["conf_matrix"]), RECORDING["classes"], RECORDING["evaluation_set"]
    )
    assert got["mIoU"] == pytest.approx(35.62923251362097, abs=1e-6)
    assert got["mIoU-gt"] == pytest.approx(44.5365406420262, abs=1e-6)
    assert got["hIoU-seen"] == pytest.approx(26.108203387257173, abs=1e-6)
    # unseen = classes 2, 4, 5; only 5 occurs in the ground truth
    assert got["mIoU-gt-unseen"] == pytest.approx(36.04042974271982, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_scores_agree_with_a_pixel_by_pixel_count(seed: int) -> None:
    rng = np.random.default_rng(seed)
    num_classes, ignore = 5, [255, 65535][seed % 2]
    pairs = []
    for _ in range(3):
        size = tuple(rng.integers(3, 9, 2))
        truth = rng.choice([0, 1, 3, ignore], size=size)  # 2 and 4 are absent
        pairs.append((rng.choice([0, 1, 2, 3], size=size), truth))  # 2 is only predicted
    pairs.append((rng.integers(0, 5, (4, 4)), np.full((4, 4), ignore)))  # nothing to score
    matrix = sum(confusion_matrix(p, t, num_classes, ignore) for p, t in pairs)
    got = scores(matrix, [f"c{k}" for k in range(num_classes)])
    expected = oracle_iou(pairs, num_classes, ignore)
    for key in ("mIoU", "mIoU-gt", "mACC", "pACC", "fwIoU"):
        assert got[key] == pytest.approx(expected[key], abs=1e-9), key
    for k in range(num_classes):
        assert got[f"IoU-c{k}"] == pytest.approx(expected["iou"].get(k, math.nan), nan_ok=True)
        assert got[f"ACC-c{k}"] == pytest.approx(expected["accuracy"].get(k, math.nan), nan_ok=True)
    assert got["mIoU"] < got["mIoU-gt"]


def test_matrix_is_indexed_by_prediction_then_truth() -> None:
    matrix = confusion_matrix(np.array([[0, 1, 1]]), np.array([[1, 1, 9]]), 2, 9)
    assert matrix.tolist() == [[0, 1, 0], [0, 1, 1], [0, 0, 0]]


def test_nothing_but_ignored_pixels_gives_undefined_scores_without_warnings() -> None:
    matrix = confusion_matrix(np.zeros((2, 2), int), np.full((2, 2), 255), 3, 255)
    with np.errstate(all="raise"):
        got = scores(matrix, ["a", "b", "c"], {"seen": [0]}, {"things": [1]})
    assert all(math.isnan(value) for value in got.values())


def test_groups_have_no_complement() -> None:
    prediction = np.array([[0, 0, 1, 2]])
    truth = np.array([[0, 1, 1, 2]])
    got = scores(confusion_matrix(prediction, truth, 3, 255), "abc", None, {"things": [0, 1]})
    assert got["mIoU-things"] == pytest.approx(50.0)
    assert got["pAcc-things"] == pytest.approx(200 / 3)
    assert "mIoU-unthings" not in got


def test_two_sets_that_are_each_others_rest_are_compared_once() -> None:
    matrix = confusion_matrix(np.array([[0, 1, 1, 2]]), np.array([[0, 0, 1, 2]]), 3, 255)
    one, both = {"seen": [0, 1]}, {"seen": [0, 1], "unseen": [2]}
    assert scores(matrix, "abc", both) == scores(matrix, "abc", one)
    named = scores(matrix, "abc", {"base": [0, 1], "novel": [2]})
    assert {key for key in named if key.startswith(("mIoU-", "hIoU-"))} == {
        *("mIoU-gt", "mIoU-base", "mIoU-novel", "hIoU-base"),
        *("mIoU-gt-base", "mIoU-gt-novel", "hIoU-gt-base"),
    }
    assert (named["mIoU-base"], named["mIoU-novel"]) == (50.0, 100.0)
    assert named["hIoU-base"] == pytest.approx(200 / 3)


@pytest.mark.parametrize("name", ["gt", "gt-seen", ""])
def test_a_set_must_not_be_called_what_the_other_convention_is_called(name: str) -> None:
    matrix = confusion_matrix(np.array([[0, 1]]), np.array([[0, 1]]), 2, 255)
    for sets in ({"evaluation_set": {name: [0]}}, {"class_groups": {name: [0]}}):
        with pytest.raises(ValueError, match=rf"name of its own, got '{name}'.*rename the set"):
            scores(matrix, "ab", **sets)
    with pytest.raises(ValueError, match="name of its own"):
        scores_in_convention(matrix, "ab", {name: [0]}, convention="ovseg")


def test_harmonic_mean_of_a_failed_half_is_zero() -> None:
    matrix = confusion_matrix(np.array([[1, 0]]), np.array([[0, 1]]), 2, 255)
    assert scores(matrix, "ab", {"seen": [0]})["hIoU-seen"] == 0.0


def test_a_wrong_size_says_both_sizes() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\), got \(3, 2\); resize"):
        confusion_matrix(np.zeros((3, 2), int), np.zeros((2, 3), int), 2, 255)


@pytest.mark.parametrize("wrong", [-1, 2, 254])
def test_a_label_outside_the_class_list_is_an_error(wrong: int) -> None:
    with pytest.raises(ValueError, match=rf"0\.\.1 in the ground truth.*\[{wrong}\]"):
        confusion_matrix(np.zeros((1, 2), int), np.array([[0, wrong]]), 2, 255)


def test_repeated_names_keep_their_own_scores() -> None:
    assert unique_names(["bar", "stool", "bar"]) == ("bar", "stool", "bar (2)")
    matrix = confusion_matrix(np.array([[0, 1]]), np.array([[0, 0]]), 2, 255)
    got = scores(matrix, ["bar", "bar"])
    assert got["ACC-bar"] == 50.0
    assert math.isnan(got["ACC-bar (1)"])


def test_unknown_convention_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="'ovseg', 'detectron2'"):
        scores_in_convention(np.zeros((2, 2)), ["a"], convention="new")
