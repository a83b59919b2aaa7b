"""Batches of images of different sizes, and the objects in one image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite.structures import ImageList, Instances
else:
    from detectron2.structures import ImageList, Instances

__all__ = ["ImageList", "Instances"]
