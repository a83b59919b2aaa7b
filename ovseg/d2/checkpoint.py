"""Loading and saving of models under Detectron2's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite.checkpoint import DetectionCheckpointer
else:
    from detectron2.checkpoint import DetectionCheckpointer

__all__ = ["DetectionCheckpointer"]
