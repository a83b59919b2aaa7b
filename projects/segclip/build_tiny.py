"""Make the miniature: superpixels, training, weights. What is done already is not repeated.

    python -m ovseg.projects.segclip.build_tiny --output output/segclip_tiny

Tinyscapes draws itself below DETECTRON2_DATASETS. The result is OUTPUT/segclip_tiny.safetensors.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ovseg.config import load_cfg
from ovseg.d2.arguments import default_argument_parser
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.data.catalog import register_builtin
from ovseg.data.loaders import build_train_loader
from ovseg.projects.segclip.make_superpixels import make_superpixels
from ovseg.projects.segclip.weights import for_evaluation
from ovseg.training.checkpoint import FINAL_NAME
from ovseg.training.loop import train
from ovseg.training.session import setup
from ovseg.training.weights import load_for_training
from ovseg.utils.command_line import run_parsed
from ovseg.utils.files import sha256_of
from ovseg.utils.run_record import RunRecord
from ovseg.weights.find import find_weights
from ovseg.weights.load import read_state_dict, write_safetensors

NAME = "segclip_tiny"
# They change nothing about the result.
_FREE = ("SOLVER.CHECKPOINT_PERIOD", "SOLVER.CHECKPOINTS_KEPT", "SOLVER.LOG_PERIOD")


def build(output: Path, *, workers: int = 2, threads: int = 2, opts: Sequence[str] = ()) -> Path:
    """Make the miniature, or go on where an earlier run was interrupted.

    Args:
        output: folder of all that is made.
        workers: processes that make superpixels.
        threads: of training. Sums depend on their number, so the result does, in its last digits.
        opts: settings to override, KEY VALUE.

    Returns:
        The file of the weights.

    Raises:
        AnotherRunError: the folder holds a miniature that was made with other settings or another
            CLIP.
    """
    store, run = output / "superpixels", output / "run"
    words = ["MODEL.WEIGHTS", "", "DATASETS.TEST", "()"]
    words += ["MODEL.SEGCLIP.KL.SUPERPIXELS", str(store), *opts]
    cfg = load_cfg(NAME, words)
    _claim(cfg, output)
    make_superpixels(cfg, store, workers=workers)
    flags = ["--config-file", NAME, "--num-gpus", "0", "--resume"]
    cfg = setup(default_argument_parser().parse_args([*flags, *words, "OUTPUT_DIR", str(run)]))
    register_builtin()
    torch.set_num_threads(threads)
    model = build_model(cfg)
    train(
        cfg,
        model,
        resume=True,
        make_loader=build_train_loader,
        initialise=lambda: load_for_training(model, cfg.MODEL.WEIGHTS),
    )
    target = output / f"{NAME}.safetensors"
    tokens = not cfg.MODEL.SEGCLIP.TOKENS_OF_CLIP
    state = for_evaluation(read_state_dict(run / FINAL_NAME), tokens=tokens)
    half = {n: t.half() if t.is_floating_point() else t for n, t in state.items()}
    facts = {"seed": str(cfg.SEED), "license": "Apache-2.0"}
    clip = sha256_of(Path(cfg.MODEL.CLIP_ADAPTER.CLIP_WEIGHTS))
    write_safetensors(target, half, {**facts, "clip": clip})
    return target


def _claim(cfg: CfgNode, output: Path) -> None:
    settings = {
        "seed": cfg.SEED,
        "clip": sha256_of(find_weights(cfg.MODEL.CLIP_ADAPTER.CLIP_WEIGHTS)),
        "MODEL.SEGCLIP": cfg.MODEL.SEGCLIP,
        "SOLVER": cfg.SOLVER,
        "pictures": cfg.DATASETS.TRAIN,
    }
    remedy = "name another --output or remove the folder"
    RunRecord(settings, "miniature of SegCLIP", remedy, _FREE).claim(output / "miniature.json")


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("output") / NAME)
    parser.add_argument("--workers", type=int, default=2, help="processes that make superpixels")
    parser.add_argument("--threads", type=int, default=2, help="of training")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="settings to override: KEY VALUE")
    return parser


def main(args: argparse.Namespace) -> None:
    """Train, and write the bundled file."""
    target = build(args.output, workers=args.workers, threads=args.threads, opts=args.opts)
    logging.getLogger("ovseg").info("%s, %d bytes", target, target.stat().st_size)


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
