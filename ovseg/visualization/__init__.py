"""Pictures of a label map: colours, overlays, outlines, names, a legend, panels.

Everything here works on ``uint8`` pictures and integer label maps, so that a picture of any size
costs a few bytes per pixel and no per-class planes. Colours belong to class *names*: a name looks
the same in every picture, vocabulary and session (see :func:`palette`).
"""

from __future__ import annotations

from ovseg.visualization.colors import BACKGROUND_COLOR, BLANK_COLOR, palette
from ovseg.visualization.labels import BLANK, blend, borders, colorize, pixel_counts
from ovseg.visualization.pictures import (
    MAX_SIDE,
    MIN_SIDE,
    for_display,
    legend_strip,
    overlay,
    panels,
    tiles,
    titled_rows,
)
from ovseg.visualization.text import place_names, write_names

__all__ = [
    "BACKGROUND_COLOR",
    "BLANK",
    "BLANK_COLOR",
    "MAX_SIDE",
    "MIN_SIDE",
    "blend",
    "borders",
    "colorize",
    "for_display",
    "legend_strip",
    "overlay",
    "palette",
    "panels",
    "pixel_counts",
    "place_names",
    "tiles",
    "titled_rows",
    "write_names",
]
