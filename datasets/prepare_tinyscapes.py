"""Writes the miniature world tinyscapes: pictures, labels, instances and captions as COCO's.

Example:
    python datasets/prepare_tinyscapes.py --root datasets --train 4000 --val 500 --test 1000
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.tinyscapes import DEFAULT_COUNTS, VERSION, write_split


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected a number >= 0, got {text}")
    return value


def make_parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Write the miniature world tinyscapes in COCO's file formats. "
        "An interrupted run goes on where it stopped."
    )
    parser.add_argument(
        "--root",
        type=Path,
        default=Path(os.environ.get("DETECTRON2_DATASETS", "datasets")),
        help="folder of all datasets (default: $DETECTRON2_DATASETS, else datasets)",
    )
    for split, count in DEFAULT_COUNTS.items():
        parser.add_argument(
            f"--{split}", type=_count, default=count, help=f"pictures (default {count}; 0: skip)"
        )
    parser.add_argument("--workers", type=_count, default=os.cpu_count() or 1, help="processes")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the splits; returns the exit status."""
    options = make_parser().parse_args(arguments)
    for split in DEFAULT_COUNTS:
        count = getattr(options, split)
        if count:
            write_split(options.root, split, count, workers=options.workers, progress=True)
    print(f"tinyscapes, version {VERSION}, is in {options.root / 'tinyscapes'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
