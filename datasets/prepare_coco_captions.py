"""Checks the captions of COCO against its pictures; they are used as they are.

Example:
    python datasets/prepare_coco_captions.py --root datasets --split train2017
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ovseg.data.catalog import dataset_root
from ovseg.data.prepare.coco_captions import check_coco_captions
from ovseg.data.prepare.pipeline import PreparationError

SPLITS = ("train2017", "val2017")


def make_parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(description="Check the captions and pictures of COCO.")
    parser.add_argument(
        "--root",
        type=dataset_root,
        default=dataset_root(),
        help="folder of all datasets (default: $DETECTRON2_DATASETS, else datasets)",
    )
    parser.add_argument("--split", nargs="+", choices=SPLITS, help="default: both")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the splits; returns the exit status."""
    options = make_parser().parse_args(arguments)
    status = 0
    for split in options.split or SPLITS:
        try:
            check = check_coco_captions(options.root, split)
        except PreparationError as error:
            print(f"{split}: {error}", file=sys.stderr)
            return 1
        print(f"{split}: {check.images} pictures, {check.captions} captions")
        for complaint in check.complaints:
            print(f"{split}: {complaint}", file=sys.stderr)
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
