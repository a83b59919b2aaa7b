"""`ovseg demo`: the sample scenes, or pictures of one's own after --input."""

from __future__ import annotations

import argparse

from ovseg.commands.flags.segment import DESCRIPTION, OUTCOMES, add_flags

WORK = "segment"
SAMPLES = """

Without any argument the bundled model segments the sample scenes into the classes of tinyscapes:
six scenes of its test split, drawn by lot (random.Random(0)) before anybody looked.
"""
EXAMPLES = """
examples:
  %(prog)s
  %(prog)s --input A.jpg B.png 'dir/*.jpg' --class-names sky "red star" tree --output out/
  %(prog)s --input photos/ --vocabulary ade20k_150 --weights ovseg_swinB
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg demo`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION + SAMPLES,
        epilog=EXAMPLES + OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--input", nargs="+", metavar="PATH", help="files, folders, patterns")
    add_flags(parser)
    return parser
