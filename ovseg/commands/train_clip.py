"""`ovseg train-clip`: a CLIP that learns from noun-region pairs."""

from __future__ import annotations

import argparse
import json

from ovseg.clip_training.config import load_clip_config
from ovseg.clip_training.session import load_clip, make_evaluation, open_pairs, set_up
from ovseg.clip_training.train import train_clip
from ovseg.d2.utils import comm
from ovseg.training.distributed import run_distributed
from ovseg.utils.command_line import usage
from ovseg.utils.files import write_json


def main(args: argparse.Namespace) -> None:
    """Train or measure in as many processes as asked for."""
    run_distributed(run, args)


def run(args: argparse.Namespace) -> None:
    """Run in each process: read the recipe, load the CLIP, then train or measure it."""
    with usage():
        config = load_clip_config(args.config_file, args.opts or [])
        clip = load_clip(config, set_up(args))
        evaluate = make_evaluation(args, clip)
        if args.eval_only and evaluate is None:
            raise ValueError("--eval-only: add --eval-dataset or --eval-folder")
        pairs = None if args.eval_only else open_pairs(args, config, clip)
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
