from __future__ import annotations

import json

import pytest

from ovseg.evaluation.leaderboard import leaderboard_page, measured_file, read_entries
from ovseg.evaluation.results import ResultError, load_result
from tests.evaluation.results_folder import write_folder

ROW = {
    "method": "M",
    "dataset": "world",
    "setting": "s | t",
    "source": "table 1",
    "scores": {"unknown": {"value": 29.6}},
}


def write(folder, **changes) -> None:
    content = {"kind": "reported", "reference": "Paper", "rows": [ROW], **changes}
    (folder / "paper.json").write_text(json.dumps(content))


def lines_of(page: str) -> list[list[str]]:
    rows = [line for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


@pytest.fixture
def complete(tmp_path):
    """A measured result without missing images."""
    folder = write_folder(tmp_path / "result")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["images"] = {"expected": 12, "scored": 12, "missing": {}}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return load_result(folder)


def test_measured_and_reported_share_a_line_in_columns_of_their_own(tmp_path, complete) -> None:
    write(tmp_path)
    measured_file(tmp_path, complete, "M", "s | t")
    entries, remarks = read_entries(tmp_path)
    header, _, row = lines_of(leaderboard_page(entries, remarks))
    by_title = dict(zip(header, row, strict=True))
    low, high = complete.interval("mIoU")
    mean = complete.scores["mIoU"]
    assert by_title["measured here, mIoU"] == f"{mean:.2f} [{low:.2f}, {high:.2f}]"
    assert by_title["measured here, mIoU-gt"].startswith(f"{complete.scores['mIoU-gt']:.2f}")
    assert by_title["reported"] == "29.6"
    assert by_title["convention of the report"] == "unknown"
    assert by_title["setting"] == "s \\| t"
    assert "table 1" in by_title["source"] and "backend lite" in by_title["source"]
    assert remarks[1] == "Reported: Paper."


def test_the_best_comes_first_and_what_is_unknown_is_a_dash(tmp_path) -> None:
    better = {**ROW, "method": "N", "scores": {"ovseg": {"value": 30}}}
    write(tmp_path, rows=[ROW, better])
    _, _, first, second = lines_of(leaderboard_page(*read_entries(tmp_path)))
    assert (first[0], second[0]) == ("N", "M")
    assert first[3] == first[4] == "–" and first[5:7] == ["30.0", "ovseg"]


def test_numbers_for_present_classes_have_lines_of_their_own(tmp_path, complete) -> None:
    told = {**ROW, "prompts": "present classes"}
    write(tmp_path, rows=[ROW, told])
    file = measured_file(tmp_path, complete, "M", "s | t")
    assert json.loads(file.read_text())["rows"][0]["prompts"] == "all classes"
    complete.manifest["protocol"]["classes_asked_for"] = "present classes"
    measured_file(tmp_path, complete, "M", "s | t, told")
    _, _, *lines = lines_of(leaderboard_page(*read_entries(tmp_path)))
    asked = [(line[1], line[2], line[5]) for line in lines]
    assert sorted(asked) == [
        ("s \\| t", "all classes", "29.6"),
        ("s \\| t", "present classes", "29.6"),
        ("s \\| t, told", "present classes", "–"),
    ]


def test_texts_of_result_files_stay_texts(tmp_path) -> None:
    write(tmp_path, rows=[{**ROW, "method": "<script>alert(1)</script>\n# M", "source": "a|b"}])
    page = leaderboard_page(*read_entries(tmp_path))
    assert "<script>" not in page and "\n# M" not in page
    assert "| &lt;script&gt;alert(1)&lt;/script&gt; # M |" in page and "a\\|b" in page


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "guessed"}, "kind: expected measured or reported, got 'guessed'"),
        ({"rows": [{**ROW, "method": 3}]}, "row 0: method: expected a text, got 3"),
        ({"rows": [{**ROW, "scores": {}}]}, "row 0: scores: expected an object"),
        ({"rows": [{**ROW, "scores": {"new": {"value": 1}}}]}, "expected ovseg or detectron2"),
        ({"rows": [{**ROW, "scores": {"ovseg": {"value": 129}}}]}, "expected a percentage"),
        ({"rows": [{**ROW, "prompts": "some"}]}, "prompts: expected all classes or present"),
    ],
)
def test_a_wrong_file_is_refused_with_file_row_and_field(tmp_path, changes, message) -> None:
    write(tmp_path, **changes)
    with pytest.raises(ResultError, match=rf"paper\.json: .*{message}"):
        read_entries(tmp_path)


def test_an_incomplete_evaluation_is_not_added(tmp_path) -> None:
    result = load_result(write_folder(tmp_path / "result"))
    with pytest.raises(ResultError, match="12 of 13 images"):
        measured_file(tmp_path, result, "M", "")
