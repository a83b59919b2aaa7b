"""Draws a small dataset as somebody's own might look, to try docs/your_data.md with.

Example:
    python datasets/prepare_garden.py --folder garden
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.tinyscapes.garden import write_garden


def make_parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Draw pictures, label maps and the two dataset files of a garden."
    )
    parser.add_argument(
        "--folder", type=Path, default=Path("garden"), help="where (default: %(default)s)"
    )
    parser.add_argument("--train", type=int, default=160, help="pictures to train on")
    parser.add_argument("--val", type=int, default=40, help="pictures to measure on")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws the dataset; returns the exit status."""
    options = make_parser().parse_args(arguments)
    folder = write_garden(options.folder, train=options.train, val=options.val)
    print(f"a garden is in {folder}: pictures, labels, train.yaml and val.yaml")
    return 0


if __name__ == "__main__":
    sys.exit(main())
