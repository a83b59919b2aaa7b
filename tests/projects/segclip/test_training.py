"""Training: two processes against one, killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import ovseg
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.data.loaders import build_train_loader
from ovseg.projects.segclip import settle_config
from ovseg.projects.segclip.build_tiny import build
from ovseg.projects.segclip.make_superpixels import make_superpixels
from ovseg.tinyscapes import write_split
from ovseg.training.loop import train
from ovseg.training.session import seed_all
from ovseg.utils.run_record import AnotherRunError
from tests.helpers import ROOT, run_two_processes

TRAIN = "tools/train_net.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Captioned scenes and their superpixels."""
    root = tmp_path_factory.mktemp("world")
    write_split(root, "train", 16, workers=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(root))
        make_superpixels(load_cfg("segclip_tiny"), root / "store")
        yield root


def options(world, output) -> list[str]:
    settings = {
        "MODEL.WEIGHTS": "",
        "MODEL.SEGCLIP.KL.SUPERPIXELS": world / "store",
        "SOLVER.IMS_PER_BATCH": 4,
        "SOLVER.MAX_ITER": 4,
        "SOLVER.LOG_PERIOD": 1,
        "SOLVER.CHECKPOINT_PERIOD": 2,
        "DATALOADER.NUM_WORKERS": 0,
        "DATASETS.TEST": "()",
        "OUTPUT_DIR": output,
    }
    return [word for key, value in settings.items() for word in (key, str(value))]


def train_here(world, output, *, resume: bool = False) -> None:
    """What tools/train_net.py does, in this process."""
    cfg = load_cfg("segclip_tiny", options(world, output))
    cfg.defrost()
    settle_config(cfg, evaluating=False)
    Path(output).mkdir(exist_ok=True)
    seed_all(cfg.SEED)
    train(cfg, build_model(cfg), resume=resume, make_loader=build_train_loader)


def losses(folder) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {
        line["iteration"]: {k: v for k, v in line.items() if "loss" in k or k == "grad_norm"}
        for line in lines
    }


@pytest.fixture(scope="module")
def whole(world):
    """A run that nothing disturbed."""
    train_here(world, world / "whole")
    return losses(world / "whole")


def test_the_losses_are_three_and_finite(whole):
    assert list(whole) == [0, 1, 2, 3]
    parts = {"loss_contrastive", "loss_superpixel", "loss_reconstruction", "total_loss"}
    assert set(whole[0]) == parts | {"grad_norm"}
    assert all(0 < value < 20 for name, value in whole[0].items() if name in parts)


def test_two_processes_have_the_losses_of_one_with_the_same_batches(world, whole):
    words = ("--config-file", "segclip_tiny", "--num-gpus", "0", *options(world, world / "two"))
    run_two_processes(TRAIN, *words)  # as torchrun starts them
    two = losses(world / "two")
    assert list(two) == list(whole)
    for iteration, wanted in whole.items():
        assert two[iteration] == pytest.approx(wanted, rel=2e-4), iteration


def test_a_run_killed_with_signal_9_resumes_to_the_same_losses(world, whole):
    output = world / "killed"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, TRAIN, "--config-file", "segclip_tiny", *options(world, output)]
    victim = subprocess.Popen(words, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL)
    while victim.poll() is None and not (output / "last_checkpoint").is_file():
        time.sleep(0.02)
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    assert not (output / "model_final.safetensors").exists()
    train_here(world, output, resume=True)
    assert losses(output) == whole


def test_training_without_superpixels_says_how_to_make_them():
    cfg = load_cfg("segclip_tiny", ["MODEL.SEGCLIP.KL.SUPERPIXELS", ""]).clone()
    cfg.defrost()
    with pytest.raises(ValueError, match="make_superpixels --config-file CONFIG"):
        settle_config(cfg, evaluating=False)


@pytest.mark.parametrize("tokens", [False, True])
def test_an_evaluation_looks_for_a_clip_only_where_its_tokens_are_needed(tokens):
    cfg = load_cfg("segclip_tiny", ["MODEL.SEGCLIP.TOKENS_OF_CLIP", str(tokens)]).clone()
    cfg.defrost()
    settle_config(cfg, evaluating=True)
    found = cfg.MODEL.CLIP_ADAPTER.CLIP_WEIGHTS
    assert Path(found).name == ("ovseg_tiny.safetensors" if tokens else "")


def test_gradients_are_not_accumulated_over_parts_of_a_batch():
    cfg = load_cfg("segclip_tiny", ["SOLVER.ACCUMULATION_STEPS", 2]).clone()
    cfg.defrost()
    with pytest.raises(ValueError, match="compares all pairs of a batch"):
        settle_config(cfg, evaluating=False)


def test_the_miniature_is_made_by_one_function_and_segments(world):
    small = ["SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "4", "DATALOADER.NUM_WORKERS", "0"]
    options = {"workers": 1, "threads": 1, "opts": small}
    target = build(world / "miniature", **options)
    first = target.read_bytes()
    assert len(first) < 10e6
    result = ovseg.load(target, config="segclip_tiny", device="cpu").segment(
        ROOT / "demo" / "samples" / "scene_0041.jpg", ["sky", "grass"]
    )
    assert set(result.labels.flatten().tolist()) <= {0, 1}
    assert build(world / "miniature", **options).read_bytes() == first
    with pytest.raises(AnotherRunError, match="seed: 0 -> 5"):
        build(world / "miniature", **options | {"opts": [*small, "SEED", "5"]})
