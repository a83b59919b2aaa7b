"""`ovseg mine`: noun-region pairs of captioned pictures."""

from __future__ import annotations

import argparse
from pathlib import Path

from ovseg.commands.flags.choices import (
    CAPTION_KINDS,
    EXECUTORS,
    PAIR_EXPORTS,
    PRECISIONS,
    PROPOSALS,
    TAGGERS,
)

WORK = "mine"
DESCRIPTION = """Mine noun-region pairs from captioned pictures, to adapt a CLIP on.

Each noun of a caption gets the region of its picture that CLIP finds most similar. The records go
to OUTPUT/shards as parquet; a run that is interrupted and started again goes on.
"""
EXAMPLES = """examples:
  %(prog)s --source annotations/captions_train2017.json --output output/pairs --workers 8 --report
  %(prog)s --source pairs.tsv --image-root photos --output pairs --captions all --export tsv
  torchrun --nproc-per-node 8 -m ovseg mine --executor torchrun --source 'tars/*.tar' --output pairs
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg mine`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("pictures and captions").add_argument
    add("--source", nargs="+", required=True, help="file, folder or pattern; several of a kind")
    add("--kind", choices=CAPTION_KINDS, default="auto")
    add("--image-root", help="folder of the pictures, where the source does not tell")
    add("--captions", default="first", help="first, all, or the index of one (default first)")
    add("--limit", type=int, help="mine the first so many pictures only")
    add("--output", type=Path, required=True, help="folder of the run")
    add = parser.add_argument_group("models").add_argument
    add("--config-file", default="", help="path or shipped name (default: that of the weights)")
    add("--weights", default="", help="name, path or address (default: the config's)")
    add("--random-weights", dest="weights", action="store_const", const="random", help="to time it")
    add("--clip", default="", help="another CLIP to score with: name or path of its weights")
    add("--proposals", default="model", help=f"one of {', '.join(PROPOSALS)} (default model)")
    add(
        "--labels",
        default="",
        help="training set with label maps of the same pictures: what they show is named by them",
    )
    add("--duplicate-iou", type=float, help="leave out the model's masks that overlap so much")
    add(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="halves are faster on a GPU",
    )
    add("opts", nargs=argparse.REMAINDER, help="config overrides, KEY VALUE ...")
    _add_settings(parser)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("nouns").add_argument
    add("--tagger", choices=TAGGERS, default="auto")
    add("--phrases", action="store_true", help="take adjectives along")
    add("--lemma", action="store_true", help="put nouns in the singular")
    add("--keep-case", dest="lower", action="store_false")
    add("--proper", action="store_true", help="take proper nouns too")
    add("--stop-words", type=Path, help="file with words to leave out, instead of the usual ones")
    add("--concreteness", help="table of words and ratings")
    add("--min-concreteness", type=float, default=0.0)
    add = parser.add_argument_group("matching").add_argument
    add("--templates", default="vild", help="prompts that nouns are put into (default vild)")
    add("--threshold", type=float, help="lowest score")
    add("--margin", type=float, help="lowest lead over the second-best region")
    add("--mutual", action="store_true", help="the noun must be the region's best, too")
    add = parser.add_argument_group("running").add_argument
    add("--executor", choices=EXECUTORS, default="local")
    add("--workers", type=int, default=1, help="processes or actors, each with its own models")
    add("--shard-size", type=int, default=1000, help="pictures per file and step of resuming")
    add("--batch-size", type=int, default=8, help="pictures that go through the models together")
    add = parser.add_argument_group("afterwards").add_argument
    add("--report", action="store_true", help="write OUTPUT/report.html, to judge the pairs by")
    add("--export", nargs="+", choices=PAIR_EXPORTS, default=[], help="write OUTPUT/KIND as well")
    add("--template", default="a photo of a {}.", help="title of exported pairs")
    add("--min-count", type=int, help="export nouns with at least so many pairs")
    add("--max-count", type=int, help="export at most so many pairs of a noun")
