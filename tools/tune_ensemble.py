"""Choose ensemble weight, mask threshold and templates on a training or validation split.

Masks and the features behind both scores are computed once and kept on disk; every setting then
costs a merge. Each number equals that of a full evaluation with the setting. A test split is
refused unless it is called one in words, and the words stay with the result.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.d2.utils import setup_logger
from ovseg.data.catalog import register_builtin
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.splits import TEST_SPLIT_FLAG, SplitError, require_tunable
from ovseg.evaluation.manifest import make_manifest
from ovseg.training.weights import load_for_evaluation
from ovseg.tuning.cache import EncodingCache
from ovseg.tuning.report import text_tables, write_tuning
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY, Setting
from ovseg.tuning.tune import Grid, Tuning, template_vocabularies, tune
from ovseg.vocab import TEMPLATE_NAMES
from ovseg.weights.find import named_weights, trained_weights
from ovseg.weights.record import config_for

DEFAULT = Grid()
EXAMPLE = """
examples:
  %(prog)s --config-file ovseg_tiny --dataset tinyscapes_val_sem_seg
  %(prog)s --weights ovseg_swinB --dataset ade20k_sem_seg_train --ensemble-weights mask,0.6,clip
"""


def ensemble_weights(words: str) -> tuple[Setting, ...]:
    """Read ensemble weights, commas between; 0 means CLIP alone, as in configs."""
    special: dict[str, Setting] = {"mask": MASK_CLASSIFIER_ONLY, "clip": CLIP_ONLY}

    def read(word: str) -> Setting:
        seen, slash, unseen = word.partition("/")
        return (float(seen), float(unseen)) if slash else float(seen) or CLIP_ONLY

    return tuple(special[word] if word in special else read(word) for word in words.split(","))


def numbers(words: str) -> tuple[float, ...]:
    """Read numbers, commas between."""
    return tuple(float(word) for word in words.split(","))


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", help="path or shipped name (default: the weights' own)")
    add("--dataset", required=True, help="registered name, or a YAML file")
    add("--weights", metavar="W", help="name, path, address (default: config's)")
    sweep, help_sweep = DEFAULT.weights, "mask,0.6,0.4/0.9,clip: one alone, one, two (seen/unseen)"
    add("--ensemble-weights", type=ensemble_weights, default=sweep, help=help_sweep)
    add("--thresholds", type=numbers, default=DEFAULT.thresholds, help="0.35,0.4")
    add("--templates", default=",".join(DEFAULT.templates), help=f"of {','.join(TEMPLATE_NAMES)}")
    add("--metric", default="mIoU", help="to choose by, e.g. mIoU-gt, hIoU-seen")
    add("--images", type=int, help="use so many pictures, evenly spread")
    add("--cache", type=Path, help="folder; default: OUTPUT_DIR/tuning/cache")
    add("--output", type=Path, help="folder; default: OUTPUT_DIR/tuning/DATASET")
    add(TEST_SPLIT_FLAG, action="store_true", dest="known_as_test", help="tune on it all the same")
    add("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, put last")
    return parser.parse_args(words)


def main(args: argparse.Namespace) -> Tuning:
    """Sweep, print, write."""
    setup_logger(name="ovseg")
    opts = [*args.opts, *(["MODEL.WEIGHTS", args.weights] if args.weights else [])]
    cfg = load_cfg(args.config_file or config_for(named_weights(opts)), opts)
    register_builtin()
    dataset = resolve_dataset(args.dataset)
    require_tunable(dataset, known_as_test=args.known_as_test)  # before anything slow
    grid = Grid(args.ensemble_weights, args.thresholds, tuple(args.templates.split(",")))
    model = build_model(cfg).eval()
    loaded = load_for_evaluation(model, trained_weights(cfg))
    folder = Path(cfg.OUTPUT_DIR) / "tuning"
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
    page = write_tuning(args.output or folder / dataset, tuning, manifest)
    print(f"\n{text_tables(tuning)}\n\n{page}")
    return tuning


if __name__ == "__main__":
    try:
        main(parse())
    except SplitError as error:
        sys.exit(f"refused: {error}")
