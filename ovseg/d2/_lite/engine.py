"""Command-line arguments of training scripts, and what every run does first."""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

import numpy as np
import torch

from ovseg.d2._lite import comm
from ovseg.d2._lite.config import CfgNode
from ovseg.d2._lite.logger import setup_logger

__all__ = ["default_argument_parser", "default_setup"]


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Make a parser with the arguments that Detectron2 users know.

    Args:
        epilog: text after the list of arguments; None shows examples.

    Returns:
        The parser, open for more arguments.
    """
    script = sys.argv[0]
    parser = argparse.ArgumentParser(
        epilog=epilog
        or f"""
examples:
  train on 8 GPUs:    {script} --config-file cfg.yaml --num-gpus 8
  override settings:  {script} --config-file cfg.yaml MODEL.WEIGHTS model.safetensors
  two machines:       {script} --num-machines 2 --machine-rank 0 --dist-url <URL> ...
                      {script} --num-machines 2 --machine-rank 1 --dist-url <URL> ...
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="config file")
    add("--resume", action="store_true", help="continue from the last checkpoint, if any")
    add("--eval-only", action="store_true", help="evaluate only")
    add("--num-gpus", type=int, default=1, help="GPUs (processes) per machine")
    add("--num-machines", type=int, default=1, help="number of machines")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    # One port per user: a run that an earlier one left behind shows up as a port in use.
    port = 2**15 + 2**14 + hash(os.getuid() if hasattr(os, "getuid") else 1) % 2**14
    add("--dist-url", default=f"tcp://127.0.0.1:{port}", help="where the processes meet")
    add("opts", nargs=argparse.REMAINDER, help="settings to override: KEY VALUE KEY VALUE ...")
    return parser


def default_setup(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Prepare the output folder and log to it, leave the full config there, seed generators.

    Args:
        cfg: the config; an empty OUTPUT_DIR means no folder, a negative SEED a random one.
        args: parsed arguments, logged.
    """
    output = cfg.OUTPUT_DIR or None
    rank = comm.get_rank()
    if output and comm.is_main_process():
        Path(output).mkdir(parents=True, exist_ok=True)
    setup_logger(output, distributed_rank=rank, name="fvcore")
    logger = setup_logger(output, distributed_rank=rank)
    logger.info("rank of this process: %d of %d", rank, comm.get_world_size())
    logger.info("command line arguments: %s", args)
    if output and comm.is_main_process():
        text = cfg.dump()
        logger.info("running with full config:\n%s", text)
        path = Path(output) / "config.yaml"
        partial = path.with_name(f".{path.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
        logger.info("full config saved to %s", path)
    _seed_generators(cfg.SEED + rank if cfg.SEED >= 0 else int.from_bytes(os.urandom(4), "little"))
    if not getattr(args, "eval_only", False):
        torch.backends.cudnn.benchmark = cfg.CUDNN_BENCHMARK
    if cfg.FLOAT32_PRECISION and torch.cuda.is_available():
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def _seed_generators(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
