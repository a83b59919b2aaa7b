"""`ovseg tune`: the settings of OVSeg's ensemble."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovseg.commands.models import build_ovseg
from ovseg.config import load_cfg
from ovseg.d2.utils import setup_logger
from ovseg.data.catalog import register_builtin
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.splits import require_tunable
from ovseg.evaluation.manifest import make_manifest
from ovseg.training.weights import load_for_evaluation
from ovseg.tuning.cache import EncodingCache
from ovseg.tuning.report import text_tables, write_tuning
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY, Setting
from ovseg.tuning.tune import Grid, Tuning, template_vocabularies, tune
from ovseg.utils.command_line import usage
from ovseg.utils.files import require_writable
from ovseg.weights.find import named_weights, trained_weights
from ovseg.weights.record import config_for


def main(args: argparse.Namespace) -> Tuning:
    """Sweep, print, write."""
    setup_logger(name="ovseg")
    with usage():
        grid = Grid(
            ensemble_weights(args.ensemble_weights),
            numbers("--thresholds", args.thresholds),
            tuple(args.templates.split(",")),
        )
        opts = [*args.opts, *(["MODEL.WEIGHTS", args.weights] if args.weights else [])]
        cfg = load_cfg(args.config_file or config_for(named_weights(opts)), opts)
        register_builtin()
        dataset = resolve_dataset(args.dataset)
        require_tunable(dataset, known_as_test=args.known_as_test)
        folder = Path(cfg.OUTPUT_DIR) / "tuning"
        output = args.output or folder / dataset
        require_writable(output)
        model = build_ovseg(cfg)
        loaded = load_for_evaluation(model, trained_weights(cfg))
    tuning = tune(
        cfg,
        model,
        dataset,
        cache=EncodingCache.from_config(cfg, model, args.cache or folder / "cache"),
        grid=grid,
        metric=args.metric,
        images=args.images,
        known_as_test=args.known_as_test,
        progress=True,
    )
    chosen = tuning.best.templates
    manifest = make_manifest(
        cfg,
        dataset,
        metrics={},
        weights=loaded,
        vocabulary=template_vocabularies(cfg, model, dataset, [chosen])[chosen],
        run={"command": list(sys.argv)},
        remarks=[tuning.origin],
    )
    page = write_tuning(output, tuning, manifest)
    print(f"\n{text_tables(tuning)}\n\n{page}")
    return tuning


def ensemble_weights(words: str) -> tuple[Setting, ...]:
    """Read ensemble weights, commas between; 0 means CLIP alone, as in configs."""
    special: dict[str, Setting] = {"mask": MASK_CLASSIFIER_ONLY, "clip": CLIP_ONLY}

    def read(word: str) -> Setting:
        seen, *unseen = numbers("--ensemble-weights", word.replace("/", ",", 1))
        return (seen, unseen[0]) if unseen else seen or CLIP_ONLY

    return tuple(special[word] if word in special else read(word) for word in words.split(","))


def numbers(flag: str, words: str) -> tuple[float, ...]:
    """Read numbers, commas between."""
    try:
        return tuple(float(word) for word in words.split(","))
    except ValueError:
        raise ValueError(f"{flag}: expected numbers with commas between, got {words!r}") from None
