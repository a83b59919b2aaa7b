"""Adapt a CLIP to noun-region pairs, or measure one on given masks; see --help for examples."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.clip_training.config import load_clip_config
from ovseg.clip_training.session import (
    load_clip,
    make_clip_parser,
    make_evaluation,
    open_pairs,
    set_up,
)
from ovseg.clip_training.train import train_clip
from ovseg.d2.utils import comm
from ovseg.training.distributed import run_distributed
from ovseg.utils.files import write_json


def main(args: argparse.Namespace) -> None:
    """Run in each process: read the recipe, load the CLIP, then train or measure it."""
    try:
        config = load_clip_config(args.config_file, args.opts or [])
        clip = load_clip(config, set_up(args))
        evaluate = make_evaluation(args, clip)
        if args.eval_only and evaluate is None:
            raise ValueError("--eval-only: add --eval-dataset or --eval-folder")
        pairs = None if args.eval_only else open_pairs(args, config, clip)
    except (ValueError, OSError) as error:
        sys.exit(f"{Path(__file__).name}: {error}")  # what the user asked for, not a fault in here
    if pairs is None:
        assert evaluate is not None
        result = {"figures": evaluate(clip)}
    else:
        result = train_clip(
            config, clip, pairs, output_dir=args.output, evaluate=evaluate, resume=args.resume
        )
    if comm.is_main_process():
        name = "evaluation.json" if args.eval_only else "result.json"
        write_json(args.output / name, result)
        print(json.dumps(result, indent=1))


if __name__ == "__main__":
    run_distributed(main, make_clip_parser().parse_args())
