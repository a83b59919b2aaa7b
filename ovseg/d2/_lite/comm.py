"""Communication between the processes of a distributed run; no-ops in a single one."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

__all__ = [
    "all_gather",
    "create_local_process_group",
    "gather",
    "get_local_process_group",
    "get_local_rank",
    "get_local_size",
    "get_rank",
    "get_world_size",
    "is_main_process",
    "reduce_dict",
    "shared_random_seed",
    "synchronize",
]

_local_group: Any = None


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if _distributed() else 1


def get_rank() -> int:
    """Return the number of this process among all, from 0."""
    return dist.get_rank() if _distributed() else 0


def is_main_process() -> bool:
    """Tell whether this is the process that writes files and reports."""
    return get_rank() == 0


def create_local_process_group(num_workers_per_machine: int) -> None:
    """Form the groups of processes that share a machine; all processes call this together.

    Args:
        num_workers_per_machine: processes on each machine; must divide the world size.

    Raises:
        RuntimeError: if the groups exist already.
        ValueError: if the number does not divide the world size.
    """
    global _local_group
    if _local_group is not None:
        raise RuntimeError("the local process group exists already; create it once per run")
    if get_world_size() % num_workers_per_machine:
        raise ValueError(
            f"world size {get_world_size()} must be a multiple of the "
            f"{num_workers_per_machine} processes per machine"
        )
    mine = get_rank() // num_workers_per_machine
    for machine in range(get_world_size() // num_workers_per_machine):
        first = machine * num_workers_per_machine
        # Every process takes part in forming every group, also those it is not in.
        group = dist.new_group(list(range(first, first + num_workers_per_machine)))
        if machine == mine:
            _local_group = group


def forget_local_process_group() -> None:
    """Drop the group before the process group is destroyed: its threads must end before exit."""
    global _local_group
    _local_group = None


def get_local_process_group() -> Any:
    """Return the group of the processes on this machine."""
    if _local_group is None:
        raise AssertionError(
            "there is no local process group; start processes with launch(), or call "
            "comm.create_local_process_group() after torch.distributed.init_process_group()"
        )
    return _local_group


def get_local_rank() -> int:
    """Return the number of this process among those on this machine, from 0."""
    return dist.get_rank(group=get_local_process_group()) if _distributed() else 0


def get_local_size() -> int:
    """Return the number of processes on this machine."""
    return dist.get_world_size(group=get_local_process_group()) if _distributed() else 1


def synchronize() -> None:
    """Wait until all processes have arrived here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


@functools.cache
def _cpu_group() -> Any:
    # Objects travel over gloo so that pickled bytes take no GPU memory.
    return dist.new_group(backend="gloo") if dist.get_backend() == "nccl" else dist.group.WORLD


def all_gather(data: Any, group: Any = None) -> list[Any]:
    """Collect a picklable object from every process, everywhere.

    Args:
        data: this process's object.
        group: a process group; None means all processes.

    Returns:
        One object per process, in rank order.
    """
    if get_world_size() == 1:
        return [data]
    group = group if group is not None else _cpu_group()
    collected: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(collected, data, group=group)
    return collected


def gather(data: Any, dst: int = 0, group: Any = None) -> list[Any]:
    """Collect a picklable object from every process in the process `dst`.

    Args:
        data: this process's object.
        dst: rank that receives.
        group: a process group; None means all processes.

    Returns:
        In `dst` one object per process in rank order, elsewhere an empty list.
    """
    if get_world_size() == 1:
        return [data]
    group = group if group is not None else _cpu_group()
    if dist.get_rank(group) != dst:
        dist.gather_object(data, None, dst=dst, group=group)
        return []
    collected: list[Any] = [None] * dist.get_world_size(group)
    dist.gather_object(data, collected, dst=dst, group=group)
    return collected


def shared_random_seed() -> int:
    """Draw a number that is the same in all processes; all of them must call this."""
    return int(all_gather(int(np.random.randint(2**31)))[0])


def reduce_dict(input_dict: dict[str, Tensor], average: bool = True) -> dict[str, Tensor]:
    """Sum or average scalars over the processes; the result is valid in process 0 only.

    Args:
        input_dict: scalar tensors under the same names in every process.
        average: divide the sum by the number of processes.

    Returns:
        The reduced scalars by name.
    """
    if get_world_size() == 1:
        return input_dict
    with torch.no_grad():
        names = sorted(input_dict)
        values = torch.stack([input_dict[name] for name in names])  # (n,)
        dist.reduce(values, dst=0)
        if average and get_rank() == 0:
            values /= get_world_size()
    return dict(zip(names, values, strict=True))
