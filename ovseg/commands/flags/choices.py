"""What flags choose from, by name; each tuple equals that of the part which it is about."""

from __future__ import annotations

__all__ = [
    "CAPTION_KINDS",
    "EXECUTORS",
    "EXPORT_FORMATS",
    "PAIR_EXPORTS",
    "PRECISIONS",
    "PROPOSALS",
    "TAGGERS",
    "TEMPLATE_NAMES",
    "VIEWS",
]

VIEWS = ("overlay", "mask", "panel")
EXPORT_FORMATS = ("coco", "yolo", "labelme", "cvat", "label_studio")
TEMPLATE_NAMES = ("vild", "imagenet", "predefined", "pacl7")
CAPTION_KINDS = ("auto", "coco", "tsv", "folder", "webdataset", "parquet")
PROPOSALS = ("model", "instances:FILE", "classes:FILE", "files:FOLDER", "grid:ROWSxCOLUMNS")
PRECISIONS = ("float32", "bfloat16", "float16")
TAGGERS = ("auto", "nltk", "textblob")
EXECUTORS = ("local", "torchrun", "ray", "dry-run")
PAIR_EXPORTS = ("tsv", "colour-key", "webdataset", "coco")
