"""The evaluator of semantic segmentation: one confusion matrix over a dataset, all its scores."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.evaluation import DatasetEvaluator
from ovseg.d2.utils import comm
from ovseg.evaluation.confusion import CONVENTIONS, confusion_matrix, scores
from ovseg.evaluation.report import class_rows, class_table, summary_table, write_class_csv
from ovseg.utils.environment import environment_record
from ovseg.utils.files import atomic_path
from ovseg.utils.images import ImageError, read_image, read_label
from ovseg.utils.masks import encode_rle

__all__ = ["SemSegEvaluator", "class_names_hash"]

_REASONS_LOOKED_UP = 20

_logger = logging.getLogger(__name__)


class SemSegEvaluator(DatasetEvaluator):
    """Compare predicted with true label maps, over all processes.

    Classes, ignore label and groups (`evaluation_set`, `class_groups`) come from the dataset's
    metadata, label maps from its records. Images of the dataset that were not predicted, or whose
    label map is unreadable, are named in the results.

    Args:
        dataset_name: a registered dataset.
        distributed: merge the counts of all processes.
        output_dir: folder for `metrics.json` and `per_class.csv`; None writes nothing.
        write_predictions: also write `sem_seg_predictions.json`, COCO results with one run-length
            encoded mask per image and class.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        distributed: bool = True,
        output_dir: str | Path | None = None,
        write_predictions: bool = False,
    ) -> None:
        if write_predictions and output_dir is None:
            raise ValueError("expected an output_dir with write_predictions, got None")
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._write_predictions = write_predictions
        self._class_names: Sequence[str] = metadata.stuff_classes
        self._ignore_label: int = metadata.ignore_label
        self._evaluation_set: Mapping[str, Sequence[int]] = metadata.get("evaluation_set") or {}
        self._class_groups: Mapping[str, Sequence[int]] = metadata.get("class_groups") or {}
        raw_ids = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
        self._raw_ids = {index: raw for raw, index in raw_ids.items()}
        self.reset()

    def reset(self) -> None:
        """Forget everything seen so far."""
        size = len(self._class_names) + 1
        self._matrix = np.zeros((size, size), dtype=np.int64)
        self._scored: set[str] = set()
        self._unscored: dict[str, str] = {}
        self._predictions: list[dict[str, Any]] = []

    def process(
        self, inputs: Iterable[Mapping[str, Any]], outputs: Iterable[Mapping[str, Tensor]]
    ) -> None:
        """Count the pixels of a batch.

        Args:
            inputs: model inputs with `file_name` and, if known, `sem_seg_file_name`.
            outputs: per image `labels` (H, W) integers, or `sem_seg` (K, H, W) scores whose
                largest decides.

        Raises:
            ValueError: a prediction differs in size from its label map, or holds labels that are
                not classes of the dataset.
        """
        for given, output in zip(inputs, outputs, strict=True):
            file = str(given["file_name"])
            if file in self._scored:
                _logger.warning("%s was predicted twice; only the first counts", file)
                continue
            try:
                truth = read_label(given.get("sem_seg_file_name") or self._label_files[file])
            except ImageError as error:
                _logger.error("cannot evaluate %s: %s", file, error)
                self._unscored[file] = str(error)
                continue
            labels = self._predicted_labels(file, output)
            try:
                self._matrix += confusion_matrix(
                    labels, truth, len(self._class_names), self._ignore_label
                )
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from error
            self._scored.add(file)
            if self._write_predictions:
                self._predictions += self._encode(file, labels)

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the scores over all images, log them as tables and write the files.

        Returns:
            {"sem_seg": scores in percent by name}, see `ovseg.evaluation.confusion.scores`;
            None outside the main process.

        Raises:
            ValueError: not one image could be scored.
        """
        if self._distributed:
            self._merge()
            if not comm.is_main_process():
                return None
        if not self._scored:
            raise ValueError(
                f"expected predictions for {self._dataset_name!r}, none could be scored"
                + "".join(f"; {reason}" for reason in list(self._unscored.values())[:1])
            )
        result = scores(self._matrix, self._class_names, self._evaluation_set, self._class_groups)
        rows = class_rows(self._matrix, self._class_names, result, self._all_groups())
        images = self._account_for_images()
        _logger.info(
            "%s: %d of %d images scored\n%s\n%s",
            *(self._dataset_name, images["scored"], images["expected"]),
            summary_table(result, len(self._class_names), self._evaluation_set, self._class_groups),
            class_table(rows),
        )
        if self._output_dir is not None:
            _write_json(self._output_dir / "metrics.json", self._record(result, images))
            write_class_csv(self._output_dir / "per_class.csv", rows)
        if self._output_dir is not None and self._write_predictions:
            _write_json(self._output_dir / "sem_seg_predictions.json", self._predictions)
        return OrderedDict(sem_seg=result)

    @cached_property
    def _label_files(self) -> dict[str, str]:
        records = DatasetCatalog.get(self._dataset_name)
        return {str(r["file_name"]): str(r["sem_seg_file_name"]) for r in records}

    def _predicted_labels(self, file: str, output: Mapping[str, Tensor]) -> np.ndarray:
        num_classes = len(self._class_names)
        if "labels" in output:
            labels = np.asarray(output["labels"].cpu())  # (H, W)
            lowest, highest = (labels.min(), labels.max()) if labels.size else (0, 0)
        else:
            highest = len(output["sem_seg"]) - 1
            labels, lowest = output["sem_seg"].argmax(dim=0).cpu().numpy(), 0  # (H, W)
        # A pixel predicted as something else would drop out of the counts instead of being wrong.
        if lowest < 0 or highest >= num_classes:
            raise ValueError(
                f"{file}: expected predictions of the {num_classes} classes of "
                f"{self._dataset_name!r}, got labels in {lowest}..{highest}; evaluate with the "
                "dataset's own vocabulary, without background class or unlabelled pixels"
            )
        return labels

    def _encode(self, file: str, labels: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "file_name": file,
                "category_id": self._raw_ids.get(int(label), int(label)),
                "segmentation": encode_rle(labels == label),
            }
            for label in np.unique(labels)
        ]

    def _merge(self) -> None:
        comm.synchronize()
        state = (self._matrix, self._scored, self._unscored, self._predictions)
        parts = comm.gather(state, dst=0)
        if not comm.is_main_process():
            return
        self.reset()
        for matrix, scored, unscored, predictions in parts:
            self._matrix += matrix
            self._scored |= scored
            self._unscored.update(unscored)
            self._predictions += predictions

    def _all_groups(self) -> dict[str, Sequence[int]]:
        groups: dict[str, Sequence[int]] = {}
        for name, ids in self._evaluation_set.items():
            groups[name] = ids
            groups[f"un{name}"] = [i for i in range(len(self._class_names)) if i not in set(ids)]
        return {**groups, **self._class_groups}

    def _account_for_images(self) -> dict[str, Any]:
        """Name the images of the dataset that are not in the result, with the reason."""
        missing: dict[str, str] = {}
        for file in self._label_files:
            if file not in self._scored:
                look = len(missing) < _REASONS_LOOKED_UP
                reason = _why_not_predicted(file) if look else "no prediction"
                missing[file] = self._unscored.get(file, reason)
        if missing:
            _logger.error(
                "%d of %d images of %s are not in the result: %s",
                *(len(missing), len(self._label_files), self._dataset_name),
                "; ".join(list(missing.values())[:_REASONS_LOOKED_UP]),
            )
        return {
            "expected": len(self._label_files),
            "scored": len(self._scored),
            "missing": missing,
        }

    def _record(self, result: Mapping[str, float], images: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "dataset": self._dataset_name,
            "sem_seg": result,
            "conventions": dict(CONVENTIONS),
            "images": images,
            "num_classes": len(self._class_names),
            "class_names_sha256": class_names_hash(self._class_names),
            "ignore_label": self._ignore_label,
            "environment": environment_record(),
        }


def class_names_hash(class_names: Sequence[str]) -> str:
    """Fingerprint of a class list: names and order.

    Args:
        class_names: names in the order of the ids.

    Returns:
        SHA-256 of the names as a JSON list, hexadecimal.
    """
    return hashlib.sha256(json.dumps(list(class_names)).encode()).hexdigest()


def _why_not_predicted(file: str) -> str:
    try:
        read_image(file)
    except ImageError as error:
        return str(error)
    return f"{file}: no prediction"


def _write_json(path: Path, value: Any) -> None:
    with atomic_path(path) as temporary:
        text = json.dumps(_without_nan(value), indent=1, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, by null."""
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
