"""Processes that train together: starting them, wrapping the model, reducing figures."""

from __future__ import annotations

import argparse
import functools
import logging
import multiprocessing
import os
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException
from torch.nn.parallel import DistributedDataParallel

from ovseg.d2.engine import launch
from ovseg.d2.utils import comm
from ovseg.utils.command_line import FAILED, INTERRUPTED, MISUSED, guarded

__all__ = [
    "mean_over_ranks",
    "run_distributed",
    "share_from_main",
    "started_by_torchrun",
    "wrap_for_ddp",
]

logger = logging.getLogger(__name__)


def started_by_torchrun() -> bool:
    """Whether `torchrun` (or another launcher that sets its variables) started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ and "MASTER_ADDR" in os.environ


def run_distributed(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    """Run `main(args)` in as many processes as asked for.

    Under `torchrun` this process is one of them already; otherwise `--num-gpus`, `--num-machines`,
    `--machine-rank` and `--dist-url` decide, as in Detectron2. `--num-gpus` counts processes: on a
    machine without a GPU, 2 means two CPU processes over gloo; 0 and 1 mean this process alone.

    Args:
        main: a top-level function, since new processes import it by name.
        args: Detectron2's command line flags.

    Raises:
        SystemExit: with status 130, as shells have it, after Ctrl-C; with the status of a process
            of several that failed, which has said why in one line.
        RuntimeError: a process was killed.
    """
    try:
        _run_processes(functools.partial(_end_tidily, main), args)
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.join()  # they were interrupted as well and are saving
        sys.exit(INTERRUPTED)
    except ProcessExitedException as error:
        if error.exit_code in (FAILED, MISUSED, INTERRUPTED):
            sys.exit(error.exit_code)  # it has said why
        raise RuntimeError(
            f"process {error.error_index} of the run ended, which expected none to ({error}); it "
            "was probably killed for memory: take fewer processes or smaller batches, and start "
            "the same command with --resume"
        ) from error


def _end_tidily(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    if comm.get_world_size() > 1:
        # What a process raises would come to its parent as a text of many lines.
        program = f"{Path(sys.argv[0]).name}: process {comm.get_rank()}"
        status = guarded(lambda: main(args), program=program, debug=getattr(args, "debug", False))
        if status:
            sys.exit(status)
        return
    try:
        main(args)
    except KeyboardInterrupt:
        logger.warning("interrupted")
        sys.exit(INTERRUPTED)


def _run_processes(main: Callable[[argparse.Namespace], object], args: argparse.Namespace) -> None:
    if started_by_torchrun():
        _join_torchrun_group(use_gpu=_enough_gpus() and args.num_gpus != 0)
        try:
            main(args)
        finally:
            dist.destroy_process_group()
        return
    launch(
        main,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
    )


def _enough_gpus() -> bool:
    return torch.cuda.is_available() and torch.cuda.device_count() >= _local_world_size()


def _local_world_size() -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))


def _join_torchrun_group(*, use_gpu: bool) -> None:
    if use_gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if use_gpu else "gloo", init_method="env://")
    comm.create_local_process_group(_local_world_size())


def wrap_for_ddp(model: nn.Module) -> nn.Module:
    """Wrap a model for gradient averaging; alone, the model itself comes back.

    Unused parameters are not searched for: it costs a pass over the graph per step, and OVSeg has
    none. A model that leaves a trainable parameter without gradient gets DDP's own error, which
    names it with TORCH_DISTRIBUTED_DEBUG=DETAIL.
    """
    if comm.get_world_size() == 1:
        return model
    device = next(model.parameters()).device
    with warnings.catch_warnings():
        # Its successor exists in the newest torch only.
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        return DistributedDataParallel(
            model,
            device_ids=[device.index] if device.type == "cuda" else None,
            broadcast_buffers=False,  # batch norms are frozen or synchronised
            gradient_as_bucket_view=True,
        )


def mean_over_ranks(values: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """Average named scalars over all processes.

    Args:
        values: scalar tensors; every process passes the same names.

    Returns:
        The averages, in the same order, on every process.
    """
    if not values:
        return {}
    stacked = torch.stack([value.detach().double() for value in values.values()])
    if comm.get_world_size() > 1:
        dist.all_reduce(stacked)
        stacked /= comm.get_world_size()
    return dict(zip(values, stacked.tolist(), strict=True))


def share_from_main(value: int) -> int:
    """The main process's value of a number, on every process."""
    return comm.all_gather(value)[0]
