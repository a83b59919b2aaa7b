"""What several test files use."""

from __future__ import annotations

import importlib.metadata
import os
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
