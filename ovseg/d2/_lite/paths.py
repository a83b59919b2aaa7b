"""File access by local path or URL."""

from __future__ import annotations

from iopath.common.file_io import HTTPURLHandler
from iopath.common.file_io import PathManager as _PathManager

__all__ = ["PathManager"]

# An instance of its own: handlers that other packages add to iopath's global one stay out.
PathManager = _PathManager()
PathManager.register_handler(HTTPURLHandler())
