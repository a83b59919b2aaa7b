from __future__ import annotations

import pytest

from tests.faults.kills import main
from tests.faults.scenarios import SCENARIOS


def test_a_killed_preparation_ends_as_one_that_was_not(capsys):
    assert main(["--kills", "2", "--only", "preparation"]) == 0
    told = capsys.readouterr().out
    assert "2 kills, 0 different results" in told and "killed after" in told


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [s.name for s in SCENARIOS if s.name != "preparation"])
def test_a_killed_run_ends_as_one_that_was_not(scenario):
    assert main(["--kills", "2", "--only", scenario]) == 0
