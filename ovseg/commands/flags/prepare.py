"""`ovseg prepare DATASET`, and the scripts datasets/prepare_DATASET.py."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

WORK = "prepare"

# Dataset -> what is made, splits. The other datasets have flags of their own, below.
LABELLED = {
    "ade20k": ("Make the labels of ADE20K's 150 classes.", ("train", "val")),
    "ade20k_full": ("Make the pictures and labels of ADE20K's 847 classes.", ("val",)),
    "cityscapes": ("Make the labels of Cityscapes' 19 classes.", ("train", "val")),
    "coco_object": ("Make the labels of COCO-Object: a background and 80 things.", ("val2017",)),
    "coco_stuff": ("Make the labels of COCO-Stuff's 171 classes.", ("train2017", "val2017")),
    "coco_stuff_10k": (
        "Make the labels of COCO-Stuff 10k and gather its pictures by split.",
        ("train", "test"),
    ),
    "loveda": ("Make the labels of LoveDA.", ("train", "val")),
    "pascal_context": ("Make the labels of Pascal Context-59, -60 and -459.", ("train", "val")),
    "vaihingen": ("Make the pictures and labels of ISPRS Vaihingen.", ("train", "val")),
    "voc": ("Make the labels of Pascal VOC-20 and VOC-21.", ("train", "val")),
}
RESUMES = "An interrupted run goes on where it stopped."
OTHERS = {
    "coco_captions": "Check the captions and pictures of COCO, which are used as they are.",
    "tinyscapes": f"Draw the miniature world tinyscapes in COCO's file formats. {RESUMES}",
    "garden": "Draw a small dataset as somebody's own might look, for docs/your_data.md.",
}
CAPTION_SPLITS = ("train2017", "val2017")
SCENES = {"train": 4000, "val": 500, "test": 1000}


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg prepare`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Make a dataset's files of its raw data; datasets/README.md says where those "
        "come from and where they go.",
    )
    commands = parser.add_subparsers(dest="dataset", required=True, metavar="DATASET")
    for name in (*LABELLED, *OTHERS):
        text = describe(name)
        add_flags(commands.add_parser(name, help=text, description=text), name)
    return parser


def make_script_parser(name: str) -> argparse.ArgumentParser:
    """Make the parser of `datasets/prepare_NAME.py`."""
    parser = argparse.ArgumentParser(prog=f"prepare_{name}.py", description=describe(name))
    parser.set_defaults(dataset=name)
    add_flags(parser, name)
    return parser


def describe(name: str) -> str:
    """Say what the command does."""
    return OTHERS[name] if name in OTHERS else f"{LABELLED[name][0]} {RESUMES}"


def add_flags(parser: argparse.ArgumentParser, name: str) -> None:
    """Add the flags of one dataset."""
    add = parser.add_argument
    if name == "garden":
        add("--folder", type=Path, default=Path("garden"), help="where (default: %(default)s)")
        add("--train", type=_count, default=160, help="pictures to train on")
        add("--val", type=_count, default=40, help="pictures to measure on")
        return
    add("--root", help="folder of all datasets (default: $DETECTRON2_DATASETS, else datasets)")
    if name == "coco_captions":
        add("--split", nargs="+", choices=CAPTION_SPLITS, help="default: both")
        return
    add("--workers", type=_at_least_one, default=os.cpu_count() or 1, help="processes")
    if name == "tinyscapes":
        for split, count in SCENES.items():
            text = f"pictures (default {count}; 0: skip)"
            add(f"--{split}", type=_count, default=count, help=text)
        return
    splits = LABELLED[name][1]
    add("--split", nargs="+", choices=splits, help=f"default: all of {', '.join(splits)}")
    add("--force", action="store_true", help="make labels again that are there already")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number >= 0, got {text}")
    return int(text)


def _at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return int(text)
