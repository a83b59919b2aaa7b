"""Tinyscapes: a procedural miniature world in the file formats of COCO.

Small scenes of nameable things on textured grounds, with labels, instances and captions. Seen
classes are labelled in training; unseen ones occur in its pictures and captions only.
"""

from __future__ import annotations

from .pairs import render_pair
from .samples import SAMPLE_SPLIT, mentioned_classes, sample_scenes, write_samples
from .scenes import Scene, render_scene
from .version import VERSION
from .world import ALL_NAMES, CLASSES, IGNORE_LABEL, SEEN_NAMES, SPLITS, TinyClass, scene_groups
from .writer import DEFAULT_COUNTS, ensure_split, training_labels, write_split

__all__ = [
    "ALL_NAMES",
    "CLASSES",
    "DEFAULT_COUNTS",
    "IGNORE_LABEL",
    "SAMPLE_SPLIT",
    "SEEN_NAMES",
    "SPLITS",
    "VERSION",
    "Scene",
    "TinyClass",
    "ensure_split",
    "mentioned_classes",
    "render_pair",
    "render_scene",
    "sample_scenes",
    "scene_groups",
    "training_labels",
    "write_samples",
    "write_split",
]
