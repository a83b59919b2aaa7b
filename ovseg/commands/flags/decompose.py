"""`ovseg decompose`: what holds a model back."""

from __future__ import annotations

import argparse
from pathlib import Path

WORK = "decompose"
DESCRIPTION = """Say what holds a model back on a dataset: its masks, their names, or the merge.

Evaluates the system as it is, each of its two classifiers alone, its proposals named by the truth,
and true masks named by its CLIP; how well proposals fit, and how often CLIP is right. Of a test
split this is no way to choose anything: what is chosen belongs on a validation split.
"""
EXAMPLES = """
examples:
  %(prog)s --config-file ovseg_tiny --limit 100
  %(prog)s --config-file ovseg_swinB --output output/why \\
      DATASETS.TEST "('ade20k_sem_seg_val',)"
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg decompose`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", help="path or shipped name (default: the weights' own)")
    parser.add_argument("--limit", type=int, metavar="N", help="use N pictures, evenly spread")
    parser.add_argument(
        "--output",
        type=Path,
        help="a folder per dataset goes here; default: OUTPUT_DIR/decomposition",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, put last")
    return parser
