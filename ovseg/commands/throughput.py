"""`ovseg benchmark --train`: pictures a second of a training, and how long it waits for them."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import torch

from ovseg.benchmark.cost import held_bytes, peak_bytes, wait_for
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.data.catalog import register_builtin
from ovseg.data.loaders import build_train_loader
from ovseg.training.loop import Trainer
from ovseg.training.preflight import adopt_classes

__all__ = ["measure_training"]

_WARM_UP = 2  # workers start, and memory is taken for the first time


def measure_training(args: argparse.Namespace) -> dict[str, Any]:
    """Train from random weights for some iterations; nothing of it is kept.

    Args:
        args: `config_file`, `opts`, and `train`, the iterations that count, at least 1.

    Returns:
        For JSON: `iterations`; `pictures`, of a batch; `seconds` of the median iteration and their
        `spread`, least and most; `loader_share`, the part of all time that was spent waiting for
        pictures; `peak_bytes`, on top of what was held before the first iteration.

    Raises:
        ValueError: the training set cannot be used.
    """
    cfg = load_cfg(args.config_file, args.opts)
    register_builtin()
    with tempfile.TemporaryDirectory() as folder:
        cfg.defrost()
        cfg.OUTPUT_DIR = folder
        adopt_classes(cfg, args.opts)
        cfg.freeze()
        torch.manual_seed(0)
        step = Trainer.from_config(cfg, build_model(cfg), evaluate=None).step
        device = next(step.model.parameters()).device
        batches = iter(build_train_loader(cfg))
        step.model.train()
        before = held_bytes(device)
        waits, seconds = [], []
        for iteration in range(_WARM_UP + args.train):
            began = time.perf_counter()
            batch = next(batches)
            waits.append(time.perf_counter() - began)
            step(batch, iteration=iteration)
            wait_for(device)
            seconds.append(time.perf_counter() - began)
        peak = peak_bytes(device)
    waits, seconds = waits[_WARM_UP:], seconds[_WARM_UP:]
    return {
        "iterations": args.train,
        "pictures": len(batch),
        "seconds": statistics.median(seconds),
        "spread": [min(seconds), max(seconds)],
        "loader_share": sum(waits) / sum(seconds),
        "peak_bytes": None if before is None or peak is None else max(peak - before, 0),
    }
