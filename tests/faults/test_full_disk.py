"""A disk that is full ends a run with a line that names the file; with room it goes on.

The limit of the system on the size of a file stands in for the disk.
"""

from __future__ import annotations

import functools
import resource
import subprocess
from dataclasses import replace

import pytest

from tests.faults import kills
from tests.faults.scenarios import SCENARIOS

# Bytes at which a file of each command is cut off, and not the first that it writes.
ROOM = {
    "preparation": 100_000,
    "training": 1_000_000,
    "training of a CLIP": 1_000_000,
    "mining": 5_000,
    "evaluation": 30_000,
}


def bounded(room: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


def in_one_process(words: tuple[str, ...]) -> tuple[str, ...]:
    """A worker hands pictures over in shared memory, which the limit would cut off as well."""
    found = [n for n, word in enumerate(words, start=1) if word == "DATALOADER.NUM_WORKERS"]
    return tuple("0" if n in found else word for n, word in enumerate(words))


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario", [one for one in SCENARIOS if one.name in ROOM], ids=lambda one: one.name
)
def test_a_full_disk_is_told_and_the_run_goes_on_when_there_is_room(
    scenario, tmp_path, monkeypatch
):
    asked = scenario.command
    scenario = replace(scenario, command=lambda *given: in_one_process(asked(*given)))
    inputs, output, whole = (tmp_path / name for name in ("inputs", "output", "whole"))
    inputs.mkdir()
    scenario.prepare(inputs)
    with monkeypatch.context() as patch:
        limit = functools.partial(bounded, ROOM[scenario.name])
        patch.setattr(subprocess, "Popen", functools.partial(subprocess.Popen, preexec_fn=limit))
        status = kills.start(scenario, inputs, output, again=False).wait(600)
    told = output.with_suffix(".log").read_text()
    errors = [line for line in told.splitlines() if ": error: " in line]
    assert status == 1 and "Traceback" not in told, told[-3000:]
    assert len(errors) == 1 and "File too large" in errors[0] and str(output) in errors[0]
    assert not list(output.rglob(".*.part*"))
    kills.finish(scenario, inputs, output, again=True)
    kills.finish(scenario, inputs, whole, again=False)
    assert scenario.digest(output) == scenario.digest(whole)
