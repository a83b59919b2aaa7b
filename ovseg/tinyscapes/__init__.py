"""Tinyscapes: a procedural miniature world in the file formats of COCO.

Small scenes of nameable things on textured grounds, with labels, instances and captions. Seen
classes are labelled in training; unseen ones occur in its pictures and captions only.
"""

from __future__ import annotations

from .pairs import render_pair
from .scenes import Scene, render_scene
from .version import world_version
from .world import ALL_NAMES, CLASSES, IGNORE_LABEL, SEEN_NAMES, SPLITS, TinyClass, scene_groups
from .writer import DEFAULT_COUNTS, ensure_split, training_labels, write_split

# VERSION is left out: a star import would read files for it.
__all__ = [
    "ALL_NAMES",
    "CLASSES",
    "DEFAULT_COUNTS",
    "IGNORE_LABEL",
    "SEEN_NAMES",
    "SPLITS",
    "Scene",
    "TinyClass",
    "ensure_split",
    "render_pair",
    "render_scene",
    "scene_groups",
    "training_labels",
    "world_version",
    "write_split",
]


def __getattr__(name: str) -> str:
    # Importing must read no files, so the version is found when it is asked for.
    if name == "VERSION":
        return world_version()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
