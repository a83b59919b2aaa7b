"""Turns the label matrices of COCO-Stuff 10k into labels of its 171 classes.

Example:
    python datasets/prepare_coco_stuff_10k.py --root datasets
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.prepare.coco import STUFF_10K_SPLITS, plan_coco_stuff_10k
from ovseg.data.prepare.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Prepares the splits; returns the exit status."""
    return run_command(
        arguments,
        description="Make the labels of COCO-Stuff 10k and gather its pictures by split.",
        splits=STUFF_10K_SPLITS,
        plan=plan_coco_stuff_10k,
    )


if __name__ == "__main__":
    sys.exit(main())
