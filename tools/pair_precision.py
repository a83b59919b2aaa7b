"""Hold pairs mined from tinyscapes against the truth that its generator knows.

A pair is right if the noun's class has more pixels in the region than any other class. The curve
shows what remains, and how precise it is, when pairs with a small lead over the runner-up go.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.mining.records import read_records
from ovseg.tinyscapes import SPLITS
from ovseg.tinyscapes.pair_precision import judge_pairs, precision_curve, precision_table
from ovseg.utils.command_line import run_parsed


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("records", type=Path, help="output folder of tools/mine_captions.py")
    parser.add_argument("--split", choices=SPLITS, default="train", help="of the mined scenes")
    return parser


def main(args: argparse.Namespace) -> None:
    """Two tables on the screen."""
    judged = judge_pairs(read_records(args.records), split=args.split)
    header = ("noun names", "pairs", "right, %", "mean IoU, %")
    print(tabulate(_plain(precision_table(judged)), headers=header, floatfmt=".1f"))
    curve = precision_curve(judged)
    kinds = [kind for kind in curve[0][2] if kind != "of no class"] if curve else []
    rows = [
        (f"{100 * share:.0f} %", margin, *(precision[kind] for kind in kinds))
        for share, margin, precision in curve
    ]
    print()
    formats = ("", ".4f", *(".1f" for _ in kinds))
    print(tabulate(_plain(rows), headers=("pairs kept", "least margin", *kinds), floatfmt=formats))


def _plain(rows: Iterable[Iterable[str | float]]) -> list[list[str | float | None]]:
    """Leave cells without a figure empty."""
    return [[None if cell != cell else cell for cell in row] for row in rows]


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
