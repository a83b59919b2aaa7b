"""Measure the paper's ablations in miniature, on tinyscapes: a table and a picture.

Every seed needs a model that was trained from nothing with it; missing ones are made as
`tools/build_tiny.py --seed N --quick --unadapted` makes them. Models, mining and rows run side by
side in worker processes. What is finished is kept, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.tinyscapes.ablation import ROWS, AblationSize
from ovseg.tinyscapes.ablation_report import write_ablation
from ovseg.tinyscapes.ablation_run import Ablation, run_ablation
from ovseg.tinyscapes.recipe import QUICK, Recipe
from ovseg.utils.command_line import run_parsed

REPOSITORY = Path(__file__).resolve().parents[1]


def base_model(folder: Path, seed: int) -> Path:
    """Train the model of one seed on the quick schedule, or find it."""
    weights = Recipe(folder, seed, QUICK).weights_of("base")
    if not weights.exists():
        script = REPOSITORY / "tools" / "build_tiny.py"
        options = ["--output", str(folder), "--seed", str(seed), "--quick", "--unadapted"]
        subprocess.run([sys.executable, str(script), *options], check=True)
    return weights


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    sizes = AblationSize()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "ablation")
    parser.add_argument(
        "--report",
        type=Path,
        default=REPOSITORY / "output" / "ablation",
        help="folder of ablation.md and ablation.svg",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--rows",
        nargs="+",
        default=[],
        choices=[row.name for row in ROWS],
        help="some rows only; those that they start from are run, too",
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=min(4, os.cpu_count() or 1),
        help="processes, with an equal share of the cores and about 4 GB each",
    )
    parser.add_argument("--pictures", type=int, default=sizes.pictures)
    parser.add_argument("--steps", type=int, default=sizes.steps, help="of every row that trains")
    parser.add_argument("--val", type=int, default=sizes.val, help="scenes of val")
    parser.add_argument("--test", type=int, default=sizes.test, help="scenes of test")
    return parser


def main(args: argparse.Namespace) -> None:
    """Jobs, report."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    size = AblationSize(pictures=args.pictures, steps=args.steps, val=args.val, test=args.test)
    rows = [row for row in ROWS if not args.rows or row.name in args.rows]
    ablation = Ablation(args.output.resolve(), size, base_model)
    results = run_ablation(ablation, args.seeds, rows=rows, workers=args.workers)
    page = write_ablation(results, args.report)
    print(page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
