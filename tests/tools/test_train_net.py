from __future__ import annotations

import importlib.util
import json
import os

import pytest

from ovseg.tinyscapes import write_split
from ovseg.training.session import make_parser
from tests.helpers import ROOT, run_python

SCRIPT = ROOT / "tools" / "train_net.py"
SMALL = (
    *("MODEL.WEIGHTS", "random", "MODEL.SWIN.EMBED_DIM", "16", "MODEL.SWIN.DEPTHS", "[1,1,1,1]"),
    *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "4", "SOLVER.IMS_PER_BATCH", "2"),
    *("MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "predefined", "DATALOADER.NUM_WORKERS", "0"),
    *("MODEL.SWIN.NUM_HEADS", "[1,1,2,2]", "SOLVER.LOG_PERIOD", "1", "SOLVER.MAX_ITER", "2"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_split(root, "train", 4, workers=1)
    write_split(root, "val", 2, workers=1)
    return root


@pytest.fixture
def train_net(world, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(world))
    spec = importlib.util.spec_from_file_location("train_net", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda *words: module.main(make_parser().parse_args([*words]))


def test_it_trains_and_evaluates_from_any_directory(tmp_path, world):
    done = run_python(
        *(str(SCRIPT), "--config", "ovseg_tiny", "--num-gpu", "0", *SMALL, "OUTPUT_DIR", "out"),
        cwd=tmp_path,
        DETECTRON2_DATASETS=str(world),
        PYTHONPATH=os.environ.get("PYTHONPATH", ""),  # without the checkout
    )
    assert done.returncode == 0, done.stderr
    assert "iter: 2/2" in done.stdout and "mIoU" in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"model_final.safetensors", "config.yaml", "log.txt", "metrics.json"} < names
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.json").open()]
    assert "tinyscapes_val_sem_seg/sem_seg/mIoU" in lines[-1]
    manifest = tmp_path / "out" / "inference" / "tinyscapes_val_sem_seg" / "manifest.json"
    assert manifest.is_file()


def test_the_help_text_shows_commands():
    text = make_parser().format_help()
    assert "--eval-only" in text and "torchrun --nproc-per-node" in text and "--resume" in text


def test_evaluation_takes_given_weights_or_the_runs_newest_checkpoint(tmp_path, train_net):
    output = ("OUTPUT_DIR", str(tmp_path))
    common = ("--config-file", "ovseg_tiny", "--num-gpus", "0")
    train_net(*common, *SMALL, "SOLVER.EMA.ENABLED", "True", "DATASETS.TEST", "()", *output)
    assert not (tmp_path / "inference").exists()
    manifest = tmp_path / "inference" / "tinyscapes_val_sem_seg" / "manifest.json"
    scores = []
    for words in (
        ("--resume", *SMALL),
        (*SMALL, "MODEL.WEIGHTS", str(tmp_path / "model_final.safetensors")),
    ):
        train_net(*common, "--eval-only", *words, *output)
        weights = json.loads(manifest.read_text())["weights"]
        assert len(weights["sha256"]) == 64
        metrics = json.loads(manifest.with_name("metrics.json").read_text())
        scores.append((weights["name"], metrics["sem_seg"]))
    # Both hold the averaged weights.
    assert scores[0][0] == "model_0000001.pth" and scores[0][1] == scores[1][1]


def test_evaluation_without_weights_says_what_to_give(tmp_path, train_net):
    words = ("--config-file", "ovseg_tiny", "--eval-only", *SMALL, "MODEL.WEIGHTS", "")
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS: expected the weights to evaluate"):
        train_net(*words, "OUTPUT_DIR", str(tmp_path))
