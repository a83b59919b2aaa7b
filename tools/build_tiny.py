"""Rebuild the bundled model from nothing: tinyscapes, a CLIP, a mask generator, and the CLIP
adapted to the pairs that they mine from captions.

Stages that do not need each other run side by side, one thread each, so that the result does not
depend on the number of cores. Each is skipped where its result is already in the output folder, and
an interrupted one goes on where it stopped. To install the result as the bundled model, add
--install.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

import torch

from ovseg.data.catalog import register_builtin
from ovseg.tinyscapes.recipe import CONFIG, FULL, QUICK, Recipe, train_net
from ovseg.utils.command_line import run_parsed
from ovseg.utils.processes import exit_with_parent, run_in_dependency_order
from ovseg.weights import catalogue

REPOSITORY = Path(__file__).resolve().parents[1]
THREADS = 1  # sums depend on their number
logger = logging.getLogger("ovseg.build_tiny")


def start_worker() -> None:
    """Prepare a process that runs stages, and the scripts that it starts."""
    exit_with_parent()
    register_builtin()
    torch.set_num_threads(THREADS)
    os.environ["OMP_NUM_THREADS"] = str(THREADS)
    start_logging()


def start_logging() -> None:
    """Tell which process says what, and when."""
    form = "[%(asctime)s %(processName)s] %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, datefmt="%H:%M:%S")


def main(args: argparse.Namespace) -> None:
    """All stages, evaluation, installation."""
    start_logging()
    schedule = replace(QUICK if args.quick else FULL, **({"rounds": 0} if args.unadapted else {}))
    recipe = Recipe(args.output.resolve(), args.seed, schedule, workers=args.workers)
    began = time.perf_counter()
    pool = ProcessPoolExecutor(
        args.workers, mp_context=multiprocessing.get_context("spawn"), initializer=start_worker
    )
    try:
        for stage, _ in run_in_dependency_order(pool, recipe.run, schedule.stages):
            logger.info("%s is there after %.1f min", stage, (time.perf_counter() - began) / 60)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    if args.unadapted:
        return
    result = recipe.weights_of(schedule.last)
    evaluation = str(recipe.folder / "eval")
    train_net("--eval-only", "OUTPUT_DIR", evaluation, "MODEL.WEIGHTS", str(result))
    if args.install:
        bundled = catalogue.entries()[CONFIG].bundled_path
        shutil.copyfile(result, bundled)
        catalogue.record_checksums()
        logger.info("Installed as %s", bundled)
    logger.info("All done after %.1f min", (time.perf_counter() - began) / 60)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a fraction of the time, for a loss")
    parser.add_argument("--workers", type=int, default=2, help="processes side by side")
    parser.add_argument("--unadapted", action="store_true", help="stop before CLIP is adapted")
    parser.add_argument("--install", action="store_true", help="make it the bundled model")
    return parser


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
