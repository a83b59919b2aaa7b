"""Build a memory bank of regions for CorrCLIP, or let one grow.

Every region of every picture gets a vector of the vision model, by which it is found, and one of
each CLIP. A run that is interrupted and started again goes on. CorrCLIP uses the bank with
MODEL.CORRCLIP.BANK.ENABLED True and MODEL.CORRCLIP.BANK.PATH its folder.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.d2.utils import setup_logger
from ovseg.data.captions.sources import KINDS
from ovseg.projects.corrclip.bank.build import build_memory_bank
from ovseg.projects.corrclip.bank.describe import ModelChoice, parts_maker
from ovseg.projects.corrclip.bank.index import INDEX_KINDS
from ovseg.projects.corrclip.sources import open_pictures
from ovseg.utils.command_line import run_parsed
from ovseg.utils.shard_runs import EXECUTORS

EXAMPLES = """examples:
  %(prog)s --config-file corrclip_tiny --source tinyscapes_train_sem_seg --limit 2000 \\
    --output output/banks/tiny --short 128 --workers 2
  %(prog)s --config-file corrclip_vitB --source train2017 --output banks/coco --append
  torchrun --nproc-per-node 8 %(prog)s --executor torchrun --config-file corrclip_vitB ...
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=form)
    add = parser.add_argument_group("pictures").add_argument
    add("--source", nargs="+", required=True, help="dataset, folder of pictures, or captions")
    add("--kind", choices=KINDS, default="auto", help="of a source that is no dataset")
    add("--image-root", help="folder of the pictures, where the source does not tell")
    add("--limit", type=int, help="the first so many pictures that the bank lacks")
    add("--output", type=Path, required=True, help="folder of the bank")
    add("--append", action="store_true", help="add what a finished bank does not have")
    add = parser.add_argument_group("models").add_argument
    add("--config-file", required=True, help="a CorrCLIP's: regions, values, and keys")
    add("--keys", default="", help="config of the CorrCLIP whose vision model makes the keys")
    add(
        "--further",
        nargs="+",
        default=[],
        help="configs of CorrCLIPs that give further values: CONFIG or NAME=CONFIG",
    )
    add("--short", type=int, default=448, help="shorter side of the pictures for the values")
    add("--max-size", type=int, default=2048, help="their longest side at most")
    add("opts", nargs=argparse.REMAINDER, help="config overrides of all, KEY VALUE ...")
    add = parser.add_argument_group("running").add_argument
    add("--executor", choices=EXECUTORS, default="local")
    add("--workers", type=int, default=1, help="processes or actors, each with its own models")
    add("--shard-size", type=int, default=100, help="pictures per file and step of resuming")
    add("--index", choices=INDEX_KINDS, default="exact", help="write an index of FAISS, too")
    return parser


def main(args: argparse.Namespace) -> int:
    """Build the bank."""
    setup_logger(name="ovseg").setLevel(logging.INFO)
    choice = ModelChoice(
        args.config_file,
        keys=args.keys,
        further=tuple(args.further),
        short=args.short,
        max_size=args.max_size,
        opts=tuple(args.opts),
    )
    how = ("shard_size", "append", "index", "executor", "workers", "limit")
    summary = build_memory_bank(
        open_pictures(args.source, args.kind, args.image_root),
        args.output,
        make_parts=parts_maker(choice),
        **{name: getattr(args, name) for name in how},
    )
    if summary is not None:  # None: one of the other ranks
        print(json.dumps(summary, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
