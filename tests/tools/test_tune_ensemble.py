from __future__ import annotations

import json

import pytest

from ovseg.commands.flags.tune import make_parser
from ovseg.commands.tune import main
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.tinyscapes import write_split
from ovseg.utils.command_line import UsageError


@pytest.fixture
def tool(tmp_path, monkeypatch):
    before, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for split in ("val", "test"):
        write_split(tmp_path, split, 2, workers=0)
    yield lambda *words: main(make_parser("tune").parse_args([*words]))
    for catalogue, old in ((DatasetCatalog, before), (MetadataCatalog, metadata)):
        catalogue.data.clear()
        catalogue.data.update(old)


SMALL = (
    "--ensemble-weights",
    "mask,0.6,0.4/0.9,0",
    "--thresholds",
    "0.4",
    "--templates",
    "predefined",
)


def test_it_prints_the_table_and_leaves_page_record_and_manifest(tool, tmp_path, capsys):
    words = ["--dataset", "tinyscapes_val_sem_seg", *SMALL, "OUTPUT_DIR", str(tmp_path / "out")]
    tuning = tool(*words)
    printed = capsys.readouterr().out
    assert (
        "mIoU, templates predefined" in printed
        and "0.4/0.9" in printed
        and "tuning.html" in printed
    )
    assert f"{tuning.best.scores['mIoU']:.2f}*" in printed
    folder = tmp_path / "out" / "tuning" / "tinyscapes_val_sem_seg"
    record = json.loads((folder / "tuning.json").read_text())
    assert [s["weight"] for s in record["settings"]] == [
        *("mask classifier only", 0.6, [0.4, 0.9], "CLIP only")
    ]
    manifest = record["manifest"]
    assert manifest["weights"]["name"] == "ovseg_tiny" and manifest["hashes"]["templates"]
    assert manifest["remarks"] == [tuning.origin] and not record["tuned_on_test_split"]
    assert (folder / "tuning.html").is_file()


def test_a_test_split_takes_the_flag_and_the_flag_stays(tool, tmp_path):
    words = ["--dataset", "tinyscapes_test_sem_seg", *SMALL]
    options = ["OUTPUT_DIR", str(tmp_path / "out")]
    with pytest.raises(UsageError, match="i-know-this-is-the-test-split"):
        tool(*words, *options)
    tool(*words, "--i-know-this-is-the-test-split", *options)
    path = tmp_path / "out" / "tuning" / "tinyscapes_test_sem_seg" / "tuning.json"
    record = json.loads(path.read_text())
    assert record["tuned_on_test_split"]
    assert "--i-know-this-is-the-test-split" in record["manifest"]["remarks"][0]
