from __future__ import annotations

import importlib
import json

import pytest

from ovseg.benchmark.methods import Method, read_methods
from ovseg.config import load_cfg
from ovseg.d2.methods import known_methods
from ovseg.tinyscapes import write_split
from tests.helpers import ROOT, run_python

LIST = """
- title: OVSeg
  config: ovseg_tiny
  trained_on: masks | captions
- title: OVSeg, two proposals
  config: ovseg_tiny
  opts: [MODEL.MASK_FORMER.NUM_OBJECT_QUERIES, 2]
"""


def test_a_list_of_methods_is_read_with_its_overrides(tmp_path):
    file = tmp_path / "methods.yaml"
    file.write_text(LIST)
    first, second = read_methods(file)
    assert first == Method(title="OVSeg", config="ovseg_tiny", trained_on="masks | captions")
    assert second.opts == ("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "2")
    on_labels = Method(title="x", config="y", opts=("KEY", "DATASET"), needs_labels=True)
    assert on_labels.opts_for("garden") == ["KEY", "garden"]


def test_the_shipped_list_names_configs_that_are_there():
    for method in read_methods(ROOT / "docs" / "methods.yaml"):
        cfg = load_cfg(method.config, method.opts_for("tinyscapes_val_sem_seg"))
        assert cfg.MODEL.META_ARCHITECTURE in known_methods()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("title: a", "line 0: expected a mapping with title and config"),
        ("- {title: a, config: b, weights: c}", "nothing but title, config, opts"),
        ("- {title: a, config: b}\n- {title: a, config: c}", "got twice: a"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path, text, message):
    file = tmp_path / "methods.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_methods(file)


def test_methods_are_evaluated_measured_and_shown_and_results_are_kept(tmp_path, monkeypatch):
    (tmp_path / "methods.yaml").write_text(LIST)
    write_split(tmp_path / "data", "val", 2, workers=0)
    words = ["tools/compare_methods.py", "--methods", str(tmp_path / "methods.yaml")]
    words += ["--output", str(tmp_path / "out"), "--datasets", "tinyscapes_val_sem_seg"]
    words += ["--scenes", "1", "--repeats", "1"]
    run = run_python(*words, DETECTRON2_DATASETS=str(tmp_path / "data"))
    assert run.returncode == 0, run.stderr
    page = (tmp_path / "out" / "methods.md").read_text()
    scores = [line for line in page.splitlines() if line.startswith("| OVSeg")]
    assert len(scores) == 4 and "seen things" in page
    assert "| masks \\| captions |" in page
    full, two = (float(line.split("|")[2].split()[0]) for line in scores[:2])
    assert full > two > 0
    costs = json.loads((tmp_path / "out" / "costs.json").read_text())
    assert costs.keys() == {"OVSeg", "OVSeg, two proposals"}
    assert all(cost[stage]["seconds"] > 0 for cost in costs.values() for stage in cost)
    assert (tmp_path / "out" / "methods.jpg").stat().st_size > 10_000

    monkeypatch.syspath_prepend(ROOT / "tools")
    tool = importlib.import_module("compare_methods")
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: pytest.fail("evaluated again"))
    for method in read_methods(tmp_path / "methods.yaml"):
        kept = tool.evaluate(method, "tinyscapes_val_sem_seg", tmp_path / "out")
        assert f"{kept.scores['mIoU']:.1f} [" in page

    monkeypatch.setattr(tool, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("measured again"))
    tool.main(tool.make_parser().parse_args([*words[1:5], "--datasets", "--scenes", "0"]))
    assert (tmp_path / "out" / "methods.md").read_text().strip() == page.strip().split("\n\n")[-1]
