"""Running a model over a dataset and reporting what an evaluator finds."""

from __future__ import annotations

import logging
import pprint
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, MutableSequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from torch import nn

from ovseg.d2._lite import comm
from ovseg.d2._lite.config import CfgNode

__all__ = [
    "DatasetEvaluator",
    "DatasetEvaluators",
    "inference_on_dataset",
    "print_csv_format",
    "verify_results",
]

_SECONDS_BETWEEN_REPORTS = 5.0


class DatasetEvaluator:
    """Base class of evaluators: collects outputs over a dataset, then computes metrics."""

    def reset(self) -> None:
        """Forget everything; called before each round."""

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Take in one batch.

        Args:
            inputs: what the model got.
            outputs: what it returned, one entry per input.
        """

    def evaluate(self) -> Any:
        """Compute the metrics over all batches.

        Returns:
            Metrics by task: {task: {metric: value}}, or None outside the main process.
        """


class DatasetEvaluators(DatasetEvaluator):
    """Several evaluators behind the interface of one."""

    def __init__(self, evaluators: MutableSequence[DatasetEvaluator]) -> None:
        """Combine evaluators.

        Args:
            evaluators: must report under different task names.
        """
        super().__init__()
        self._evaluators = evaluators

    def reset(self) -> None:
        """Reset each evaluator."""
        for evaluator in self._evaluators:
            evaluator.reset()

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Show the batch to each evaluator."""
        for evaluator in self._evaluators:
            evaluator.process(inputs, outputs)

    def evaluate(self) -> OrderedDict[str, Any]:
        """Merge the results of all evaluators."""
        results: OrderedDict[str, Any] = OrderedDict()
        for evaluator in self._evaluators:
            result = evaluator.evaluate()
            if not comm.is_main_process() or result is None:
                continue
            twice = [task for task in result if task in results]
            if twice:
                raise AssertionError(f"two evaluators report under the same name: {twice}")
            results.update(result)
        return results


def inference_on_dataset(
    model: Callable[[Any], Any] | nn.Module,
    data_loader: Any,
    evaluator: DatasetEvaluator | MutableSequence[DatasetEvaluator] | None,
    callbacks: dict[str, Callable[[], None]] | None = None,
) -> Any:
    """Run a model over a loader without gradients and evaluate its outputs.

    Args:
        model: called with each batch; a module runs in eval mode and gets its mode back.
        data_loader: iterable of batches, with a length.
        evaluator: one, several, or None to run the model only.
        callbacks: functions to call under on_start, before_inference, after_inference, on_end.

    Returns:
        What `evaluator.evaluate()` returns; {} where that is None.
    """
    logger = logging.getLogger(__name__)
    total = len(data_loader)
    logger.info("start inference on %d batches", total)
    if evaluator is None:
        evaluator = DatasetEvaluators([])
    elif isinstance(evaluator, MutableSequence):
        evaluator = DatasetEvaluators(evaluator)
    evaluator.reset()
    run_callback = _callback_runner(callbacks)
    start = last_report = time.perf_counter()
    seconds_in_model = 0.0
    with ExitStack() as stack:
        if isinstance(model, nn.Module):
            stack.enter_context(_eval_mode(model))
        stack.enter_context(torch.no_grad())
        run_callback("on_start")
        for done, inputs in enumerate(data_loader, start=1):
            run_callback("before_inference")
            model_start = time.perf_counter()
            outputs = model(inputs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds_in_model += time.perf_counter() - model_start
            run_callback("after_inference")
            evaluator.process(inputs, outputs)
            now = time.perf_counter()
            if now - last_report > _SECONDS_BETWEEN_REPORTS:
                last_report = now
                per_batch = (now - start) / done
                eta = timedelta(seconds=int(per_batch * (total - done)))
                logger.info("inference %d/%d, %.4f s/iter, ETA %s", done, total, per_batch, eta)
        run_callback("on_end")
    seconds = time.perf_counter() - start
    logger.info(
        "total inference time %s (%.6f s/iter, %.6f of it in the model, %d processes)",
        timedelta(seconds=int(seconds)),
        seconds / max(total, 1),
        seconds_in_model / max(total, 1),
        comm.get_world_size(),
    )
    results = evaluator.evaluate()
    return {} if results is None else results


def _callback_runner(callbacks: dict[str, Callable[[], None]] | None) -> Callable[[str], None]:
    known = callbacks or {}

    def run(stage: str) -> None:
        if stage in known:
            known[stage]()

    return run


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Log the main metrics of each task in comma-separated lines; per-class ones are left out.

    Args:
        results: {task: {metric: value}}; names with "-" count as per-class.
    """
    if not isinstance(results, Mapping):
        raise AssertionError(f"results must be a mapping by task, got {type(results).__name__}")
    logger = logging.getLogger(__name__)
    for task, metrics in results.items():
        if not isinstance(metrics, Mapping):
            logger.info("copypaste: %s=%s", task, metrics)
            continue
        main = {name: value for name, value in metrics.items() if "-" not in name}
        logger.info("copypaste: Task: %s", task)
        logger.info("copypaste: %s", ",".join(main))
        logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in main.values()))


def verify_results(cfg: CfgNode, results: Mapping[str, Mapping[str, float]]) -> bool:
    """Hold results against `cfg.TEST.EXPECTED_RESULTS`; end the process if they miss.

    Args:
        cfg: its EXPECTED_RESULTS lists (task, metric, value, tolerance).
        results: {task: {metric: value}}.

    Returns:
        True if every expectation is met.

    Raises:
        SystemExit: with status 1 if one is not.
    """
    expected = cfg.TEST.EXPECTED_RESULTS
    if not expected:
        return True
    logger = logging.getLogger(__name__)
    for task, metric, value, tolerance in expected:
        actual = results[task].get(metric)
        if actual is None or not np.isfinite(actual) or abs(actual - value) > tolerance:
            logger.error("result verification failed at %s/%s", task, metric)
            logger.error("expected: %s", expected)
            logger.error("actual: %s", pprint.pformat(results))
            sys.exit(1)
    logger.info("results verification passed")
    return True
