"""The command line of the caption miner, and what it means."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from ovseg.data.captions.sources import KINDS
from ovseg.mining.executors import EXECUTORS
from ovseg.mining.matching import MatchConfig
from ovseg.mining.nouns import DEFAULT_STOP_WORDS, NounConfig
from ovseg.mining.outcomes import EXPORTS
from ovseg.mining.parts import MiningConfig
from ovseg.mining.taggers import TAGGERS
from ovseg.utils.files import read_text

__all__ = ["PRECISIONS", "PROPOSALS", "ModelChoice", "make_parser", "settings"]

PROPOSALS = ("model", "instances:FILE", "classes:FILE", "files:FOLDER", "grid:ROWSxCOLUMNS")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}

EXAMPLES = """examples:
  %(prog)s --source annotations/captions_train2017.json --output output/pairs --workers 8 --report
  %(prog)s --source pairs.tsv --image-root photos --output pairs --captions all --export tsv
  torchrun --nproc-per-node 8 %(prog)s --executor torchrun --source 'tars/*.tar' --output pairs
"""


@dataclass(frozen=True)
class ModelChoice:
    """Which models mine.

    Attributes:
        config_file: path or shipped name; "" for the one that belongs to the weights, else
            "ovseg_tiny".
        weights: name in the catalogue, path or address; "random" for random ones, with which
            time and memory can be measured; "" for MODEL.WEIGHTS of `opts`, else the config's
            trained weights.
        clip: another CLIP for the scores, of the config's architecture: a name or path; "" for
            the model's own.
        proposals: where regions come from, one of `PROPOSALS`.
        labels: training set whose labels explain proposals, a name or a dataset YAML; "" for none.
        duplicate_iou: see `MaskFormerProposer`.
        precision: one of `PRECISIONS`; the halves are several times faster on a GPU.
        opts: config overrides, KEY VALUE ...

    Raises:
        ValueError: an unknown precision.
    """

    config_file: str = ""
    weights: str = ""
    clip: str = ""
    proposals: str = "model"
    labels: str = ""
    duplicate_iou: float | None = None
    precision: str = "float32"
    opts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision: expected one of {tuple(PRECISIONS)}, got {self.precision!r}"
            )

    @property
    def dtype(self) -> torch.dtype | None:
        """What the models compute in; None leaves it to their weights."""
        return PRECISIONS[self.precision]


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """Make the parser.

    Args:
        description: of the program.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        description=description,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument_group("pictures and captions").add_argument
    add("--source", nargs="+", required=True, help="file, folder or pattern; several of a kind")
    add("--kind", choices=KINDS, default="auto")
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
    add("--export", nargs="+", choices=EXPORTS, default=[], help="write OUTPUT/KIND as well")
    add("--template", default="a photo of a {}.", help="title of exported pairs")
    add("--min-count", type=int, help="export nouns with at least so many pairs")
    add("--max-count", type=int, help="export at most so many pairs of a noun")


def settings(args: argparse.Namespace) -> tuple[MiningConfig, ModelChoice]:
    """Turn the command line into the library's settings.

    Args:
        args: what the parser returned.

    Returns:
        The miner's settings, and which models mine.

    Raises:
        ValueError: a value out of range.
        OSError: a file of words that cannot be read.
    """
    stop_words = DEFAULT_STOP_WORDS
    if args.stop_words is not None:
        stop_words = tuple(read_text(args.stop_words).split())
    of_nouns = ("tagger", "phrases", "lemma", "lower", "proper", "concreteness", "min_concreteness")
    nouns = {name: getattr(args, name) for name in of_nouns}
    config = MiningConfig(
        nouns=NounConfig(**nouns, stop_words=stop_words),
        matching=MatchConfig(threshold=args.threshold, margin=args.margin, mutual=args.mutual),
        captions=int(args.captions) if args.captions.isdigit() else args.captions,
        **{name: getattr(args, name) for name in ("templates", "shard_size", "batch_size")},
    )
    of_models = (
        "config_file",
        "weights",
        "clip",
        "proposals",
        "labels",
        "duplicate_iou",
        "precision",
    )
    models = {name: getattr(args, name) for name in of_models}
    return config, ModelChoice(opts=tuple(args.opts), **models)
