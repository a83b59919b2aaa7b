"""The evaluator of semantic segmentation: counts of every image of a dataset, all their scores."""

from __future__ import annotations

import logging
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
from ovseg.evaluation.confusion import confusion_matrix
from ovseg.evaluation.counts import ImageCounts, class_counts, hash_labels, mean_ious
from ovseg.evaluation.examples import (
    ExampleKeeper,
    choose_examples,
    example_path,
    remove_other_examples,
)
from ovseg.evaluation.intervals import Bootstrap
from ovseg.evaluation.journal import Journal
from ovseg.evaluation.report import class_table
from ovseg.evaluation.results import EXAMPLES_FOLDER, Measured, write_result
from ovseg.readers.pictures import ImageError, read_image, read_label
from ovseg.utils.files import write_json
from ovseg.utils.masks import encode_rle
from ovseg.vocab.class_sets import ClassSets

__all__ = ["SemSegEvaluator"]

_REASONS_LOOKED_UP = 20

_logger = logging.getLogger(__name__)


class SemSegEvaluator(DatasetEvaluator):
    """Compare predicted with true label maps, over all processes.

    Classes, ignore label and groups (`evaluation_set`, `class_groups`) come from the dataset's
    metadata, label maps from its records. Images of the dataset that were not predicted, or whose
    label map is unreadable, are named in the results. Each image's counts are kept by themselves
    (sparse), so that the results do not depend on how images were spread over processes.

    Args:
        dataset_name: a registered dataset.
        distributed: merge the counts of all processes.
        output_dir: folder for the files of `ovseg.evaluation.results.write_result`; None writes
            nothing.
        write_predictions: also write `sem_seg_predictions.json`, COCO results with one run-length
            encoded mask per image and class.
        journal: where the results of single images are kept until all are there.
        restored: what the journal had at the start, in the main process; counts as seen.
        bootstrap: how confidence intervals are made.
        examples: best and worst images to keep the predictions of, at either end.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        distributed: bool = True,
        output_dir: str | Path | None = None,
        write_predictions: bool = False,
        journal: Journal | None = None,
        restored: Mapping[str, ImageCounts] | None = None,
        bootstrap: Bootstrap | None = None,
        examples: int = 6,
    ) -> None:
        if write_predictions and output_dir is None:
            raise ValueError("expected an output_dir with write_predictions, got None")
        metadata = MetadataCatalog.get(dataset_name)
        self._dataset_name = dataset_name
        self._distributed = distributed
        self._output_dir = None if output_dir is None else Path(output_dir)
        self._write_predictions = write_predictions
        self._journal = journal
        self._restored = dict(restored or {})
        self._bootstrap = bootstrap or Bootstrap()
        self._num_examples = examples if output_dir is not None else 0
        self._class_names: Sequence[str] = metadata.stuff_classes
        self._ignore_label: int = metadata.ignore_label
        self._evaluation_set: Mapping[str, Sequence[int]] = metadata.get("evaluation_set") or {}
        self._class_groups: Mapping[str, Sequence[int]] = metadata.get("class_groups") or {}
        # What cannot be scored is refused before anything is predicted.
        ClassSets.make(self._evaluation_set, self._class_groups, len(self._class_names))
        raw_ids = metadata.get("stuff_dataset_id_to_contiguous_id") or {}
        self._raw_ids = {index: raw for raw, index in raw_ids.items()}
        self.reset()

    def reset(self) -> None:
        """Forget everything seen so far, but not what was restored."""
        self._images: dict[str, ImageCounts] = dict(self._restored)
        self._unscored: dict[str, str] = {}
        self._examples = ExampleKeeper(self._examples_dir, self._num_examples)

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
            if file in self._images:
                if file not in self._restored:
                    _logger.warning("%s was predicted twice; only the first counts", file)
                continue
            try:
                label_file = given.get("sem_seg_file_name") or self._label_files[file]
                truth = read_label(label_file, classes=len(self._class_names))
            except ImageError as error:
                _logger.error("cannot evaluate %s: %s", file, error)
                self._unscored[file] = str(error)
                continue
            self._count(file, self._predicted_labels(file, output), truth)

    def _count(self, file: str, labels: np.ndarray, truth: np.ndarray) -> None:
        num_classes = len(self._class_names)
        try:
            matrix = confusion_matrix(labels, truth, num_classes, self._ignore_label)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error
        counts = ImageCounts.of_matrix(
            matrix,
            labels_hash=hash_labels(truth),
            predictions=self._encode(file, labels) if self._write_predictions else (),
        )
        if self._num_examples:
            score = float(mean_ious(class_counts([counts], num_classes))[0][0])
            self._examples.offer(file, score, labels)
        self._images[file] = counts
        if self._journal is not None:
            self._journal.append(file, counts)

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Compute the scores over all images, log them as tables and write the files.

        Returns:
            {"sem_seg": scores in percent by name}, see `ovseg.evaluation.confusion.scores`;
            None outside the main process.

        Raises:
            ValueError: not one image could be scored.
        """
        if self._journal is not None:
            self._journal.close()
        if self._distributed:
            self._merge()
            if not comm.is_main_process():
                return None
        if not self._images:
            raise ValueError(
                f"expected predictions for {self._dataset_name!r}, none could be scored"
                + "".join(f"; {reason}" for reason in list(self._unscored.values())[:1])
            )
        files = self._in_order()
        measured = Measured(
            dataset=self._dataset_name,
            class_names=self._class_names,
            ignore_label=self._ignore_label,
            evaluation_set=self._evaluation_set,
            class_groups=self._class_groups,
            files=[self._short_name(file) for file in files],
            images=[self._images[file] for file in files],
            bootstrap=self._bootstrap,
        )
        accounted = self._account_for_images()
        _logger.info(
            "%s: %d of %d images scored\n%s\n%s",
            *(self._dataset_name, accounted["scored"], accounted["expected"]),
            measured.summary(),
            class_table(measured.class_rows),
        )
        if self._output_dir is not None:
            write_result(self._output_dir, measured, accounted, self._choose_examples(files))
        if self._output_dir is not None and self._write_predictions:
            entries = [entry for image in measured.images for entry in image.predictions]
            write_json(self._output_dir / "sem_seg_predictions.json", entries)
        return OrderedDict(sem_seg=measured.scores)

    @cached_property
    def _label_files(self) -> dict[str, str]:
        records = DatasetCatalog.get(self._dataset_name)
        return {str(r["file_name"]): str(r["sem_seg_file_name"]) for r in records}

    @property
    def _examples_dir(self) -> Path:
        return (self._output_dir or Path()) / EXAMPLES_FOLDER

    def _in_order(self) -> list[str]:
        """List the scored images in the order of the dataset, whoever predicted them."""
        ranks = {file: rank for rank, file in enumerate(self._label_files)}
        return sorted(self._images, key=lambda file: (ranks.get(file, len(ranks)), file))

    def _short_name(self, file: str) -> str:
        root = MetadataCatalog.get(self._dataset_name).get("image_root")
        if root and Path(file).is_relative_to(root):
            return Path(file).relative_to(root).as_posix()
        return file

    def _choose_examples(self, files: Sequence[str]) -> dict[str, list[dict[str, str]]]:
        images = [self._images[file] for file in files]
        values, _ = mean_ious(class_counts(images, len(self._class_names)))
        by_file = dict(zip(files, values.tolist(), strict=True))
        chosen = choose_examples(by_file, self._num_examples)
        remove_other_examples(self._examples_dir, [f for part in chosen.values() for f in part])
        return {
            part: [
                {
                    "name": self._short_name(file),
                    "image": file,
                    "labels": self._label_files.get(file, ""),
                    "prediction": example_path(EXAMPLES_FOLDER, file).as_posix(),
                }
                for file in names
                if example_path(self._examples_dir, file).is_file()
            ]
            for part, names in chosen.items()
        }

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
        parts = comm.gather((self._images, self._unscored), dst=0)
        if not comm.is_main_process():
            return
        self.reset()
        for images, unscored in parts:
            self._images.update(images)
            self._unscored.update(unscored)

    def _account_for_images(self) -> dict[str, Any]:
        """Name the images of the dataset that are not in the result, with the reason."""
        missing: dict[str, str] = {}
        for file in self._label_files:
            if file not in self._images:
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
            "scored": len(self._images),
            "missing": missing,
        }


def _why_not_predicted(file: str) -> str:
    try:
        read_image(file)
    except ImageError as error:
        return str(error)
    return f"{file}: no prediction"
