"""What several test files use."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def has_real_detectron2() -> bool:
    try:
        importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def run_python(
    *arguments: str,
    cwd: Path = ROOT,
    timeout: float = 300,
    first_path: Path = ROOT,
    **environment: str,
) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a process of its own, by default with the checkout on its path.

    Args:
        *arguments: after the interpreter, e.g. "-c", "print(1)".
        cwd: folder to run in.
        timeout: seconds.
        first_path: folder whose packages come before all others.
        **environment: variables to set on top of this process's.
    """
    paths = [str(first_path), *filter(None, [os.environ.get("PYTHONPATH")])]
    variables = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        **environment,
    }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env=variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def run_two_processes(*arguments: str, **environment: str) -> None:
    """Run this interpreter twice, as the two processes of one group; both must succeed.

    Args:
        *arguments: after the interpreter.
        **environment: variables to set on top of this process's and of the group's.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    group = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    common = {**os.environ, "OMP_NUM_THREADS": "1", **group, **environment}
    both = [
        subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**common, "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
