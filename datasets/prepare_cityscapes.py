"""Makes the labels of Cityscapes' 19 classes beside its own label maps.

Example:
    python datasets/prepare_cityscapes.py --root datasets --split val --workers 8
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.data.prepare.cityscapes import SPLITS, plan
from ovseg.data.prepare.command import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run_command(
        arguments,
        description="Make the labels of Cityscapes' 19 classes.",
        splits=SPLITS,
        plan=plan,
    )


if __name__ == "__main__":
    sys.exit(main())
