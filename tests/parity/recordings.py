"""Recordings of the original projects: where they are, what they hold, how closely to match."""

from __future__ import annotations

import importlib
import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

PROJECTS = ("ovseg", "corrclip", "pnp_ovss", "segclip")

TENSOR_TOLERANCE = 1e-4  # of the largest recorded magnitude
TENSOR_FLOOR = 1e-6
LOSS_TOLERANCE = 1e-4
GRADIENT_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-3  # ours: of the largest score, without a floor


@dataclass(frozen=True)
class Recordings:
    """A folder of recordings of one project."""

    folder: Path

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    @cached_property
    def index(self) -> dict[str, Any]:
        return self.read("index.json")

    @cached_property
    def project(self) -> str:
        """Whose recordings they are; folders may have any name, so the index tells."""
        title = self.index.get("about") or self.index.get("title") or "ovseg"
        plain = title.lower().replace("-", "_")
        found = [name for name in PROJECTS if name in plain and name != "ovseg"]
        return found[0] if found else "ovseg"

    @property
    def runners(self) -> ModuleType:
        """The module that knows how the project's cases are replayed."""
        return importlib.import_module(f"tests.parity.runners.{self.project}")

    @property
    def cases(self) -> list[Case]:
        return [Case(name, entry, self) for name, entry in self.index["cases"].items()]


@dataclass(frozen=True)
class Case:
    """One entry of index.json and the arrays recorded for it."""

    name: str
    entry: dict[str, Any]
    recordings: Recordings

    @property
    def kind(self) -> str:
        return self.entry.get("kind", "")

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        path = self.recordings.folder / self.entry.get("file", f"{self.name}.npz")
        if not path.is_file():
            return {}
        with np.load(path) as archive:
            return {key: archive[key] for key in archive.files}

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])

    @property
    def note(self) -> str:
        return self.entry.get("note", "")


def all_recordings() -> list[Recordings]:
    """Those of OVSEG_PARITY_DIR, or the copies of all projects."""
    chosen = os.environ.get("OVSEG_PARITY_DIR")
    return [Recordings(Path(chosen))] if chosen else copies()


def copies() -> list[Recordings]:
    """Those that lie beside the tests."""
    indices = sorted((Path(__file__).parent / "recordings").glob("*/index.json"))
    return [Recordings(index.parent) for index in indices]


def recordings_of(project: str) -> list[Recordings]:
    """Those of one project, among the chosen."""
    return [recordings for recordings in all_recordings() if recordings.project == project]


def assert_matches(
    actual: Tensor, recorded: Tensor | np.ndarray, what: str, *, floor: float = TENSOR_FLOOR
) -> None:
    """Compares with `|a - b| <= 1e-4 * max|b| + floor`."""
    wanted = torch.as_tensor(recorded).double()
    got = actual.detach().cpu().double()
    assert got.shape == wanted.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(wanted.shape)}"
    if not wanted.numel():
        return
    allowed = TENSOR_TOLERANCE * float(wanted.abs().max()) + floor
    error = float((got - wanted).abs().max())
    assert error <= allowed, f"{what}: largest difference {error:.3g}, allowed {allowed:.3g}"


def assert_equal(actual: Tensor, recorded: Tensor | np.ndarray, what: str) -> None:
    wanted = torch.as_tensor(recorded)
    assert torch.equal(actual.detach().cpu().to(wanted.dtype), wanted), f"{what} differs"
