from __future__ import annotations

import pytest

from ovseg.evaluation.comparison import compare, format_comparison
from ovseg.evaluation.results import ResultError, find_results, load_result
from tests.evaluation.results_folder import write_folder


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    weak = write_folder(root / "a" / "inference" / "world", right=0.5)
    strong = write_folder(root / "b" / "inference" / "world", right=0.6, weight=0.6)
    return load_result(weak), load_result(strong)


def scores(comparison):
    return {change.name: change for change in comparison.scores}


def test_the_manifest_comes_first_and_only_what_can_explain_a_number(results) -> None:
    found = compare(*results)
    assert found.warnings == [
        "1 images are missing from the first result",
        "1 images are missing from the second result",
    ]
    assert {(c.name, c.first, c.second) for c in found.manifest} == {
        ("protocol.ensemble_weight", 0.7, 0.6),
        ("config.MODEL.CLIP_ADAPTER.WEIGHT", 0.7, 0.6),
    }
    text = format_comparison(found)
    assert text.index("ensemble_weight: 0.7 -> 0.6") < text.index("mIoU-gt")


def test_the_interval_of_the_difference_is_paired_and_narrower_than_the_two(results) -> None:
    found = compare(*results)
    change = scores(found)["pACC"]
    assert found.paired_images == 12
    assert change.difference == pytest.approx(results[1].scores["pACC"] - results[0].scores["pACC"])
    low, high = change.difference_interval
    assert 0 < low < change.difference < high
    widths = [b - a for a, b in (change.first_interval, change.second_interval)]
    assert high - low < min(widths)
    assert " *" in next(x for x in format_comparison(found).splitlines() if x.startswith("pACC"))


def test_a_result_against_itself_differs_in_nothing(results) -> None:
    found = compare(results[0], results[0])
    assert found.manifest == []
    assert {c.difference for c in found.scores} == {0.0}
    assert scores(found)["mIoU"].difference_interval == (0.0, 0.0)
    assert "made in the same way" in format_comparison(found)


def test_other_classes_or_labels_are_warned_about(results, tmp_path) -> None:
    names = load_result(write_folder(tmp_path / "n", names=("sky", "star", "tree", "ghost")))
    found = compare(results[0], names)
    assert any("class lists differ" in warning for warning in found.warnings)
    assert found.paired_images == 0
    labels = load_result(write_folder(tmp_path / "l", seed=1, dataset="elsewhere"))
    found = compare(results[0], labels)
    assert any("ground truth differs" in warning for warning in found.warnings)
    assert any("two datasets" in warning for warning in found.warnings)
    assert "NOT COMPARABLE" in format_comparison(found)


def test_results_are_found_from_any_of_their_folders(results, tmp_path) -> None:
    folder = results[0].folder
    for path in (folder, folder.parent, folder.parent.parent):
        assert [r.folder for r in find_results(path).values()] == [folder]
    with pytest.raises(ResultError, match="expected the result of an evaluation"):
        find_results(tmp_path)
    (tmp_path / "metrics.json").write_text('{"iteration": 1}\n{"iteration": 2}\n')
    with pytest.raises(ResultError, match=r"metrics\.json"):
        find_results(tmp_path)
