"""Set methods side by side: scores by one evaluator, what a picture costs, the same scenes.

Takes a list of methods (docs/methods.yaml), each a config with overrides. Evaluates each with
tools/train_net.py --eval-only, measures each in a process of its own, and shows what each makes of
scenes that are drawn by lot. Writes methods.md, methods.jpg and costs.json. What is there already
is kept, costs where no scenes are shown; for other weights take another folder.

examples:
  python tools/compare_methods.py --output output/methods
  python tools/compare_methods.py --output output/full --methods big.yaml --weights random \\
      --datasets --scenes 0 --picture photo.jpg --benchmark ade20k_150
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

import ovseg
from ovseg.benchmark.methods import (
    Method,
    PictureCost,
    cost_table,
    measure_picture,
    read_costs,
    read_methods,
    score_table,
)
from ovseg.evaluation.results import DatasetResult, ResultError, find_results
from ovseg.readers.pictures import read_image
from ovseg.tinyscapes import SAMPLE_SPLIT, render_scene, sample_scenes
from ovseg.utils.command_line import run_parsed
from ovseg.utils.files import atomic_path, write_json
from ovseg.utils.result_files import write_picture
from ovseg.visualization import titled_rows

ROOT = Path(__file__).resolve().parents[1]
DATASETS = ("tinyscapes_val_sem_seg", "tinyscapes_test_sem_seg")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", type=Path, default=ROOT / "docs" / "methods.yaml")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "methods")
    parser.add_argument("--datasets", nargs="*", default=DATASETS, help="to evaluate on; or none")
    parser.add_argument("--weights", help="random, to measure costs without weights")
    parser.add_argument("--scenes", type=int, default=5, help="of tinyscapes, to look at")
    parser.add_argument("--picture", type=Path, help="to measure on (default: the first scene)")
    parser.add_argument("--benchmark", default="tinyscapes", help="classes to ask for")
    parser.add_argument("--repeats", type=int, default=3)
    return parser


def main(args: argparse.Namespace) -> None:
    """Evaluate, measure and look at every method; write the page."""
    methods = read_methods(args.methods)
    tables = {dataset: {} for dataset in args.datasets}
    for method in methods:
        for dataset, table in tables.items():
            table[method.title] = evaluate(method, dataset, args.output)
    scenes = [render_scene(SAMPLE_SPLIT, n).image for n in sample_scenes(max(args.scenes, 1))]
    picture = scenes[0] if args.picture is None else read_image(args.picture)
    costs_file = args.output / "costs.json"
    costs, rows = read_costs(costs_file), {"pictures": scenes[: args.scenes]}
    for method in methods:
        if method.needs_labels or (method.title in costs and not args.scenes):
            continue
        print(method.title, flush=True)
        # A process of its own: peaks of memory are a process's.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            work = pool.submit(look, method, args, picture, scenes[: args.scenes])
            costs[method.title], rows[method.title] = work.result()
        write_json(costs_file, {name: asdict(cost) for name, cost in costs.items()})
    page = [f"{dataset}:\n\n{score_table(table)}" for dataset, table in tables.items()]
    with atomic_path(args.output / "methods.md") as partial:
        partial.write_text("\n\n".join([*page, cost_table(methods, costs), ""]), encoding="utf-8")
    if args.scenes:
        write_picture(args.output / "methods.jpg", titled_rows(rows), quality=75)
    print(args.output / "methods.md")


def evaluate(method: Method, dataset: str, output: Path) -> DatasetResult:
    """The result of a method on a dataset, measured unless it is there."""
    slug = re.sub(r"[^a-z0-9]+", "_", method.title.lower()).strip("_")
    folder = output / slug / dataset
    try:
        return find_results(folder)[dataset]
    except ResultError:
        words = ["--config-file", method.config, "--eval-only"]
        words += method.opts_for(dataset)
        words += ["DATASETS.TEST", f"('{dataset}',)", "OUTPUT_DIR", str(folder)]
        subprocess.run([sys.executable, str(ROOT / "tools" / "train_net.py"), *words], check=True)
        return find_results(folder)[dataset]


def look(
    method: Method, args: argparse.Namespace, picture: np.ndarray, scenes: list[np.ndarray]
) -> tuple[PictureCost, list[np.ndarray]]:
    """The cost of a picture, and overlays of the scenes."""
    predictor = ovseg.load(args.weights, config=method.config, opts=method.opts)
    vocabulary = predictor.benchmark(args.benchmark)
    cost = measure_picture(predictor, picture, vocabulary, repeats=args.repeats)
    return cost, [predictor.segment(s, vocabulary).overlay(legend=False) for s in scenes]


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
