"""`ovseg benchmark`: what segmenting a picture costs."""

from __future__ import annotations

import argparse
from pathlib import Path

WORK = "benchmark"
DESCRIPTION = """Measure what segmenting an image costs, by stage, and what saving measures save.

Runs a config with the given or with random weights on a random image. What is learned changes the
cost in one way only: masks that a trained model leaves empty cost CLIP nothing.

With --receipt several ways are measured in turns: the reference, which saves nothing, the package
as it is, and those that --ways lists (YAML: title, opts as KEY VALUE pairs, without as savings to
leave out, texts or blocks). --grow measures how time and memory grow, --dataset what each way
scores, --train how fast the config trains. What of these one run measures joins what the file of
figures has; --page sets all files beside it as docs/performance.md.
"""
EXAMPLES = """
examples:
  %(prog)s --config-file ovseg_swinB --size 640 853 --benchmark ade20k_847
  %(prog)s --config-file ovseg_swinB --size 427 640 --questions 20
  %(prog)s --size 128 171 --output-size 3000 4000 --benchmark ade20k_847 --limit-gib 1
  %(prog)s --weights ovseg_tiny --benchmark tinyscapes --receipt --dataset tinyscapes_val_sem_seg \\
      --grow names=20,200 proposals --output docs/performance/tiny.json --page docs/performance.md
  %(prog)s --config-file ovseg_swinB --size 427 640 --receipt --ways docs/ways.yaml --repeats 1 \\
      --masks-from ovseg_tiny --output docs/performance/swinB.json --page docs/performance.md
"""
GROW = "names, pixels (millions), proposals, batch; usual sizes without any"


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
    parser.add_argument("--benchmark", default="ade20k_150", help="class list to segment")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, help="write the figures to this JSON file")
    stages = parser.add_argument_group("stages and savings of one config")
    stages.add_argument("--output-size", type=int, nargs=2, metavar=("H", "W"), help="of labels")
    stages.add_argument("--texts", type=int, default=64, help="prompts to compare text towers on")
    stages.add_argument(
        "--limit-gib", type=float, default=2.0, help="room for all scores at full size, see labels"
    )
    stages.add_argument("--questions", type=int, default=0, metavar="N", help="ask N vocabularies")
    ways = parser.add_argument_group("ways against the reference")
    ways.add_argument("--receipt", action="store_true", help="measure the ways in turns")
    ways.add_argument("--ways", type=Path, metavar="YAML", help="further ways")
    ways.add_argument(
        "--masks-from", metavar="MODEL", help="show a scene of tinyscapes, with this model's masks"
    )
    ways.add_argument("--dataset", help="score the ways on it; its first picture is measured on")
    ways.add_argument("--pictures", type=int, metavar="N", help="the first N of the data set")
    ways.add_argument("--grow", nargs="+", metavar="KIND[=SIZE,...]", default=[], help=GROW)
    ways.add_argument("--grow-ways", nargs="+", metavar="TITLE", help="default: all but reference")
    ways.add_argument("--train", type=int, metavar="N", help="measure N iterations of training")
    ways.add_argument("--page", type=Path, help="write this page from the files beside --output")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, put last")
    return parser
