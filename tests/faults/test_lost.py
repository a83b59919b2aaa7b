"""A worker or a rank that is killed ends the run soon, with a line that says so."""

from __future__ import annotations

import os
import signal
import time

import pytest

from ovseg.data.loaders import TestLoader, TrainLoader
from ovseg.data.sampling import BatchPlan
from ovseg.utils.command_line import guarded
from tests.helpers import run_python

RECORDS = [{"file_name": str(number)} for number in range(8)]


def die_at_six(record, rng=None):
    if record["file_name"] == "6":
        os.kill(os.getpid(), signal.SIGKILL)
    return {"read": record["file_name"]}


def training():
    plan = BatchPlan(num_records=8, batch_size=2, seed=0)
    loader = TrainLoader(records=RECORDS, mapper=die_at_six, plan=plan, num_workers=2)
    for _ in range(8):
        next(loader)


def evaluation():
    list(TestLoader(records=RECORDS, mapper=die_at_six, num_workers=2))


@pytest.mark.parametrize("work", [training, evaluation])
def test_a_killed_reader_of_data_is_told_with_what_to_do(work, capsys):
    began = time.monotonic()
    assert guarded(work, program="ovseg train") == 1
    assert time.monotonic() - began < 60
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("ovseg train: error: DataLoader worker (pid")
    assert "DATALOADER.NUM_WORKERS" in line and "fault of the program" not in line


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["0", "1"])
def test_a_killed_rank_ends_the_others(victim, tmp_path):
    command = ("-m", "tests.training.toy", "--num-gpus", "2")
    rank = {"KILL_RANK": victim, "KILL_AT": "7"}
    done = run_python(*command, TOY_OUTPUT=str(tmp_path), **rank)
    lines = [line for line in done.stderr.splitlines() if ": error: " in line]
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert lines and all("killed for memory" in line for line in lines), done.stderr
    again = run_python(*command, "--resume", TOY_OUTPUT=str(tmp_path))
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "model_final.safetensors").is_file()
