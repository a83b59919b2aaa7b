"""Start one process per device, on one or several machines."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ovseg.d2._lite import comm

__all__ = ["DEFAULT_TIMEOUT", "launch"]

DEFAULT_TIMEOUT = timedelta(minutes=30)


def launch(
    main_func: Callable[..., Any],
    num_gpus_per_machine: int,
    num_machines: int = 1,
    machine_rank: int = 0,
    dist_url: str | None = None,
    args: tuple[Any, ...] = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
) -> None:
    """Run `main_func(*args)` in every process of a distributed run.

    One process in all (or none asked for) runs in the caller's own process. Without GPUs the
    processes communicate over gloo.

    Args:
        main_func: an importable function; each process calls it.
        num_gpus_per_machine: processes to start on this machine.
        num_machines: machines in the run; call this on each of them.
        machine_rank: number of this machine, from 0.
        dist_url: where the processes meet, e.g. "tcp://127.0.0.1:8686"; "auto" takes a free
            port of this machine and needs a single machine.
        args: arguments of `main_func`.
        timeout: how long a process waits for the others.

    Raises:
        ValueError: if there is no usable `dist_url`.
    """
    world_size = num_machines * num_gpus_per_machine
    if world_size <= 1:
        main_func(*args)
        return
    if dist_url is None or (dist_url == "auto" and num_machines > 1):
        raise ValueError(
            f"{world_size} processes on {num_machines} machine(s) need a dist_url such as "
            f"'tcp://<address of machine 0>:<port>', got {dist_url!r}"
        )
    if dist_url == "auto":
        dist_url = f"tcp://127.0.0.1:{_free_port()}"
    mp.start_processes(
        _worker,
        nprocs=num_gpus_per_machine,
        args=(main_func, world_size, num_gpus_per_machine, machine_rank, dist_url, args, timeout),
        daemon=False,
    )


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _worker(
    local_rank: int,
    main_func: Callable[..., Any],
    world_size: int,
    num_gpus_per_machine: int,
    machine_rank: int,
    dist_url: str,
    args: tuple[Any, ...],
    timeout: timedelta,
) -> None:
    """Join the process group, then run `main_func`."""
    has_gpu = torch.cuda.is_available()
    if has_gpu and num_gpus_per_machine > torch.cuda.device_count():
        raise RuntimeError(
            f"asked for {num_gpus_per_machine} GPUs, this machine has {torch.cuda.device_count()}"
        )
    try:
        dist.init_process_group(
            backend="nccl" if has_gpu else "gloo",
            init_method=dist_url,
            world_size=world_size,
            rank=machine_rank * num_gpus_per_machine + local_rank,
            timeout=timeout,
        )
    except Exception:
        logging.getLogger(__name__).error("could not form a process group at %s", dist_url)
        raise
    comm.create_local_process_group(num_gpus_per_machine)
    if has_gpu:
        torch.cuda.set_device(local_rank)
    comm.synchronize()
    try:
        main_func(*args)
        # No process may leave while another is still in its last exchange: gloo would abort it.
        comm.synchronize()
    finally:
        comm.forget_local_process_group()
        dist.destroy_process_group()
