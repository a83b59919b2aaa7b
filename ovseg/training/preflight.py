"""What is looked at before anything is built: the folder, the datasets, the weights, the metrics.

A run that cannot succeed stops here, in seconds, and says why.
"""

from __future__ import annotations

import argparse
import difflib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ovseg.d2.config import CfgNode
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.loaders import get_records, get_training_records
from ovseg.data.mappers import LABEL_MAP_MAPPER, check_labels
from ovseg.training.checkpoint import FINAL_NAME, NUMBERED, latest_checkpoint
from ovseg.vocab import Vocabulary, are_trained, templates_by_name, trained_names
from ovseg.weights.find import holds_part, names_in_weights, trained_weights

__all__ = [
    "adopt_classes",
    "check_datasets",
    "check_folder",
    "check_metrics",
    "check_prompts",
    "check_weights",
]

logger = logging.getLogger(__name__)

NUM_CLASSES = "MODEL.SEM_SEG_HEAD.NUM_CLASSES"
MASK_HEAD = "sem_seg_head."
# Label maps that are read before training: a wrong list of classes shows in the first few.
_SAMPLE = 8
_ROW: tuple[Any, ...] = (str, str, (int, float), (int, float))


def check_folder(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Refuse to train from the start in the folder of another training.

    Args:
        cfg: full configuration.
        args: the command line.

    Raises:
        ValueError: the folder holds checkpoints, and the run neither resumes nor evaluates.
    """
    folder = Path(cfg.OUTPUT_DIR)
    if args.resume or args.eval_only or not folder.is_dir():
        return
    found = sorted(
        path.name
        for path in folder.iterdir()
        if path.name == FINAL_NAME or NUMBERED.fullmatch(path.name)
    )
    if found:
        raise ValueError(
            f"OUTPUT_DIR: expected a folder without a training run, got {folder}, which holds "
            f"{found[-1]}; add --resume to go on with that run, give another OUTPUT_DIR to start "
            "a new one, or remove the folder"
        )


def check_datasets(cfg: CfgNode, *, evaluating: bool) -> None:
    """List the files of all datasets of a run and read a few label maps of the training sets.

    Args:
        cfg: full configuration; `ovseg.data.catalog.register_builtin` was called.
        evaluating: whether the training sets are left alone.

    Raises:
        DatasetFilesError: files are missing.
        ImageError, ValueError: a dataset is unknown, empty or unusable, or a label is no class.
    """
    for entry in cfg.DATASETS.TEST:
        _require_dataset("DATASETS.TEST", entry)
        get_records(entry)
    if evaluating or cfg.INPUT.DATASET_MAPPER_NAME != LABEL_MAP_MAPPER:
        return
    for entry in cfg.DATASETS.TRAIN:
        _require_dataset("DATASETS.TRAIN", entry)
    records = get_training_records(cfg.DATASETS.TRAIN)
    metadata = MetadataCatalog.get(resolve_dataset(cfg.DATASETS.TRAIN[0]))
    for record in records[:: -(-len(records) // _SAMPLE)]:
        check_labels(
            record["sem_seg_file_name"],
            num_classes=cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            ignore_label=metadata.get("ignore_label", cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE),
        )


def check_weights(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Find the files of the weights; those that the catalogue knows are downloaded.

    Args:
        cfg: full configuration.
        args: the command line.

    Raises:
        FileNotFoundError, ValueError: there is no such file, or it is none of weights.
    """
    resumes = args.resume and latest_checkpoint(Path(cfg.OUTPUT_DIR)) is not None
    if not resumes:
        names_in_weights(trained_weights(cfg) if args.eval_only else cfg.MODEL.WEIGHTS)


def check_metrics(cfg: CfgNode) -> None:
    """Check the form of TEST.EXPECTED_RESULTS, which is otherwise read after the last picture.

    Args:
        cfg: full configuration.

    Raises:
        ValueError: a row is none, or there is not exactly one dataset to hold it against.
    """
    rows = cfg.TEST.EXPECTED_RESULTS
    for row in rows:
        if (
            not isinstance(row, (list, tuple))
            or len(row) != len(_ROW)
            or not all(isinstance(part, kind) for part, kind in zip(row, _ROW, strict=True))
        ):
            raise ValueError(
                "TEST.EXPECTED_RESULTS: expected rows of task, metric, value and tolerance, such "
                f"as ['sem_seg', 'mIoU', 42.8, 0.5], got {row!r}"
            )
    if rows and len(cfg.DATASETS.TEST) != 1:
        raise ValueError(
            "TEST.EXPECTED_RESULTS: expected exactly one dataset in DATASETS.TEST, got "
            f"{list(cfg.DATASETS.TEST)}; evaluate them one by one"
        )


def check_prompts(cfg: CfgNode) -> None:
    """Check the name of the prompt templates.

    Args:
        cfg: full configuration.

    Raises:
        ValueError: there are none of that name.
    """
    try:
        templates_by_name(cfg.MODEL.CLIP_ADAPTER.TEXT_TEMPLATES)
    except ValueError as error:
        raise ValueError(f"MODEL.CLIP_ADAPTER.TEXT_TEMPLATES: {error}") from error


def adopt_classes(cfg: CfgNode, opts: Sequence[str]) -> None:
    """Take the number of classes from the training set, and note its names as trained.

    Args:
        cfg: full configuration of a training run, not frozen; NUM_CLASSES and, in
            MODEL.CLIP_ADAPTER, TRAINED_NAMES and TRAINED_CLASSES are set. Nothing changes where
            the run does not train on label maps.
        opts: KEY VALUE ... of the command line: a number of classes that stands there is an error
            where the data have another; one of the config file gives way.

    Raises:
        ValueError: DATASETS.TRAIN names an unknown dataset, or the numbers contradict.
    """
    if cfg.INPUT.DATASET_MAPPER_NAME != LABEL_MAP_MAPPER or not cfg.DATASETS.TRAIN:
        return
    entry = cfg.DATASETS.TRAIN[0]
    name = _require_dataset("DATASETS.TRAIN", entry)
    metadata = MetadataCatalog.get(name)
    vocabulary = metadata.get("vocabulary") or Vocabulary.make(metadata.stuff_classes)
    head = cfg.MODEL.SEM_SEG_HEAD
    if len(vocabulary) != head.NUM_CLASSES:
        if NUM_CLASSES in opts:
            raise ValueError(
                f"{NUM_CLASSES}: expected {len(vocabulary)}, the number of classes of {entry}, got "
                f"{head.NUM_CLASSES}; leave it out, it follows from the data"
            )
        logger.info(
            "%s is %d, as %s has so many classes; the config's %d is that of other data",
            *(NUM_CLASSES, len(vocabulary), name, head.NUM_CLASSES),
        )
        head.NUM_CLASSES = len(vocabulary)
    _note_trained(cfg, vocabulary)


def _note_trained(cfg: CfgNode, vocabulary: Vocabulary) -> None:
    """Names of one's own count as trained; a list that the weights never saw counts no more."""
    adapter = cfg.MODEL.CLIP_ADAPTER
    listed = trained_names(adapter.TRAINED_NAMES)
    fresh = [
        name
        for name, known in zip(vocabulary.names, are_trained(vocabulary, listed), strict=True)
        if not known
    ]
    if not fresh:
        return
    goes_on = holds_part(cfg.MODEL.WEIGHTS, MASK_HEAD)
    if goes_on:
        adapter.TRAINED_CLASSES = list(dict.fromkeys([*adapter.TRAINED_CLASSES, *fresh]))
    else:
        adapter.TRAINED_NAMES, adapter.TRAINED_CLASSES = "", list(vocabulary.names)


def _require_dataset(key: str, entry: str) -> str:
    """The name of a dataset that is registered."""
    name = resolve_dataset(entry)
    known = DatasetCatalog.list()
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3)
        raise ValueError(
            f"{key}: expected the name of a dataset or the path of a .yaml file that describes "
            f"one, got {entry!r}"
            + (f"; did you mean {' or '.join(close)}?" if close else "; docs/your_data.md has more")
        )
    return name
