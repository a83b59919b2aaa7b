"""`ovseg decompose`: what holds a model back."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovseg.commands.models import build_ovseg
from ovseg.config import load_cfg
from ovseg.d2.utils import setup_logger
from ovseg.data.catalog import register_builtin
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.decomposition.decompose import Decomposition, decompose
from ovseg.decomposition.report import text_table, write_decomposition
from ovseg.evaluation.manifest import make_manifest
from ovseg.training.weights import load_for_evaluation
from ovseg.utils.command_line import usage
from ovseg.utils.files import require_writable
from ovseg.weights.find import named_weights, trained_weights
from ovseg.weights.record import config_for


def main(args: argparse.Namespace) -> dict[str, Decomposition]:
    """Measure on every dataset of DATASETS.TEST, print, write."""
    setup_logger(name="ovseg")
    with usage():
        cfg = load_cfg(args.config_file or config_for(named_weights(args.opts)), args.opts)
        register_builtin()
        datasets = [resolve_dataset(name) for name in cfg.DATASETS.TEST]
        if not datasets:
            raise ValueError("DATASETS.TEST: expected the names of datasets, got none")
        folder = args.output or Path(cfg.OUTPUT_DIR) / "decomposition"
        require_writable(folder)
        model = build_ovseg(cfg)
        loaded = load_for_evaluation(model, trained_weights(cfg))
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
