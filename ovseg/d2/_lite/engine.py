"""What every run does first."""

from __future__ import annotations

import argparse
import os
import random
from pathlib import Path

import numpy as np
import torch

from ovseg.d2._lite import comm
from ovseg.d2._lite.config import CfgNode
from ovseg.d2._lite.logger import setup_logger

__all__ = ["default_setup"]


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
