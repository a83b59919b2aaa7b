"""`ovseg compare`: two results."""

from __future__ import annotations

import argparse

WORK = "compare"
DESCRIPTION = """Say what differs between two results: how they were made first, then the numbers.

Each is an OUTPUT_DIR, its `inference`, or the folder of one dataset there. Datasets that both
have are compared; the difference is the second minus the first.
"""
EXAMPLES = """
examples:
  %(prog)s output/a output/b
  %(prog)s output/a/inference/ade20k_sem_seg_val output/b
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg compare`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", metavar="A")
    parser.add_argument("second", metavar="B")
    parser.add_argument("--resamples", type=int, default=1000, help="draws of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    return parser
