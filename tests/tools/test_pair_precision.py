from __future__ import annotations

import argparse
import importlib.util

from ovseg.mining.records import write_records
from ovseg.tinyscapes import CLASSES, render_scene
from ovseg.utils.masks import encode_rle
from tests.helpers import ROOT
from tests.mining.mined import make_record


def test_margins_keep_their_digits_and_what_is_not_there_stays_empty(tmp_path, capsys):
    labels = render_scene("train", 3).labels
    present = int(labels[0, 0])
    size = {"height": labels.shape[0], "width": labels.shape[1], "image_id": "3"}
    counts = encode_rle(labels == present)["counts"]
    name = CLASSES[present].name
    rows = [
        make_record(i, i, name, margin=margin, rle_counts=counts, **size)
        for i, margin in enumerate((0.0123, 0.0456))
    ]
    write_records(tmp_path / "part-00000.parquet", rows)
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "pair_precision.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    tool.main(argparse.Namespace(records=tmp_path, split="train"))

    printed = capsys.readouterr().out
    table = [line.split() for line in printed.splitlines()]
    assert ["all", "2", "100.0", "100.0"] in table
    assert ["of", "no", "class", "0"] in table
    assert ["100", "%", "0.0123", "100.0", "100.0", "100.0"] in table
