"""Seconds and bytes of a function, and of two ways to the same result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ovseg.utils.memory import return_free_memory

_CLEAR_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """Cost of one run.

    Attributes:
        seconds: best of the repeats.
        peak_bytes: most memory held at a time on top of what was held before; None where the
            system does not tell.
    """

    seconds: float
    peak_bytes: int | None

    def __str__(self) -> str:
        memory = "" if self.peak_bytes is None else f", {self.peak_bytes / 2**20:.0f} MiB"
        return f"{self.seconds * 1e3:.1f} ms{memory}"


@dataclass(frozen=True)
class Comparison:
    """The same result computed in two ways.

    Attributes:
        plain: without the measure.
        saving: with it.
        difference: largest absolute difference of the results; of label maps, pixels that differ.
    """

    plain: Cost
    saving: Cost
    difference: float

    @property
    def speedup(self) -> float:
        """How many times less time the saving way takes."""
        return self.plain.seconds / self.saving.seconds

    @property
    def memory_ratio(self) -> float | None:
        """How many times less memory it takes, where both are known."""
        if self.plain.peak_bytes is None or not self.saving.peak_bytes:
            return None
        return self.plain.peak_bytes / self.saving.peak_bytes

    def text(self) -> str:
        """Times, memory and difference in one line."""
        plain, saving = self.plain, self.saving
        line = f"{plain.seconds * 1e3:.1f} ms -> {saving.seconds * 1e3:.1f} ms"
        line += f"  ({self.speedup:.1f}x faster)"
        if plain.peak_bytes is not None and saving.peak_bytes is not None:
            line += f", {plain.peak_bytes / 2**20:.0f} MiB -> {saving.peak_bytes / 2**20:.0f} MiB"
            ratio = self.memory_ratio
            line += "" if ratio is None else f"  ({ratio:.1f}x less)"
        return f"{line}, largest difference {self.difference:.2g}"

    def record(self) -> dict[str, float | None]:
        """The figures for JSON."""
        return {
            "plain_seconds": self.plain.seconds,
            "saving_seconds": self.saving.seconds,
            "speedup": self.speedup,
            "plain_bytes": self.plain.peak_bytes,
            "saving_bytes": self.saving.peak_bytes,
            "difference": self.difference,
        }


def measure(
    run: Callable[[], Any], *, device: torch.device, repeats: int = 3, warm_up: bool = True
) -> Cost:
    """Time a function and watch its memory, without gradients.

    Args:
        run: the function.
        device: where it computes; on "cuda" memory is torch's, on the CPU the whole process's.
        repeats: timed runs.
        warm_up: run once more before, untimed.

    Returns:
        Its cost.
    """
    with torch.no_grad():
        if warm_up:
            run()
        before = held_bytes(device)
        times = []
        for _ in range(repeats):
            wait_for(device)
            began = time.perf_counter()
            run()
            wait_for(device)
            times.append(time.perf_counter() - began)
        peak = peak_bytes(device)
    return Cost(min(times), None if before is None or peak is None else max(peak - before, 0))


def compare_ways(
    plain: Callable[[], Tensor], saving: Callable[[], Tensor], device: torch.device, repeats: int
) -> Comparison:
    """Compute a result in two ways and measure both.

    Args:
        plain: without the measure.
        saving: with it.
        device: see `measure`.
        repeats: timed runs.

    Returns:
        Their costs and the largest difference of the results.
    """
    with torch.no_grad():
        difference = float((plain().float() - saving().float()).abs().max())
    costs = [measure(run, device=device, repeats=repeats, warm_up=False) for run in (plain, saving)]
    return Comparison(costs[0], costs[1], difference)


def wait_for(device: torch.device) -> None:
    """Wait until a device has computed all that it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def held_bytes(device: torch.device) -> int | None:
    """Bytes held now, without what is free; the peak starts anew from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    return_free_memory()
    try:
        _CLEAR_PEAK.write_text("5", encoding="ascii")  # Linux: forget the largest size so far
        return _status("VmRSS")
    except OSError:
        return None


def peak_bytes(device: torch.device) -> int | None:
    """Most bytes held at a time since `held_bytes`; None where the system does not tell."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return _status("VmHWM")
    except OSError:
        return None


def _status(field: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
