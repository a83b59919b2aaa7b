from __future__ import annotations

import json

import torch

from ovseg.commands.flags.mine import make_parser
from ovseg.commands.run import run_command
from ovseg.mining.options import settings
from ovseg.mining.records import read_records
from tests.mining.toy_mining import write_world

parse = make_parser("a test").parse_args
QUICK = ("--tagger", "textblob", "--proposals", "grid:2x2", "--shard-size", "4")


def test_it_mines_reports_and_exports(tmp_path, capsys):
    source, output = write_world(tmp_path / "world", count=6), tmp_path / "run"
    words = ["--source", str(source), "--output", str(output), "--captions", "all", *QUICK]
    kinds = ("tsv", "colour-key", "webdataset", "coco")
    words += ["--report", "--export", *kinds, "--max-count", "2", "--random-weights"]

    assert run_command("mine", words) == 0

    printed = capsys.readouterr().out
    records = read_records(output)
    assert len(list((output / "shards").glob("*.parquet"))) == 2
    assert f'"pairs": {len(records)}' in printed
    assert set(records["noun"].to_pylist()) <= {"cat", "dog", "grass", "sky", "tree"}
    assert set(records["proposal_model"].to_pylist()) == {"grid:2x2"}
    assert "<html" in (output / "report.html").read_text()[:200]
    coco = json.loads((output / "coco" / "instances.json").read_text())
    assert 0 < len(coco["annotations"]) <= 2 * len(coco["categories"]) < len(records)
    for kind in ("tsv", "colour-key"):
        lines = (output / kind / "pairs.tsv").read_text().splitlines()
        assert len(lines) == len(coco["annotations"]) + 1
        assert lines[1].startswith("a photo of a ")
    sizes = json.loads((output / "webdataset" / "sizes.json").read_text())
    assert sum(sizes.values()) == len(coco["annotations"])


def test_the_options_reach_the_settings(tmp_path):
    stop_words = tmp_path / "stop.txt"
    stop_words.write_text("photo\nimage")
    words = ["--source", "x.tsv", "--output", "o", "--captions", "2", "--phrases", "--keep-case"]
    words += ["--stop-words", str(stop_words), "--threshold", "0.2", "--margin", "0.01", "--mutual"]
    words += ["--clip", "clip.pt", "--duplicate-iou", "0.9", "--weights", "w.pt"]
    words += ["--precision", "float16", "--labels", "coco_2017_train_stuff_sem_seg"]
    words += ["MODEL.CLIP_ADAPTER.MASK_THR", "0.5"]

    config, choice = settings(parse(words))

    assert (config.captions, config.nouns.phrases, config.nouns.lower) == (2, True, False)
    assert config.nouns.stop_words == ("photo", "image")
    assert (config.matching.threshold, config.matching.margin) == (0.2, 0.01)
    assert config.matching.mutual
    assert (choice.clip, choice.weights, choice.duplicate_iou) == ("clip.pt", "w.pt", 0.9)
    assert (choice.dtype, choice.labels) == (torch.float16, "coco_2017_train_stuff_sem_seg")
    assert choice.opts == ("MODEL.CLIP_ADAPTER.MASK_THR", "0.5")
    _, choice = settings(parse(["--source", "x", "--output", "o", "--random-weights"]))
    assert choice.weights == "random"


def test_a_run_without_any_pair_fails(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"no picture")
    (folder / "a.txt").write_text("a cat")
    words = ["--source", str(folder), "--output", str(tmp_path / "run"), "--random-weights", *QUICK]

    assert run_command("mine", words) == 1

    [line] = (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["kind"] == "picture"
