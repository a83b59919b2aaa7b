"""How many cores this process may use, and threads that share them with other programs."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

__all__ = ["bound_threads", "share_cores", "usable_cores"]

_ROOT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def usable_cores() -> int:
    """Count the cores that this process may use.

    Returns:
        The smallest of the machine's cores, the process's affinity (`taskset`, a batch system) and
        the quota of its control group (`docker --cpus`), at least 1.
    """
    cores = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        cores = len(os.sched_getaffinity(0))
    return max(1, math.ceil(min(cores, _quota(_ROOT, _OWN))))


def share_cores() -> None:
    """Let threads that wait give their core to others, where torch is not loaded yet.

    OpenMP's threads wait by spinning unless they are told otherwise. Where other programs are busy
    on the same cores, a picture took 4 to 7 s with two threads that spin, and 0.5 s with two that
    do not (two cores, load 5). The choice is read when torch is loaded and then stays; a value of
    `OMP_WAIT_POLICY` in the environment is left as it is.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def bound_threads() -> int:
    """Let torch use no more threads than there are cores for it; fewer stay as they are.

    Returns:
        The number of threads from now on.
    """
    import torch

    cores = usable_cores()
    if torch.get_num_threads() > cores:
        torch.set_num_threads(cores)
    return torch.get_num_threads()


def _quota(root: Path, own: Path) -> float:
    """Read the cores that control groups grant, versions 1 and 2; infinite without a limit."""
    groups = {"": "/"}  # controllers -> the process's group; "" is version 2
    if own.is_file():
        for line in own.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            groups[controllers] = group
    lowest = math.inf
    for controllers, group in groups.items():
        if controllers and "cpu" not in controllers.split(","):
            continue
        folder = root / "cpu" if controllers else root
        parts = [part for part in group.split("/") if part]
        # A limit of a group binds those inside it; inside a container the group is the root.
        for depth in range(len(parts) + 1):
            lowest = min(lowest, _granted(folder.joinpath(*parts[:depth])))
    return lowest


def _granted(folder: Path) -> float:
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota, period = (
                (folder / name).read_text(encoding="utf-8").strip()
                for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us")
            )
        return int(quota) / int(period) if int(quota) > 0 else math.inf
    except (OSError, ValueError):
        return math.inf  # no such file, or "max"
