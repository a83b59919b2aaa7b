"""Evaluation on every dataset of `cfg.DATASETS.TEST`, and the record beside the results."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from ovseg.d2.config import CfgNode
from ovseg.d2.evaluation import (
    DatasetEvaluator,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from ovseg.d2.utils import comm
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.loaders import build_test_loader, get_records
from ovseg.evaluation import SemSegEvaluator
from ovseg.evaluation.counts import ImageCounts
from ovseg.evaluation.journal import Journal, JournalError
from ovseg.evaluation.manifest import evaluation_key, make_manifest
from ovseg.evaluation.page import write_report
from ovseg.evaluation.protocol import check_protocol, report_protocol
from ovseg.evaluation.results import load_result
from ovseg.utils.files import write_json
from ovseg.utils.folder_lock import only_run
from ovseg.vocab import Vocabulary

__all__ = ["Results", "evaluate"]

logger = logging.getLogger(__name__)

Results = Mapping[str, Mapping[str, float]]


@runtime_checkable
class OpenVocabulary(Protocol):
    """What an evaluation asks of a model besides its answers; see `ovseg.modeling.Segmentor`."""

    def find_vocabulary(self, batched_inputs: Sequence[Mapping[str, Any]]) -> Vocabulary:
        """Find the vocabulary that the inputs name."""
        ...

    def protocol(self) -> Mapping[str, str | int | float | bool]:
        """State the choices of inference that papers leave out of their tables."""
        ...


def evaluate(
    cfg: CfgNode,
    model: nn.Module,
    *,
    weights: Mapping[str, str] | None = None,
    goes_on: bool = True,
    make_loader: Callable[..., Any] = build_test_loader,
    make_evaluator: Callable[[CfgNode, str, Path], DatasetEvaluator] | None = None,
) -> OrderedDict[str, Results]:
    """Evaluate a model on each test set; every process of the run calls this.

    Writes, per dataset, what the evaluator writes (`ovseg.evaluation.results`), `manifest.json`
    (protocol, hashes, weights, config, backend, versions) and `report.html` to
    `OUTPUT_DIR/inference/<dataset>`, and a `report.html` of all sets beside them. An evaluation
    that was killed goes on where it stopped when it is started again with the same weights and
    settings; with others it is refused.

    Args:
        cfg: the full config; names the datasets.
        model: on its device, in the views that `cfg.TEST` asks for
            (`ovseg.modeling.build_views`).
        weights: what the model runs with (name, file, sha256), kept in the manifest.
        goes_on: whether what a killed evaluation found is kept and used; in the middle of training,
            where the next one is of other weights, it is of no use, and the training holds
            `OUTPUT_DIR` already.
        make_loader: makes the loader of one dataset from config and name; `done`, names of files
            to leave out, comes only where an evaluation is continued.
        make_evaluator: makes the evaluator of one dataset, writing to a folder; None takes ours.

    Returns:
        Metrics by dataset and task, e.g. `results["ade20k_sem_seg_val"]["sem_seg"]["mIoU"]`; the
        metrics are empty outside the main process.

    Raises:
        ValueError: if no test set is named.
        JournalError: the folder holds the beginning of another evaluation.
        BusyFolderError: another run is writing to `OUTPUT_DIR`.
    """
    if not cfg.DATASETS.TEST:
        raise ValueError(
            "DATASETS.TEST: expected the names of datasets to evaluate on, got none; add e.g. "
            "DATASETS.TEST \"('tinyscapes_val_sem_seg',)\""
        )
    names = [resolve_dataset(entry) for entry in cfg.DATASETS.TEST]
    for name in names:
        check_protocol(cfg, name)
    results: OrderedDict[str, Results] = OrderedDict()
    journals = []
    wanted = goes_on and comm.is_main_process()
    with only_run(cfg.OUTPUT_DIR, what="an evaluation", wanted=wanted):
        for name in names:
            folder = Path(cfg.OUTPUT_DIR) / "inference" / name
            vocabulary = _vocabulary(model, name)
            began = time.perf_counter()
            if make_evaluator is not None:
                restored: dict[str, ImageCounts] = {}
                loader, evaluator = make_loader(cfg, name), make_evaluator(cfg, name, folder)
            else:
                kept = weights if goes_on else None
                journal = _journal(cfg, name, folder / "journal", kept, vocabulary)
                restored = _restore(journal, name)
                # Without the keyword, a loader need not know about evaluations that go on.
                done = {"done": frozenset(restored)} if restored else {}
                loader = make_loader(cfg, name, **done)
                evaluator = SemSegEvaluator(
                    name, output_dir=folder, journal=journal, restored=restored
                )
                journals.append(journal)
            results[name] = inference_on_dataset(model, loader, evaluator)
            if comm.is_main_process():
                logger.info("Results on %s:", name)
                print_csv_format(results[name])
                report_protocol(cfg, results[name].get("sem_seg", {}))
                run = {
                    "processes": comm.get_world_size(),
                    "seconds": round(time.perf_counter() - began, 2),
                    "images_of_interrupted_runs": len(restored),
                }
                _leave_manifest(cfg, name, folder, weights, vocabulary, _protocol(model), run)
        if comm.is_main_process():
            _leave_reports(cfg)
            for journal in journals:
                if journal is not None:
                    journal.remove()
            if cfg.TEST.EXPECTED_RESULTS:
                _verify(cfg, results)
    return results


def _vocabulary(model: nn.Module, dataset_name: str) -> Vocabulary | None:
    if not isinstance(model, OpenVocabulary):
        return None
    return model.find_vocabulary([{"meta": {"dataset_name": dataset_name}}])


def _protocol(model: nn.Module) -> dict[str, Any]:
    return dict(model.protocol()) if isinstance(model, OpenVocabulary) else {}


def _journal(
    cfg: CfgNode,
    dataset_name: str,
    folder: Path,
    weights: Mapping[str, str] | None,
    vocabulary: Vocabulary | None,
) -> Journal | None:
    """Make the journal; without a hash of the weights nothing could continue the evaluation."""
    if not weights or not weights.get("sha256"):
        return None
    key = evaluation_key(cfg, dataset_name, weights=weights, vocabulary=vocabulary)
    return Journal(folder, key)


def _restore(journal: Journal | None, dataset_name: str) -> dict[str, ImageCounts]:
    """Read what an interrupted evaluation found, the same on every process."""
    if journal is None:
        return {}
    found: dict[str, ImageCounts] | JournalError = {}
    if comm.is_main_process():
        try:
            found = journal.read()
        except JournalError as error:
            found = error
    # The main process's view decides, or processes would share the rest out differently.
    found = comm.all_gather(found)[0]
    if isinstance(found, JournalError):
        raise found
    wanted = {str(record["file_name"]) for record in get_records(dataset_name)}
    restored = {file: counts for file, counts in found.items() if file in wanted}
    if restored:
        logger.info(
            "%s: going on where an interrupted evaluation stopped, %d of %d images are done",
            *(dataset_name, len(restored), len(wanted)),
        )
    return restored


def _leave_manifest(
    cfg: CfgNode,
    dataset_name: str,
    folder: Path,
    weights: Mapping[str, str] | None,
    vocabulary: Vocabulary | None,
    protocol: Mapping[str, Any],
    run: Mapping[str, Any],
) -> None:
    written = (folder / "metrics.json").is_file()
    manifest = make_manifest(
        cfg,
        dataset_name,
        metrics=load_result(folder).metrics if written else {},
        weights=weights,
        vocabulary=vocabulary,
        protocol=protocol,
        run=run,
        remarks=[cfg.TEST.TUNED_ON] if cfg.TEST.TUNED_ON else [],
    )
    write_json(folder / "manifest.json", manifest)


def _leave_reports(cfg: CfgNode) -> None:
    """Write a page per dataset and one of all sets of this run."""
    root = Path(cfg.OUTPUT_DIR) / "inference"
    folders = [root / resolve_dataset(name) for name in cfg.DATASETS.TEST]
    found = [load_result(folder) for folder in folders if (folder / "metrics.json").is_file()]
    for result in found:
        write_report(result.folder / "report.html", [result])
    if found:
        logger.info("report: %s", write_report(root / "report.html", found))


def _verify(cfg: CfgNode, results: Mapping[str, Results]) -> None:
    """Hold `TEST.EXPECTED_RESULTS` against the results of a single dataset."""
    if len(results) != 1:
        raise ValueError(
            "TEST.EXPECTED_RESULTS: expected exactly one dataset in DATASETS.TEST, got "
            f"{list(results)}; evaluate them one by one"
        )
    verify_results(cfg, next(iter(results.values())))
