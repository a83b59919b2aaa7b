"""Turns the label maps of COCO-Stuff into those of COCO-Object: 80 things and a background.

Example:
    python datasets/prepare_coco_object.py --root datasets
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.prepare.coco import plan_coco_object
from ovseg.data.prepare.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the splits; returns the exit status."""
    return run_command(
        arguments,
        description="Make the labels of COCO-Object: a background and 80 things.",
        splits=("val2017",),
        plan=plan_coco_object,
    )


if __name__ == "__main__":
    sys.exit(main())
