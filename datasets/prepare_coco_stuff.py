"""Turns the label maps of COCO-Stuff into labels of its 171 classes.

Example:
    python datasets/prepare_coco_stuff.py --root datasets --split val2017
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.prepare.coco import plan_coco_stuff
from ovseg.data.prepare.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the splits; returns the exit status."""
    return run_command(
        arguments,
        description="Make the labels of COCO-Stuff's 171 classes.",
        splits=("train2017", "val2017"),
        plan=plan_coco_stuff,
    )


if __name__ == "__main__":
    sys.exit(main())
