from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from ovseg.evaluation.page import write_report
from ovseg.evaluation.results import load_result
from tests.evaluation.results_folder import write_folder

EVIL = "\"'><script>alert('x')</script>"


class Reader(HTMLParser):
    """Collects what a browser would load, and whether elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loaded: list[str] = []
        self.text: list[str] = []
        self.tags: set[str] = set()
        self.alternatives: list[str] = []

    def handle_starttag(self, tag, attributes):
        if tag not in ("img", "meta", "br", "hr"):
            self.open.append(tag)
        self.tags.add(tag)
        self.alternatives += [value for key, value in attributes if key == "alt"]
        self.loaded += [value for key, value in attributes if key in ("src", "href") and value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(path) -> tuple[Reader, str]:
    reader = Reader()
    reader.feed(path.read_text(encoding="utf-8"))
    assert reader.open == []
    return reader, " ".join(reader.text)


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    return load_result(write_folder(tmp_path_factory.mktemp("result")))


def test_the_page_of_a_set_says_it_all_and_loads_nothing(result, tmp_path) -> None:
    reader, text = read(write_report(tmp_path / "report.html", [result]))
    assert all(address.startswith("data:image/") for address in reader.loaded)
    assert len(reader.loaded) == 4  # picture, truth, prediction, errors
    assert f"{result.scores['mIoU']:.2f}" in text and f"{result.scores['mIoU-gt']:.2f}" in text
    low, high = result.interval("mIoU")
    assert f"{low:.1f} to {high:.1f}" in text
    assert "percentile bootstrap over images" in text and "200 draws, seed 0" in text
    for said in ("12 of 13 images", "Worst images", "taken for", "ensemble weight", "a" * 64):
        assert said in text, said
    pair = result.rows("confusion_pairs")[0]
    assert re.search(rf"{re.escape(pair['true'])}\s+{re.escape(pair['predicted'])}", text)
    assert "not in the ground truth" in text  # the ghost


def test_names_and_reasons_stay_text(result, tmp_path) -> None:
    _, text = read(write_report(tmp_path / "report.html", [result]))
    assert "<b>tree</b>" in text and "<i>not</i> an image" in text


def _spoiled(value):
    """The same JSON with a tag in every text and in every name of a score, group or image."""
    if isinstance(value, dict):
        return {key: _spoiled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spoiled(item) for item in value]
    return f"{value}{EVIL}" if isinstance(value, str) else value


def test_no_tag_from_outside_gets_through(tmp_path) -> None:
    names = (f"sky{EVIL}", "tree", f"star{EVIL}", f"ghost{EVIL}")
    folder = write_folder(tmp_path / "result", dataset=f"world{EVIL}", names=names)
    for name in ("metrics.json", "manifest.json"):
        content = json.loads((folder / name).read_text())
        spoiled = _spoiled(content)
        if name == "metrics.json":
            group = {f"seen{EVIL}": [0, 1], **content["groups"]}
            shown = dict(content["examples"]["worst"][0], name=f"0.jpg{EVIL}")
            lost = {key: f"{value}{EVIL}" for key, value in shown.items()}
            spoiled |= {"groups": group, "examples": {"worst": [shown, lost], "best": []}}
        else:
            spoiled["protocol"] |= {EVIL: EVIL}
            spoiled["hashes"] |= {EVIL: EVIL}
            spoiled["environment"]["packages"] |= {EVIL: EVIL}
            spoiled["remarks"] = [EVIL]
        (folder / name).write_text(json.dumps(spoiled))
    other = load_result(write_folder(tmp_path / "other"))
    for results in ([load_result(folder)], [load_result(folder), other]):
        path = write_report(tmp_path / "report.html", results)
        reader, text = read(path)
        assert "script" not in reader.tags and "<script" not in path.read_text()
        assert all(address.startswith(("data:image/", "#")) for address in reader.loaded)
        for part in ("world", "sky", "star", "ghost", "tiny", "0.jpg", "with replacement"):
            assert f"{part}{EVIL}" in text, part
        assert f"prediction of 0.jpg{EVIL}" in reader.alternatives


def test_several_sets_come_with_a_table_of_all(result, tmp_path) -> None:
    other = load_result(write_folder(tmp_path / "other", right=0.9, dataset="other world"))
    reader, text = read(write_report(tmp_path / "report.html", [result, other]))
    links = [address for address in reader.loaded if address.startswith("#")]
    assert links == ["#world", "#other-world"]
    page = (tmp_path / "report.html").read_text()
    assert 'id="world"' in page and 'id="other-world"' in page
    assert text.count("IoU of classes in the ground truth, summed") == 2  # once per convention


def test_a_lost_picture_leaves_a_remark(tmp_path) -> None:
    folder = write_folder(tmp_path / "result")
    (folder / "picture.png").unlink()
    _, text = read(write_report(tmp_path / "report.html", [load_result(folder)]))
    assert "cannot be shown" in text and "picture.png" in text


def test_a_result_without_manifest_or_examples_has_a_page(tmp_path) -> None:
    folder = write_folder(tmp_path / "result", count=1)
    (folder / "manifest.json").unlink()
    _, text = read(write_report(tmp_path / "report.html", [load_result(folder)]))
    assert "Protocol" not in text and "Ranges:" not in text  # one image has no interval
