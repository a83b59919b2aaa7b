"""Setup and multi-process launch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite.engine import default_setup
    from ovseg.d2._lite.launch import launch
else:
    from detectron2.engine import default_setup, launch

__all__ = ["default_setup", "launch"]
