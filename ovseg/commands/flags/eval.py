"""`ovseg eval`: `ovseg train --eval-only`."""

from __future__ import annotations

import argparse

from ovseg.d2.arguments import default_argument_parser

WORK = "train"
EXAMPLES = """
examples:
  %(prog)s --config-file ovseg_tiny
  %(prog)s MODEL.WEIGHTS ovseg_swinB DATASETS.TEST ade20k_sem_seg_val
  %(prog)s --config-file ovseg_tiny DATASETS.TEST garden.yaml TEST.REPORT True OUTPUT_DIR out
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg eval`."""
    parser = default_argument_parser(EXAMPLES)
    parser.prog, parser.description = program, "Measure a segmentation model on datasets."
    parser.set_defaults(eval_only=True)
    return parser
