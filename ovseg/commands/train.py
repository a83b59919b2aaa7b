"""`ovseg train` and `ovseg eval`: a model that a config describes."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.data.loaders import build_train_loader
from ovseg.evaluation.evaluate import Results, evaluate
from ovseg.modeling.views import build_views
from ovseg.training.distributed import run_distributed
from ovseg.training.loop import train
from ovseg.training.preflight import check_datasets, check_weights
from ovseg.training.session import setup
from ovseg.training.weights import load_for_evaluation, load_for_training
from ovseg.utils.command_line import usage
from ovseg.weights.find import trained_weights


def main(args: argparse.Namespace) -> None:
    """Train or evaluate in as many processes as asked for."""
    run_distributed(run, args)


def run(args: argparse.Namespace) -> None:
    """Run in each process: set up, build the model, then evaluate or train it."""
    with usage():
        cfg = setup(args)
        check_datasets(cfg, evaluating=args.eval_only)
        check_weights(cfg, args)
    model: Any = build_model(cfg)
    if args.eval_only:
        run_directory = Path(cfg.OUTPUT_DIR) if args.resume else None
        loaded = load_for_evaluation(model, trained_weights(cfg), run_directory=run_directory)
        evaluate(cfg, build_views(cfg, model), weights=loaded)
        return

    def evaluate_in_views(
        cfg: CfgNode, model: Any, weights: Mapping[str, str]
    ) -> Mapping[str, Results]:
        return evaluate(cfg, build_views(cfg, model), weights=weights, goes_on=False)

    train(
        cfg,
        model,
        resume=args.resume,
        make_loader=build_train_loader,
        initialise=lambda: load_for_training(model, cfg.MODEL.WEIGHTS),
        evaluate=evaluate_in_views if cfg.DATASETS.TEST else None,
    )
