"""Rebuild the bundled model from nothing: tinyscapes, a CLIP, a MaskFormer, one weight file.

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

import torch

from ovseg import hub
from ovseg.clip import build_clip
from ovseg.config import load_cfg
from ovseg.data.catalog import dataset_root
from ovseg.data.tinyscapes import DEFAULT_COUNTS, render_pair, world_version, write_split
from ovseg.engine.checkpoint import averaged_state, latest_checkpoint, read_checkpoint
from ovseg.engine.clip_pretraining import PretrainConfig, has_fast_bf16, pretrain_clip
from ovseg.engine.crop_accuracy import tiny_crop_accuracy
from ovseg.utils.weights import write_safetensors

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = "ovseg_tiny"
logger = logging.getLogger("ovseg.build_tiny")


def train_clip(folder: Path, config: PretrainConfig) -> Path:
    """Pretrain the small CLIP; returns its weight file."""
    target = folder / "clip.safetensors"
    if not target.exists():
        adapter = load_cfg(CONFIG).MODEL.CLIP_ADAPTER
        torch.manual_seed(config.seed)
        clip = build_clip(adapter.CLIP_MODEL_NAME, mask_prompt_depth=adapter.MASK_PROMPT_DEPTH)
        pretrain_clip(
            clip,
            render_pair,
            config=config,
            output_dir=folder / "clip",
            evaluate=tiny_crop_accuracy,
        )
        write_safetensors(target, clip.state_dict(), metadata={"world": world_version()})
    return target


def train_net(*arguments: str) -> None:
    """Run tools/train_net.py on the tiny config in a process of its own."""
    script = str(REPOSITORY / "tools" / "train_net.py")
    subprocess.run([sys.executable, script, "--config-file", CONFIG, *arguments], check=True)


def export(run: Path, target: Path, seed: int) -> None:
    """Write the last checkpoint of a run in half precision, the form that is bundled."""
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        raise FileNotFoundError(f"{run}: expected a checkpoint of the training run, found none")
    state = averaged_state(read_checkpoint(checkpoint))
    half = {
        name: value.half() if value.is_floating_point() else value for name, value in state.items()
    }
    metadata = {"world": world_version(), "seed": str(seed), "license": "Apache-2.0"}
    write_safetensors(target, half, metadata=metadata)


def main(args: argparse.Namespace) -> None:
    """Data, CLIP, MaskFormer, export, evaluation."""
    logging.basicConfig(level=logging.INFO, format="[%(asctime)s] %(message)s", datefmt="%H:%M:%S")
    began = time.perf_counter()
    folder = args.output.resolve()
    for split, count in DEFAULT_COUNTS.items():
        write_split(dataset_root(), split, count)
    clip = train_clip(folder, PretrainConfig(seed=args.seed))
    logger.info("CLIP is there after %.0f s", time.perf_counter() - began)
    run, result = folder / "maskformer", folder / "ovseg_tiny.safetensors"
    overrides = ["OUTPUT_DIR", str(run), "SEED", str(args.seed)]
    if not result.exists():
        start = ["MODEL.WEIGHTS", "", "MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", str(clip)]
        precision = ["SOLVER.AMP.ENABLED", str(has_fast_bf16()), "SOLVER.AMP.DTYPE", "bfloat16"]
        train_net("--resume", *overrides, *start, *precision)
        export(run, result, args.seed)
    logger.info("%s is there after %.0f s", result, time.perf_counter() - began)
    train_net("--eval-only", "OUTPUT_DIR", str(folder / "eval"), "MODEL.WEIGHTS", str(result))
    if args.install:
        bundled = hub.catalogue()[CONFIG].bundled_path
        shutil.copyfile(result, bundled)
        logger.info("Installed as %s", bundled)
    logger.info("All done after %.0f s", time.perf_counter() - began)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=REPOSITORY / "output" / "tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--install", action="store_true", help="make it the bundled model")
    main(parser.parse_args())
