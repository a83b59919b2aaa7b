"""What happens before a run: config, device, seed, logs, record."""

from __future__ import annotations

import argparse
import logging
import os
import random
from pathlib import Path

import numpy as np
import torch

from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.methods import import_method
from ovseg.d2.utils import comm, setup_logger
from ovseg.data.catalog import register_builtin
from ovseg.readers.documents import read_yaml
from ovseg.training.distributed import share_from_main
from ovseg.training.preflight import adopt_classes, check_folder, check_metrics, check_prompts
from ovseg.utils.devices import pick_device
from ovseg.utils.environment import environment_record, write_environment
from ovseg.utils.files import atomic_path
from ovseg.utils.folder_lock import only_run
from ovseg.utils.threads import bound_threads
from ovseg.weights.find import named_weights
from ovseg.weights.record import config_for

__all__ = ["setup"]

logger = logging.getLogger(__name__)


def setup(args: argparse.Namespace) -> CfgNode:
    """Prepare a run; every process of it calls this once, after the process group exists.

    Reads the config, settles device, number of classes and seed, creates `OUTPUT_DIR` with
    `log.txt`, `config.yaml` and `environment.json` (an evaluation leaves its two in
    `OUTPUT_DIR/inference`, so that those of the training run survive), and seeds all generators.

    Args:
        args: Detectron2's command line; `config_file` is a path or the name of a shipped config.
            An evaluation may leave it to the weights, see `ovseg.weights.record.config_for`.

    Returns:
        The frozen config, with the device, the classes and the seed that the run uses.

    Raises:
        ValueError: if no config file is named, and none belongs to the weights to evaluate; if the
            folder holds another training, or settings contradict each other.
        BusyFolderError: another run is writing to the folder.
        OSError: it cannot be written to.
    """
    opts = args.opts or []
    evaluated = named_weights(opts) if args.eval_only else None
    if not args.config_file and not evaluated:
        raise ValueError(
            "--config-file: expected a path or the name of a shipped config, got nothing; "
            "try --config-file ovseg_tiny"
        )
    cfg = load_cfg(args.config_file or config_for(evaluated), opts)
    register_builtin()
    check_folder(cfg, args)
    check_metrics(cfg)
    check_prompts(cfg)
    output = Path(cfg.OUTPUT_DIR)
    # Held while the record is written, and again by the run itself: nobody's record is replaced.
    with only_run(output, what="the start of a run", wanted=comm.is_main_process()):
        comm.synchronize()
        for name in ("ovseg", "fvcore", "detectron2"):
            setup_logger(str(output), distributed_rank=comm.get_rank(), name=name)
        cfg = _settle(cfg, args)
        _apply_backend_flags(cfg, evaluating=args.eval_only)
        # The same on every process, so that they build the same model; steps are seeded by rank
        # later.
        seed_all(cfg.SEED)
        if comm.is_main_process():
            _leave_record(cfg, args, output / "inference" if args.eval_only else output)
    return cfg


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and torch's generators with a number that is not negative."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _checked_device(wanted: str) -> str:
    try:
        return pick_device(wanted)
    except ValueError as error:
        raise ValueError(f"MODEL.DEVICE: {error}, by MODEL.DEVICE cpu or --num-gpus 0") from error


def _settle(cfg: CfgNode, args: argparse.Namespace) -> CfgNode:
    """Fill in what the config leaves open: device, classes, file of CLIP's weights, seed."""
    cfg = cfg.clone()
    cfg.defrost()
    if args.num_gpus == 0:
        cfg.MODEL.DEVICE = "cpu"
    else:
        cfg.MODEL.DEVICE = _checked_device(cfg.MODEL.DEVICE)
    bound_threads()
    if not args.eval_only:
        adopt_classes(cfg, args.opts or [])
    settle = getattr(import_method(cfg.MODEL.META_ARCHITECTURE), "settle_config", None)
    if settle is not None:
        settle(cfg, evaluating=args.eval_only)
    if not args.eval_only:
        cfg.MODEL.TRAINED_WEIGHTS = ""  # the run makes its own; its config.yaml is not theirs
    if cfg.SEED < 0:
        drawn = _earlier_seed(Path(cfg.OUTPUT_DIR)) if args.resume else None
        if drawn is None:
            drawn = int.from_bytes(os.urandom(4), "little") >> 1
        cfg.SEED = share_from_main(drawn)
        logger.info("SEED is not set: using %d, kept in config.yaml", cfg.SEED)
    cfg.freeze()
    return cfg


def _earlier_seed(output: Path) -> int | None:
    """The seed of the run that left `config.yaml` in the folder."""
    path = output / "config.yaml"
    if not path.is_file():
        return None
    values = read_yaml(path)
    seed = values.get("SEED") if isinstance(values, dict) else None
    return seed if isinstance(seed, int) and seed >= 0 else None


def _apply_backend_flags(cfg: CfgNode, *, evaluating: bool) -> None:
    if not evaluating:
        torch.backends.cudnn.benchmark = bool(cfg.CUDNN_BENCHMARK)
    if cfg.FLOAT32_PRECISION:
        torch.set_float32_matmul_precision(cfg.FLOAT32_PRECISION)
        torch.backends.cudnn.allow_tf32 = cfg.FLOAT32_PRECISION != "highest"


def _leave_record(cfg: CfgNode, args: argparse.Namespace, folder: Path) -> None:
    logger.info("command line: %s", vars(args))
    logger.info("environment: %s", environment_record())
    write_environment(folder)
    with atomic_path(folder / "config.yaml") as partial:
        partial.write_text(cfg.dump(), encoding="utf-8")
    logger.info("full config: %s", folder / "config.yaml")
