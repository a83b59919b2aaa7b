"""`ovseg benchmark`: what segmenting a picture costs."""

from __future__ import annotations

import argparse
from pathlib import Path

WORK = "benchmark"
DESCRIPTION = """Measure what segmenting an image costs, by stage, and what saving measures save.

Runs a config with the given or with random weights on a random image. What is learned changes the
cost in one way only: masks that a trained model leaves empty cost CLIP nothing.
"""
EXAMPLES = """
examples:
  %(prog)s --config-file ovseg_swinB --size 640 853 --benchmark ade20k_847
  %(prog)s --config-file ovseg_swinB --size 427 640 --questions 20
  %(prog)s --size 128 171 --output-size 3000 4000 --benchmark ade20k_847 --limit-gib 1
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg benchmark`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config-file", default="ovseg_tiny", help="path or shipped name")
    parser.add_argument("--weights", default="random", help="name, path, or random")
    parser.add_argument("--size", type=int, nargs=2, default=(128, 128), metavar=("H", "W"))
    parser.add_argument("--output-size", type=int, nargs=2, metavar=("H", "W"), help="of labels")
    parser.add_argument("--benchmark", default="ade20k_150", help="class list to segment")
    parser.add_argument("--texts", type=int, default=64, help="prompts to compare text towers on")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--limit-gib", type=float, default=2.0, help="room for all scores at full size, see labels"
    )
    parser.add_argument("--questions", type=int, default=0, metavar="N", help="ask N vocabularies")
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    return parser
