"""Say what holds a model back on a dataset with label maps: its masks, their names, or the merge.

Evaluates the system as it is, each of its two classifiers alone, its proposals named by the truth,
and true masks named by its CLIP; how well proposals fit, and how often CLIP is right. Of a test
split this is no way to choose anything: what is chosen belongs on a validation split.
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
from ovseg.decomposition.decompose import Decomposition, decompose
from ovseg.decomposition.report import text_table, write_decomposition
from ovseg.evaluation.manifest import make_manifest
from ovseg.training.weights import load_for_evaluation
from ovseg.weights.find import named_weights, trained_weights
from ovseg.weights.record import config_for

EXAMPLE = """
examples:
  %(prog)s --config-file ovseg_tiny --limit 100
  %(prog)s --config-file ovseg_swinB --output output/why \\
      DATASETS.TEST "('ade20k_sem_seg_val',)"
"""


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", help="path or shipped name (default: the weights' own)")
    parser.add_argument("--limit", type=int, metavar="N", help="use N pictures, evenly spread")
    parser.add_argument(
        "--output",
        type=Path,
        help="a folder per dataset goes here; default: OUTPUT_DIR/decomposition",
    )
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, put last")
    return parser.parse_args(words)


def main(args: argparse.Namespace) -> dict[str, Decomposition]:
    """Measure on every dataset of DATASETS.TEST, print, write."""
    setup_logger(name="ovseg")
    cfg = load_cfg(args.config_file or config_for(named_weights(args.opts)), args.opts)
    register_builtin()
    datasets = [resolve_dataset(name) for name in cfg.DATASETS.TEST]
    model = build_model(cfg).eval()
    loaded = load_for_evaluation(model, trained_weights(cfg))
    folder = args.output or Path(cfg.OUTPUT_DIR) / "decomposition"
    results = {}
    for name in datasets:
        found = results[name] = decompose(cfg, model, name, images=args.limit, progress=True)
        manifest = make_manifest(
            cfg,
            name,
            metrics={},
            weights=loaded,
            vocabulary=model.find_vocabulary([{"meta": {"dataset_name": name}}]),
            protocol=model.protocol(),
            run={"command": list(sys.argv)},
        )
        page = write_decomposition(folder / name, found, manifest)
        print(f"\n{text_table(found)}\n\n{page}")
    return results


if __name__ == "__main__":
    if not main(parse()):
        sys.exit("expected the names of datasets in DATASETS.TEST, got none")
