"""PACL trained by tools/train_net.py: alone, in two processes, killed and resumed."""

from __future__ import annotations

import json
import signal

import pytest
import torch

from ovseg.commands import train
from ovseg.d2.arguments import default_argument_parser
from ovseg.tinyscapes import write_split
from ovseg.training.checkpoint import read_checkpoint
from ovseg.weights.load import read_state_dict
from tests.helpers import ROOT, run_python, run_two_processes

STEPS = 4
SMALL = (
    *("SOLVER.IMS_PER_BATCH", "4", "SOLVER.MAX_ITER", str(STEPS), "SOLVER.LOG_PERIOD", "1"),
    *("SOLVER.CHECKPOINT_PERIOD", "2", "DATALOADER.NUM_WORKERS", "0", "DATASETS.TEST", "()"),
    *("MODEL.WEIGHTS", "", "MODEL.PACL.TEXT_CHUNK", "3", "INPUT.PACL.SIZE", "32"),
    *("SOLVER.BASE_LR", "0.01", "MODEL.PACL.SAME_NOUN", "ignored"),
)
COMMAND = ("--config-file", "pacl_tiny", "--num-gpus", "0")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_split(root, "train", 10, workers=0)
    return root


@pytest.fixture
def train_net(world, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(world))
    return lambda *words: train.run(default_argument_parser().parse_args([*words]))


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    """The output folder of an uninterrupted run in one process."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DETECTRON2_DATASETS", str(world))
        words = (*COMMAND, *SMALL, "OUTPUT_DIR", str(folder))
        train.run(default_argument_parser().parse_args([*words]))
    return folder


def losses(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return {line["iteration"]: line["loss_contrastive"] for line in lines}


def test_training_moves_the_embedder_and_writes_it_alone(whole):
    assert list(losses(whole)) == list(range(STEPS))
    early = read_checkpoint(whole / "model_0000001.pth")["model"]
    state = read_state_dict(whole / "model_final.safetensors")
    assert sum(t.numel() for t in state.values()) == 20_672 + 1 + 32
    assert early.keys() == state.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, early[name]) == (name == "encoder_digest"), name
    assert (whole / "model_final.safetensors").stat().st_size < 100_000


def test_two_processes_have_the_losses_of_one_with_the_same_batch(whole, world, tmp_path):
    words = (*COMMAND, *SMALL, "OUTPUT_DIR", str(tmp_path))
    run_two_processes(
        str(ROOT / "tools" / "train_net.py"),
        *words,
        DETECTRON2_DATASETS=str(world),
        PYTHONPATH=str(ROOT),
    )
    assert losses(tmp_path) == pytest.approx(losses(whole), rel=1e-5)
    ours, theirs = (
        read_state_dict(folder / "model_final.safetensors") for folder in (tmp_path, whole)
    )
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4)


def test_a_killed_run_goes_on_to_the_same_losses_and_weights(whole, world, tmp_path, train_net):
    words = (*COMMAND, *SMALL, "OUTPUT_DIR", str(tmp_path))
    victim = run_python(
        *("-m", "tests.projects.pacl.train_and_die", *words),
        DETECTRON2_DATASETS=str(world),
        DIE_AT="3",
    )
    assert victim.returncode == -signal.SIGKILL, victim.stderr
    assert list(losses(tmp_path)) == [0, 1, 2]  # one step past the checkpoint
    train_net(*words[:4], "--resume", *words[4:])
    assert losses(tmp_path) == losses(whole)
    final = [folder / "model_final.safetensors" for folder in (tmp_path, whole)]
    assert final[0].read_bytes() == final[1].read_bytes()


def test_captions_of_ones_own_are_trained_on(tmp_path, train_net, world):
    pictures = world / "tinyscapes" / "train2017"
    lines = [f"{pictures}/{i:012d}.jpg\ta house on the grass number {i}" for i in range(4)]
    table = tmp_path / "mine.tsv"
    table.write_text("\n".join(["filepath\ttitle", *lines]))
    opts = ("DATASETS.TRAIN", f"('{table}',)", "SOLVER.MAX_ITER", "1")
    train_net(*COMMAND, *SMALL, *opts, "OUTPUT_DIR", str(tmp_path / "out"))
    assert list(losses(tmp_path / "out")) == [0]
