"""`make faults`: kill runs at moments spread over their length; each must end as one that was not.

Every kill hits the run and its workers, or the run alone, in turn. It is then started again until
it is done, and its result compared with that of a run that nothing happened to.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults.scenarios import SCENARIOS, Scenario
from tests.helpers import ROOT


def start(scenario: Scenario, inputs: Path, output: Path, *, again: bool) -> subprocess.Popen:
    """Start the run in a session of its own; what it says goes into a file beside the output."""
    words = list(scenario.command(inputs, output))
    if again:
        words[4:4] = scenario.resume  # after `python -m ovseg COMMAND`
    environment = {
        **os.environ,
        "DETECTRON2_DATASETS": str(inputs),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    with output.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(
            words, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def finish(scenario: Scenario, inputs: Path, output: Path, *, again: bool) -> float:
    """Run to the end; returns the seconds."""
    began = time.monotonic()
    status = start(scenario, inputs, output, again=again).wait()
    if status:
        text = output.with_suffix(".log").read_text(errors="replace")
        raise RuntimeError(f"{scenario.name}: status {status}\n{text[-3000:]}")
    return time.monotonic() - began


def kill_once(
    scenario: Scenario, inputs: Path, output: Path, moment: float, *, whole_group: bool
) -> bool:
    """Start a run and kill it after some seconds; tells whether it was still running."""
    run = start(scenario, inputs, output, again=False)
    try:
        run.wait(moment)
        return False
    except subprocess.TimeoutExpired:
        (os.killpg if whole_group else os.kill)(run.pid, signal.SIGKILL)
        run.wait()
        return True


def try_scenario(scenario: Scenario, kills: int, rng: random.Random, folder: Path) -> list[str]:
    """Kill the runs of a scenario; returns what went wrong."""
    inputs, whole = folder / "inputs", folder / "whole"
    inputs.mkdir(parents=True)
    scenario.prepare(inputs)
    seconds = finish(scenario, inputs, whole, again=False)
    expected = scenario.digest(whole)
    wrong = []
    for number in range(kills):
        output = folder / f"killed_{number}"
        # One moment in each of equal parts of the run: early ones are as frequent as late ones.
        moment = seconds * (number + rng.random()) / kills
        hit = kill_once(scenario, inputs, output, moment, whole_group=number % 2 == 0)
        try:
            finish(scenario, inputs, output, again=True)
            equal = scenario.digest(output) == expected
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            equal = False
            print(error, file=sys.stderr)
        state = "killed" if hit else "had ended"
        outcome = "equal" if equal else "DIFFERENT"
        print(f"{scenario.name} {number + 1}/{kills}: {state} after {moment:.1f} s, {outcome}")
        sys.stdout.flush()
        if not equal:
            wrong.append(str(output))
            continue
        shutil.rmtree(output, ignore_errors=True)
    return wrong


def main(words: Sequence[str] | None = None) -> int:
    """Kill and compare; the status is 1 where a result differs."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kills", description=__doc__)
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--kills", type=int, default=22, help="of each scenario")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    args = parser.parse_args(words)
    folder = Path(tempfile.mkdtemp(prefix="ovseg_faults_"))
    wrong: list[str] = []
    for scenario in SCENARIOS:
        if scenario.name in args.only:
            rng = random.Random(f"{args.seed} {scenario.name}")
            place = folder / scenario.name.replace(" ", "_")
            wrong += try_scenario(scenario, args.kills, rng, place)
    print(f"{args.kills * len(args.only)} kills, {len(wrong)} different results")
    if wrong:
        print("\n".join(wrong))
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
