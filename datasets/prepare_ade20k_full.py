"""Turns the annotation of the full ADE20K into labels of 847 classes.

Example:
    python datasets/prepare_ade20k_full.py --root datasets
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.prepare.ade20k import FULL_SPLITS, plan_ade20k_full
from ovseg.data.prepare.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the splits; returns the exit status."""
    return run_command(
        arguments,
        description="Make the pictures and labels of ADE20K's 847 classes.",
        splits=tuple(FULL_SPLITS),
        plan=plan_ade20k_full,
    )


if __name__ == "__main__":
    sys.exit(main())
