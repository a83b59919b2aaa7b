"""Seam over Detectron2: the installed one, or a small subset that lives in `_lite`.

`OVSEG_D2` chooses once per process: `auto` (the default: the real one where it is installed),
`real` or `lite`. Every module of this package offers the same names under both, and a process
never mixes the two.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
from typing import Literal

__all__ = ["ENVIRONMENT_VARIABLE", "backend"]

ENVIRONMENT_VARIABLE = "OVSEG_D2"
_CHOICES = ("auto", "real", "lite")
_logger = logging.getLogger(__name__)


@functools.cache
def backend() -> Literal["real", "lite"]:
    """Tell which backend this process runs on; the answer never changes within a process.

    Returns:
        "real" for the installed Detectron2, "lite" for the subset shipped here.

    Raises:
        ValueError: if `OVSEG_D2` holds anything but auto, real or lite.
        ImportError: if `OVSEG_D2=real` and Detectron2 is not installed.
    """
    choice = os.environ.get(ENVIRONMENT_VARIABLE, "auto").strip().lower() or "auto"
    if choice not in _CHOICES:
        raise ValueError(
            f"{ENVIRONMENT_VARIABLE} must be one of {', '.join(_CHOICES)}, got {choice!r}; "
            "unset it to choose automatically"
        )
    version = _installed_version()
    if choice == "real" and version is None:
        raise ImportError(
            f"{ENVIRONMENT_VARIABLE}=real needs Detectron2, which is not installed; install it "
            "from https://github.com/facebookresearch/detectron2 or set "
            f"{ENVIRONMENT_VARIABLE}=lite"
        )
    if choice == "lite" or version is None:
        _logger.info("detectron2 backend: lite (shipped with ovseg)")
        return "lite"
    _logger.info("detectron2 backend: real, version %s", version)
    return "real"


def _installed_version() -> str | None:
    # A distribution record, not a mere importable folder: an unrelated directory called
    # `detectron2` on the path must not change what runs.
    try:
        return importlib.metadata.version("detectron2")
    except importlib.metadata.PackageNotFoundError:
        return None
