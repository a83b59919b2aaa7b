"""What a result was computed with."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import ovseg
from ovseg import d2
from ovseg.utils.files import write_json

__all__ = ["environment_record", "processor_name", "write_environment"]

# Those whose version can move a number: decoders, resizing, numerics.
_PACKAGES = (
    "torch",
    "torchvision",
    "open_clip_torch",
    "timm",
    "numpy",
    "scipy",
    "pillow",
    "opencv-python-headless",
    "opencv-python",
    "fvcore",
    "detectron2",
)


def environment_record() -> dict[str, Any]:
    """Describe this process: versions, backend, device.

    Returns:
        A dict that can be written to JSON: `ovseg`, `git_commit` (None outside a checkout),
        `git_modified`, `d2_backend`, `python`, `platform`, `packages`, `device`, `tf32`,
        `threads`.
    """
    root = Path(ovseg.__file__).resolve().parents[1]
    commit = _git(root, "rev-parse", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    gpu = torch.cuda.is_available()
    return {
        "ovseg": ovseg.__version__,
        "git_commit": commit or None,
        "git_modified": None if status is None else bool(status),
        "d2_backend": d2.backend(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "device": torch.cuda.get_device_name() if gpu else platform.processor() or "cpu",
        "tf32": torch.get_float32_matmul_precision() != "highest",
        "threads": torch.get_num_threads(),
    }


def write_environment(folder: str | Path) -> Path:
    """Write the record to `<folder>/environment.json`.

    Args:
        folder: made if missing.

    Returns:
        The path of the file.
    """
    path = Path(folder) / "environment.json"
    write_json(path, environment_record())
    return path


def processor_name() -> str:
    """Name the processor: its model where the system tells (Linux), else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, "") or platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(root: Path, *arguments: str) -> str | None:
    # Only the project's own checkout counts, not a repository that an installed copy lies in.
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
