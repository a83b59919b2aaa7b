"""Configuration nodes and the decorator that builds objects from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite.config import CfgNode, configurable, get_cfg
else:
    from detectron2.config import CfgNode, configurable, get_cfg

__all__ = ["CfgNode", "configurable", "get_cfg"]
