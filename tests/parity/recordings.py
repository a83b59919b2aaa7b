"""Recordings of the original OVSeg: where they are, what they hold, how closely to match them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

FOLDER = Path(os.environ.get("OVSEG_PARITY_DIR") or Path(__file__).parent / "recordings")

TENSOR_TOLERANCE = 1e-4  # of the largest recorded magnitude
TENSOR_FLOOR = 1e-6
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-3  # ours: of the largest score, without a floor


def read_json(name: str) -> Any:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Case:
    """One entry of index.json and the arrays recorded for it."""

    name: str
    entry: dict[str, Any]

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        path = FOLDER / f"{self.name}.npz"
        if not path.is_file():
            return {}
        with np.load(path) as archive:
            return {key: archive[key] for key in archive.files}

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    @property
    def note(self) -> str:
        return self.entry.get("note", "")


def all_cases() -> list[Case]:
    return [Case(name, entry) for name, entry in read_json("index.json")["cases"].items()]


def assert_matches(actual: Tensor, recorded: Tensor | np.ndarray, what: str) -> None:
    """Compares with `|a - b| <= 1e-4 * max|b| + 1e-6`."""
    wanted = torch.as_tensor(recorded).double()
    got = actual.detach().cpu().double()
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    if not wanted.numel():
        return
    allowed = TENSOR_TOLERANCE * float(wanted.abs().max()) + TENSOR_FLOOR
    error = float((got - wanted).abs().max())
    assert error <= allowed, f"{what}: largest difference {error:.3g}, allowed {allowed:.3g}"


def assert_equal(actual: Tensor, recorded: Tensor | np.ndarray, what: str) -> None:
    wanted = torch.as_tensor(recorded)
    assert torch.equal(actual.detach().cpu().to(wanted.dtype), wanted), f"{what} differs"
