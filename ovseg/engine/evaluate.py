"""Evaluation on every data set of `cfg.DATASETS.TEST`, and the record beside the results."""

from __future__ import annotations

import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from ovseg.d2 import backend
from ovseg.d2.config import CfgNode
from ovseg.d2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from ovseg.d2.utils import comm
from ovseg.data.build import build_test_loader
from ovseg.engine.tta import AugmentedSegmentor
from ovseg.evaluation import SemSegEvaluator
from ovseg.modeling.segmentor import Segmentor
from ovseg.modeling.sliding_window import SlidingWindow
from ovseg.utils.environment import environment_record
from ovseg.utils.files import atomic_path

__all__ = ["evaluate", "wrap_for_testing"]

logger = logging.getLogger(__name__)

Results = Mapping[str, Mapping[str, float]]


def evaluate(
    cfg: CfgNode,
    model: Segmentor,
    *,
    weights: Mapping[str, str] | None = None,
    make_loader: Callable[[CfgNode, str], Any] = build_test_loader,
    make_evaluator: Callable[[CfgNode, str, Path], DatasetEvaluator] | None = None,
) -> OrderedDict[str, Results]:
    """Evaluate a model on each test set; every process of the run calls this.

    Writes, per data set, what the evaluator writes (metrics, tables) and `manifest.json` (weights,
    config, backend, environment, duration) to `OUTPUT_DIR/inference/<data set>`.

    Args:
        cfg: the full config; names the data sets and, with TEST.AUG.ENABLED, the scales.
        model: on its device, not wrapped.
        weights: what the model runs with (name, file, sha256), kept in the manifest.
        make_loader: makes the loader of one data set.
        make_evaluator: makes the evaluator of one data set, writing to a folder.

    Returns:
        Metrics by data set and task, e.g. `results["ade20k_sem_seg_val"]["sem_seg"]["mIoU"]`; the
        metrics are empty outside the main process.

    Raises:
        ValueError: if no test set is named.
    """
    if not cfg.DATASETS.TEST:
        raise ValueError(
            "DATASETS.TEST: expected the names of data sets to evaluate on, got none; add e.g. "
            "DATASETS.TEST \"('tinyscapes_val_sem_seg',)\""
        )
    make_evaluator = make_evaluator or _default_evaluator
    subject = wrap_for_testing(cfg, model)
    results: OrderedDict[str, Results] = OrderedDict()
    for name in cfg.DATASETS.TEST:
        folder = Path(cfg.OUTPUT_DIR) / "inference" / name
        began = time.perf_counter()
        loader = make_loader(cfg, name)
        results[name] = inference_on_dataset(subject, loader, make_evaluator(cfg, name, folder))
        if comm.is_main_process():
            logger.info("Results on %s:", name)
            print_csv_format(results[name])
            manifest = _manifest(cfg, name, time.perf_counter() - began, weights)
            with atomic_path(folder / "manifest.json") as partial:
                partial.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    if comm.is_main_process() and cfg.TEST.EXPECTED_RESULTS:
        _verify(cfg, results)
    return results


def wrap_for_testing(cfg: CfgNode, model: Segmentor) -> nn.Module:
    """Wrap a model for the sliding window and the augmentation that `cfg.TEST` asks for.

    Raises:
        ValueError: for TEST.DENSE_CRF, which is not part of the package.
    """
    if cfg.TEST.DENSE_CRF:
        raise ValueError("TEST.DENSE_CRF: expected False, got True; there is no CRF here")
    window = SlidingWindow.from_config(cfg, model) if cfg.TEST.SLIDING_WINDOW else None
    if cfg.TEST.AUG.ENABLED:
        return AugmentedSegmentor.from_config(cfg, model, window=window)
    return window or model


def _default_evaluator(cfg: CfgNode, dataset_name: str, folder: Path) -> DatasetEvaluator:
    return SemSegEvaluator(dataset_name, output_dir=folder)


def _manifest(
    cfg: CfgNode, dataset_name: str, seconds: float, weights: Mapping[str, str] | None
) -> dict[str, object]:
    """What is needed to tell, later, how the numbers beside it came about."""
    return {
        "dataset": dataset_name,
        "weights": dict(weights or {"name": cfg.MODEL.WEIGHTS}),
        "backend": backend(),
        "processes": comm.get_world_size(),
        "seconds": round(seconds, 2),
        "test_time_augmentation": bool(cfg.TEST.AUG.ENABLED),
        "sliding_window": bool(cfg.TEST.SLIDING_WINDOW),
        "environment": environment_record(),
        "config": cfg.dump(),
    }


def _verify(cfg: CfgNode, results: Mapping[str, Results]) -> None:
    """Hold `TEST.EXPECTED_RESULTS` against the results of a single data set."""
    if len(results) != 1:
        raise ValueError(
            "TEST.EXPECTED_RESULTS: expected exactly one data set in DATASETS.TEST, got "
            f"{list(results)}; evaluate them one by one"
        )
    verify_results(cfg, next(iter(results.values())))
