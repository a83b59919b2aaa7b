"""Turns the annotation of ADE20K's challenge into labels of its 150 classes.

Example:
    python datasets/prepare_ade20k.py --root datasets --split val
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.prepare.ade20k import SPLITS, plan_ade20k
from ovseg.data.prepare.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the splits; returns the exit status."""
    return run_command(
        arguments,
        description="Make the labels of ADE20K's 150 classes.",
        splits=tuple(SPLITS),
        plan=plan_ade20k,
    )


if __name__ == "__main__":
    sys.exit(main())
