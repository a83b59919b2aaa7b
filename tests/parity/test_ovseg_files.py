"""What upstream OVSeg's recordings hold besides cases: names and shapes, and scores."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from ovseg.evaluation.confusion import scores_in_convention
from tests.parity.recordings import Recordings, recordings_of
from tests.parity.runners.ovseg import module_of_state_dict


def files(pattern: str) -> list[object]:
    return [
        pytest.param(recordings, path.name, id=path.name)
        for recordings in recordings_of("ovseg")
        for path in sorted(recordings.folder.glob(pattern))
    ]


@pytest.mark.parametrize(("recordings", "name"), files("*state_dict*.json"))
def test_names_and_shapes_are_those_of_the_released_checkpoints(
    recordings: Recordings, name: str, tmp_path: Path
) -> None:
    module = module_of_state_dict(recordings, name, tmp_path)
    assert module is not None, f"no module known for {name}"
    shapes = {key: list(value.shape) for key, value in module.state_dict().items()}
    assert shapes == recordings.read(name)


@pytest.mark.parametrize(("recordings", "name"), files("*metrics*.json"))
def test_scores_match_in_both_conventions(recordings: Recordings, name: str) -> None:
    recorded = recordings.read(name)
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
