"""Logging, file access and communication between processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite import comm
    from ovseg.d2._lite.logger import log_first_n, setup_logger
    from ovseg.d2._lite.paths import PathManager
else:
    from detectron2.utils import comm
    from detectron2.utils.file_io import PathManager
    from detectron2.utils.logger import log_first_n, setup_logger

__all__ = ["PathManager", "comm", "log_first_n", "setup_logger"]
