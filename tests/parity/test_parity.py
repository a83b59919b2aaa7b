"""Every recording of the original OVSeg, replayed.

OVSEG_PARITY_DIR names another folder of recordings to run.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ovseg.evaluation.confusion import scores_in_convention
from tests.parity.recordings import FOLDER, Case, all_cases, read_json
from tests.parity.runners import module_of_state_dict, runner_of

STATE_DICTS = sorted(path.name for path in FOLDER.glob("*state_dict*.json"))
METRICS = sorted(path.name for path in FOLDER.glob("*metrics*.json"))


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_case_matches_its_recording(case: Case, tmp_path: Path) -> None:
    runner = runner_of(case)
    assert runner is not None, f"no runner for the case {case.name!r} with {sorted(case.entry)}"
    runner(case, tmp_path)


@pytest.mark.parametrize("name", STATE_DICTS)
def test_names_and_shapes_are_those_of_the_released_checkpoints(name: str, tmp_path: Path) -> None:
    module = module_of_state_dict(name, tmp_path)
    assert module is not None, f"no module known for {name}"
    shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
    assert shapes == read_json(name)


@pytest.mark.parametrize("name", METRICS)
def test_scores_match_in_both_conventions(name: str) -> None:
    recorded = read_json(name)
    matrix = np.array(recorded["conf_matrix"])
    for convention in ("ovseg", "detectron2"):
        scores = scores_in_convention(
            matrix, recorded["classes"], recorded["evaluation_set"], convention=convention
        )
        for key, value in recorded[f"{convention}_convention"].items():
            if "Boundary" in key or key.startswith("min("):
                continue  # of the boundary IoU, which is not computed here
            wanted = math.nan if value is None else value
            assert scores[key] == pytest.approx(wanted, rel=1e-9, nan_ok=True), key


def test_every_recorded_file_belongs_to_a_case() -> None:
    cases = {case.name for case in all_cases()}
    assert {path.stem for path in FOLDER.glob("*.npz")} <= cases


def test_a_case_of_an_unknown_kind_has_no_runner() -> None:
    assert runner_of(Case("panoptic_default", {"note": ""})) is None
