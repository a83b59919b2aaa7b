from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from ovseg.tuning.report import text_tables, write_tuning
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY
from ovseg.tuning.tune import Grid, TunedSetting, Tuning

GRID = Grid((MASK_CLASSIFIER_ONLY, 0.5, CLIP_ONLY), (0.4, 0.5), ("vild",))
VALUES = (10.0, 20.5, 15.0, 10.0, 30.25, math.nan)


@pytest.fixture
def tuning():
    results = tuple(
        TunedSetting(*setting, {"mIoU": value, "mIoU-gt": value + 1})
        for setting, value in zip(GRID, VALUES, strict=True)
    )
    seconds = {"filling the cache": 3.0, "sweep": 1.0, "total": 4.0}
    return Tuning("toy_val", "validation", "mIoU", GRID, results, 7, {}, seconds)


def test_the_text_marks_the_best_and_says_how_to_set_it(tuning):
    lines = text_tables(tuning).splitlines()
    assert lines[2].split() == ["mask", "0.5", "CLIP"]
    assert lines[3].split() == ["0.4", "10.00", "20.50", "15.00"]
    assert lines[4].split() == ["0.5", "10.00", "30.25*", "-"]
    text = "\n".join(lines)
    assert "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT 0.5 MODEL.CLIP_ADAPTER.MASK_THR 0.5" in text
    assert f"MODEL.CLIP_ADAPTER.TEXT_TEMPLATES vild TEST.TUNED_ON '{tuning.origin}'" in text
    assert "6 settings on 7 images" in text and "sweep 1.0 s" in text


def test_the_record_is_plain_json_with_settings_and_manifest(tuning, tmp_path):
    write_tuning(tmp_path, tuning, {"weights": {"name": "<w>"}})
    record = json.loads((tmp_path / "tuning.json").read_text())
    assert record["best"]["weight"] == 0.5 and record["best"]["threshold"] == 0.5
    assert record["best"]["options"][-3:] == ["vild", "TEST.TUNED_ON", tuning.origin]
    assert [s["scores"]["mIoU"] for s in record["settings"]] == [*VALUES[:-1], None]
    assert not record["tuned_on_test_split"] and record["manifest"]["weights"]["name"] == "<w>"


def test_the_page_is_a_map_that_escapes_and_stays_offline(tuning, tmp_path):
    page = write_tuning(tmp_path, tuning, {"weights": "<script>"}).read_text()
    assert page.count("<td") - page.count('class="best"') >= 5 and page.count('class="best"') == 1
    assert 'style="background: rgb(33, 94, 168); color: #fff">30.25</td>' in page
    assert 'style="background: rgb(247, 250, 255); color: #1c2330">10.00</td>' in page
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "http" not in page.split("<body>")[1] and 'class="warning"' not in page


def test_a_result_from_a_test_split_says_so_everywhere(tuning, tmp_path):
    cheated = replace(tuning, role="test")
    page = write_tuning(tmp_path, cheated, {}).read_text()
    record = json.loads((tmp_path / "tuning.json").read_text())
    assert 'class="warning"' in page and record["tuned_on_test_split"]
    for text in (page, record["origin"], text_tables(cheated)):
        assert "--i-know-this-is-the-test-split" in text
