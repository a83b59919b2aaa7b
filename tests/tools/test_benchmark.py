from __future__ import annotations

import json

from ovseg.commands.benchmark import main
from ovseg.commands.flags.benchmark import make_parser

OPTS = (
    *("MODEL.DEVICE", "cpu", "MODEL.SWIN.EMBED_DIM", "16", "MODEL.SWIN.DEPTHS", "[1,1,1,1]"),
    *("MODEL.SWIN.NUM_HEADS", "[1,1,2,2]", "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "4"),
    *("MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "predefined"),
)


def test_it_prints_and_writes_stages_and_ratios(tmp_path, capsys):
    path = tmp_path / "cost.json"
    words = ["--size", "64", "96", "--benchmark", "pascal_voc_20", "--repeats", "1", "--texts", "8"]
    figures = main(make_parser("benchmark").parse_args([*words, "--output", str(path), *OPTS]))
    printed = capsys.readouterr().out
    assert "64 x 96, 20 classes" in printed and "backbone" in printed
    assert "77 tokens -> up to the end of text" in printed
    written = json.loads(path.read_text())
    assert written["stages"] == figures["stages"]
    assert written["labels"]["difference"] == 0 and written["text"]["difference"] < 1e-4
    assert written["labels"]["plain_rows"] == 64 and written["evaluation"]["seconds"] > 0
    assert "evaluating the image" in printed
    assert written["environment"]["packages"]["torch"]
