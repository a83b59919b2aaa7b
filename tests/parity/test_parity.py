"""Every recording of the original projects, replayed.

OVSEG_PARITY_DIR names another folder of recordings to run.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.parity.recordings import Case, Recordings, all_recordings, copies

ALL = all_recordings()
CASES = [case for recordings in ALL for case in recordings.cases]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.recordings.project}-{case.name}")
def test_case_matches_its_recording(case: Case, tmp_path: Path) -> None:
    runner = case.recordings.runners.runner_of(case)
    assert runner is not None, f"no runner for the case {case.name!r} with {sorted(case.entry)}"
    runner(case, tmp_path)


@pytest.mark.parametrize("recordings", ALL, ids=lambda recordings: recordings.project)
def test_every_recorded_file_belongs_to_a_case(recordings: Recordings) -> None:
    files = {case.entry.get("file", f"{case.name}.npz") for case in recordings.cases}
    assert {path.name for path in recordings.folder.glob("*.npz")} <= files


@pytest.mark.parametrize("recordings", ALL, ids=lambda recordings: recordings.project)
def test_a_case_of_an_unknown_kind_has_no_runner(recordings: Recordings) -> None:
    unknown = Case("panoptic_default", {"kind": "panoptic", "note": ""}, recordings)
    assert recordings.runners.runner_of(unknown) is None


def test_the_copies_are_those_of_the_project_they_are_filed_under() -> None:
    assert [copy.project for copy in copies()] == [copy.folder.name for copy in copies()]
