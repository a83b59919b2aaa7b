"""`ovseg train`, with --eval-only `ovseg eval`."""

from __future__ import annotations

import argparse

from ovseg.d2.arguments import default_argument_parser

WORK = "train"
DESCRIPTION = "Train or evaluate a segmentation model that a config describes."
EXAMPLES = """
examples:
  train:              %(prog)s --config-file configs/ovseg_swinB.yaml --num-gpus 8
  continue:           %(prog)s --config-file configs/ovseg_swinB.yaml --num-gpus 8 --resume
  evaluate:           %(prog)s --config-file ovseg_tiny --eval-only
  override settings:  %(prog)s --config-file ovseg_tiny SOLVER.MAX_ITER 200 OUTPUT_DIR out
  small GPUs:         %(prog)s --config-file ovseg_swinB SOLVER.ACCUMULATION_STEPS 4
  torchrun:           torchrun --nproc-per-node 8 tools/train_net.py --config-file ovseg_swinB
                      torchrun --nproc-per-node 8 -m ovseg train --config-file ovseg_swinB

Without a GPU, --num-gpus counts CPU processes; 0 uses the CPU even where there is a GPU.
"""


def make_parser(program: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of `ovseg train`."""
    parser = default_argument_parser(EXAMPLES)
    parser.prog, parser.description = program or parser.prog, DESCRIPTION
    return parser
