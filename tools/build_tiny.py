"""Rebuild the bundled model from nothing: tinyscapes, a CLIP, a backbone, a MaskFormer, and the
CLIP adapted to pairs that they mine from captions.

Each step is skipped where its result is already in the output folder, and an interrupted step goes
on where it stopped. To install the result as the bundled model, add --install.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.clip_training.trainer import has_fast_bf16
from ovseg.data.catalog import dataset_root
from ovseg.tinyscapes import DEFAULT_COUNTS, write_split
from ovseg.tinyscapes.recipe import (
    CONFIG,
    AdaptationSize,
    adapt_clip,
    export_half,
    train_backbone,
    train_clip,
)
from ovseg.weights import catalogue

REPOSITORY = Path(__file__).resolve().parents[1]
STRICT_STAGE = ("SOLVER.MAX_ITER", "120", "SOLVER.WARMUP_ITERS", "20")
logger = logging.getLogger("ovseg.build_tiny")


def train_net(*arguments: str) -> None:
    """Run tools/train_net.py on the tiny config in a process of its own."""
    script = str(REPOSITORY / "tools" / "train_net.py")
    subprocess.run([sys.executable, script, "--config-file", CONFIG, *arguments], check=True)


def train_maskformer(folder: Path, clip: Path, backbone: Path, seed: int) -> Path:
    """Train the MaskFormer on the seen classes in two stages, going on where one was interrupted.

    Pixels of unseen classes first cost nothing, so that proposals stay general; then they count as
    negatives of every mask, so that masks of seen classes stop at unseen things.

    Returns:
        The output folder of the second stage.
    """
    precision = ["SOLVER.AMP.ENABLED", str(has_fast_bf16()), "SOLVER.AMP.DTYPE", "bfloat16"]
    common = ["SEED", str(seed), "MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", str(clip), *precision]
    first, second = folder / "maskformer", folder / "maskformer_strict"
    start = ["MODEL.WEIGHTS", str(backbone), "MODEL.MASK_FORMER.IGNORED_AS_NEGATIVE", "False"]
    no_evaluation = ["DATASETS.TEST", "()"]
    train_net("--resume", "OUTPUT_DIR", str(first), *common, *start, *no_evaluation)
    start = ["MODEL.WEIGHTS", str(first / "model_final.safetensors"), *STRICT_STAGE]
    train_net("--resume", "OUTPUT_DIR", str(second), *common, *start)
    return second


def main(args: argparse.Namespace) -> None:
    """Data, CLIP, backbone, MaskFormer, export, evaluation."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    began = time.perf_counter()
    folder = args.output.resolve()
    for split, count in DEFAULT_COUNTS.items():
        write_split(dataset_root(), split, count)
    clip = train_clip(folder, seed=args.seed)
    logger.info("CLIP is there after %.0f s", time.perf_counter() - began)
    backbone = train_backbone(folder, clip, seed=args.seed)
    logger.info("The backbone is there after %.0f s", time.perf_counter() - began)
    base = folder / "unadapted.safetensors"
    if not base.exists():
        run = train_maskformer(folder, clip, backbone, args.seed)
        export_half(run, base, seed=args.seed)
    logger.info("%s is there after %.0f s", base, time.perf_counter() - began)
    if args.unadapted:
        return
    result = adapt_clip(folder, base, seed=args.seed, size=AdaptationSize())
    logger.info("%s is there after %.0f s", result, time.perf_counter() - began)
    train_net("--eval-only", "OUTPUT_DIR", str(folder / "eval"), "MODEL.WEIGHTS", str(result))
    if args.install:
        bundled = catalogue.entries()[CONFIG].bundled_path
        shutil.copyfile(result, bundled)
        logger.info("Installed as %s", bundled)
    logger.info("All done after %.0f s", time.perf_counter() - began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--unadapted", action="store_true", help="stop before CLIP is adapted")
    parser.add_argument("--install", action="store_true", help="make it the bundled model")
    main(parser.parse_args())
