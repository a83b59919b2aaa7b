"""What there is to be done for one split of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg.data.prepare.pipeline import Convert, Task

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """What one split of a dataset takes.

    Args:
        tasks: the files.
        convert: makes their labels.
        report: file for the figures and for the reasons of files quarantined.
    """

    tasks: Sequence[Task]
    convert: Convert
    report: Path
