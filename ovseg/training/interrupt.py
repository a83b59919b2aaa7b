"""Ctrl-C in training: the step is finished and saved before the run ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch

from ovseg.d2.utils import comm
from ovseg.training.distributed import mean_over_ranks

__all__ = ["Interrupt", "TrainingInterrupted"]


class TrainingInterrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C, after its state was saved."""


class Interrupt:
    """Context in which the first Ctrl-C asks to stop after the step and a second stops at once.

    Outside the main thread, where Python handles no signals, nothing changes.
    """

    def __init__(self) -> None:
        self._asked = False
        self._patient = True
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._asked or not self._patient:
            raise KeyboardInterrupt
        self._asked = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Context between steps in which Ctrl-C is not put off."""
        self._patient = False
        try:
            yield
        finally:
            self._patient = True

    def requested(self, device: torch.device) -> bool:
        """Whether a process of the run was asked to stop; all of them call this together."""
        if comm.get_world_size() == 1:
            return self._asked
        asked = torch.tensor(float(self._asked), device=device)
        return mean_over_ranks({"asked": asked})["asked"] > 0
