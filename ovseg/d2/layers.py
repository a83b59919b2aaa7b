"""Convolution with norm and activation, norm by name, shape records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite.layers import Conv2d, ShapeSpec, get_norm
else:
    from detectron2.layers import Conv2d, ShapeSpec, get_norm

__all__ = ["Conv2d", "ShapeSpec", "get_norm"]
