"""`ovseg tune`: the settings of OVSeg's ensemble."""

from __future__ import annotations

import argparse
from pathlib import Path

from ovseg.commands.flags.choices import TEMPLATE_NAMES

WORK = "tune"
DESCRIPTION = """Choose ensemble weight, mask threshold and templates on a split for it.

Masks and the features behind both scores are computed once and kept on disk; every setting then
costs a merge. Each number equals that of a full evaluation with the setting. A test split is
refused unless it is called one in words, and the words stay with the result.
"""
EXAMPLES = """
examples:
  %(prog)s --config-file ovseg_tiny --dataset tinyscapes_val_sem_seg
  %(prog)s --weights ovseg_swinB --dataset ade20k_sem_seg_train --ensemble-weights mask,0.6,clip
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg tune`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", help="path or shipped name (default: the weights' own)")
    add("--dataset", required=True, help="registered name, or a YAML file")
    add("--weights", metavar="W", help="name, path, address (default: config's)")
    add(
        "--ensemble-weights",
        default="mask,0.4,0.5,0.6,0.7,0.8,0.9,clip",
        help="mask,0.6,0.4/0.9,clip: one alone, one, two (seen/unseen) (default: %(default)s)",
    )
    add("--thresholds", default="0.35,0.4,0.45,0.5", help="of masks (default: %(default)s)")
    add(
        "--templates",
        default="vild,imagenet,predefined",
        help=f"of {','.join(TEMPLATE_NAMES)} (default: %(default)s)",
    )
    add("--metric", default="mIoU", help="to choose by, e.g. mIoU-gt, hIoU-seen")
    add("--images", type=int, help="use so many pictures, evenly spread")
    add("--cache", type=Path, help="folder; default: OUTPUT_DIR/tuning/cache")
    add("--output", type=Path, help="folder; default: OUTPUT_DIR/tuning/DATASET")
    add(
        "--i-know-this-is-the-test-split",
        action="store_true",
        dest="known_as_test",
        help="tune on it all the same",
    )
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, put last")
    return parser
