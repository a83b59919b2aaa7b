"""Choosing the ensemble's settings, without evaluating once per setting and without cheating.

OVSeg's ensemble weight, mask threshold and prompt templates move its scores by points (Liang et
al., CVPR 2023, appendix A.3). Whoever chooses them on the split that the result is reported on
reports too much, so that is refused unless it is asked for in so many words.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch
from tqdm import tqdm

from ovseg.d2.config import CfgNode
from ovseg.d2.data import MetadataCatalog
from ovseg.data.loaders import get_records
from ovseg.data.sampling import evenly
from ovseg.data.splits import TEST_SPLIT_FLAG, TUNABLE, Role, require_tunable
from ovseg.evaluation.confusion import scores
from ovseg.modeling.ovseg import OVSeg
from ovseg.readers.pictures import ImageError, read_label
from ovseg.tuning.cache import EncodingCache
from ovseg.tuning.sweep import (
    CLIP_ONLY,
    MASK_CLASSIFIER_ONLY,
    LabelledEncoding,
    Setting,
    ensemble_settings,
    require_plain,
    sweep,
)
from ovseg.vocab import Vocabulary, templates_by_name

__all__ = [
    "Grid",
    "TunedSetting",
    "Tuning",
    "template_vocabularies",
    "tune",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Grid:
    """The settings to try, each weight with each threshold and each list of templates.

    Args:
        weights: ensemble weights in (0, 1], pairs of them for seen and unseen names,
            `MASK_CLASSIFIER_ONLY` or `CLIP_ONLY`.
        thresholds: of the masks, in (0, 1).
        templates: names of template lists.

    Raises:
        ValueError: nothing to try, or a value out of range.
    """

    weights: tuple[Setting, ...] = (MASK_CLASSIFIER_ONLY, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, CLIP_ONLY)
    thresholds: tuple[float, ...] = (0.35, 0.4, 0.45, 0.5)
    templates: tuple[str, ...] = ("vild", "imagenet", "predefined")

    def __post_init__(self) -> None:
        if not (self.weights and self.thresholds and self.templates):
            raise ValueError("expected at least one weight, threshold and template list, got none")
        special = (MASK_CLASSIFIER_ONLY, CLIP_ONLY)
        for weight in self.weights:
            numbers = weight if isinstance(weight, tuple) else (weight,)
            valid = all(isinstance(number, float) and 0 < number <= 1 for number in numbers)
            if weight not in special and not valid:
                raise ValueError(
                    f"expected ensemble weights in (0, 1], or pairs, or {special}, got {weight!r}"
                )
        for threshold in self.thresholds:
            if not 0 < threshold < 1:
                raise ValueError(f"expected mask thresholds in (0, 1), got {threshold}")

    def __iter__(self) -> Iterator[tuple[str, float, Setting]]:
        return iter(product(self.templates, self.thresholds, self.weights))

    def __len__(self) -> int:
        return len(self.templates) * len(self.thresholds) * len(self.weights)


@dataclass(frozen=True)
class TunedSetting:
    """One setting and what it scores.

    Args:
        templates: name of the template list.
        threshold: of the masks.
        weight: of CLIP, see `Grid`.
        scores: percentages by name, without those of single classes.
    """

    templates: str
    threshold: float
    weight: Setting
    scores: Mapping[str, float]

    def options(self) -> tuple[str, ...]:
        """KEY VALUE words that set it in a config."""
        ensemble = ensemble_settings(self.weight, self.threshold)
        # 0 stands for CLIP alone in the released configurations.
        weight = ensemble.weight if ensemble.use_clip else 0.0
        unseen = ensemble.weight_unseen
        values = {
            "CLIP_ENSEMBLE": str(ensemble.use_clip),
            "CLIP_ENSEMBLE_WEIGHT": str(weight),
            "MASK_THR": str(self.threshold),
            "CLIP_ENSEMBLE_WEIGHT_UNSEEN": str(-1.0 if unseen is None else unseen),
            "TEXT_TEMPLATES": self.templates,
        }
        pairs = ((f"MODEL.CLIP_ADAPTER.{key}", value) for key, value in values.items())
        return tuple(word for pair in pairs for word in pair)


@dataclass(frozen=True)
class Tuning:
    """What a sweep found.

    Args:
        dataset: its name.
        role: of the split, see `split_role`.
        metric: what the best setting is best in.
        grid: what was tried.
        results: one per setting, in the grid's order.
        images: number of pictures counted.
        skipped: reason by file of those that could not be read.
        seconds: "filling the cache", "sweep" (all else) and "total".
    """

    dataset: str
    role: Role
    metric: str
    grid: Grid
    results: tuple[TunedSetting, ...]
    images: int
    skipped: Mapping[str, str]
    seconds: Mapping[str, float]

    @property
    def best(self) -> TunedSetting:
        """The first of the settings with the highest score."""
        scored = [r for r in self.results if not np.isnan(r.scores[self.metric])]
        return max(scored or self.results, key=lambda result: result.scores[self.metric])

    @property
    def origin(self) -> str:
        """How the settings were chosen, in words for a manifest."""
        words = (
            f"ensemble settings tuned for {self.metric} on {self.images} images of {self.dataset}"
        )
        if self.role in TUNABLE:
            return words
        return f"{words}, which is a test split ({TEST_SPLIT_FLAG})"


@torch.no_grad()
def tune(
    cfg: CfgNode,
    model: OVSeg,
    dataset_name: str,
    *,
    cache: EncodingCache,
    grid: Grid | None = None,
    metric: str = "mIoU",
    images: int | None = None,
    known_as_test: bool = False,
    progress: bool = False,
) -> Tuning:
    """Score every setting of a grid on a dataset, each with the numbers of a full evaluation.

    Args:
        cfg: the config that the model was built from.
        model: in eval mode, with its weights.
        dataset_name: a registered dataset with label maps.
        cache: of the same config and model.
        grid: what to try.
        metric: what to choose by, such as "mIoU", "mIoU-gt" or "hIoU-seen".
        images: use only so many pictures, evenly spread; None: all.
        known_as_test: see `require_tunable`.
        progress: show a bar.

    Returns:
        The scores of all settings.

    Raises:
        SplitError: the dataset is a test split, and the user did not say so.
        ValueError: the config asks for something else than plain inference with CLIP, the metric is
            not one of the scores, or no picture can be read.
    """
    grid = grid or Grid()
    role = require_tunable(dataset_name, known_as_test=known_as_test)
    require_plain(cfg, model)
    began, spent_before = time.perf_counter(), cache.seconds
    totals, skipped, count = _sweep(cfg, model, dataset_name, cache, grid, images, progress)
    metadata = MetadataCatalog.get(dataset_name)
    results = []
    for (templates, threshold, weight), matrix in totals.items():
        found = scores(
            matrix,
            metadata.stuff_classes,
            metadata.get("evaluation_set"),
            metadata.get("class_groups"),
        )
        if metric not in found:
            known = [name for name in found if not name.startswith(("IoU-", "ACC-"))]
            raise ValueError(f"metric: expected one of {known}, got {metric!r}")
        overall = {k: v for k, v in found.items() if not k.startswith(("IoU-", "ACC-"))}
        results.append(
            TunedSetting(templates, threshold, weight, overall | {metric: found[metric]})
        )
    total, filling = time.perf_counter() - began, cache.seconds - spent_before
    seconds = {"filling the cache": filling, "sweep": total - filling, "total": total}
    parts = (dataset_name, role, metric, grid, tuple(results), count, skipped, seconds)
    return Tuning(*parts)


def template_vocabularies(
    cfg: CfgNode, model: OVSeg, dataset_name: str, names: Iterable[str]
) -> dict[str, Vocabulary]:
    """A dataset's vocabulary with each of some template lists.

    Args:
        cfg: the config; the list "predefined" is its own.
        model: finds the vocabulary.
        dataset_name: a registered dataset.
        names: of template lists.

    Returns:
        Vocabularies by name of the template list.
    """
    vocabulary = model.find_vocabulary([{"meta": {"dataset_name": dataset_name}}])
    own = tuple(cfg.MODEL.CLIP_ADAPTER.PREDEFINED_PROMPT_TEMPLATES)
    return {
        name: replace(
            vocabulary, templates=own if name == "predefined" else templates_by_name(name)
        )
        for name in names
    }


def _sweep(
    cfg: CfgNode,
    model: OVSeg,
    dataset_name: str,
    cache: EncodingCache,
    grid: Grid,
    images: int | None,
    progress: bool,
) -> tuple[dict[tuple[str, float, Setting], np.ndarray], dict[str, str], int]:
    """Confusion matrices by setting, pictures left out, and the number of those counted."""
    metadata = MetadataCatalog.get(dataset_name)
    size = len(metadata.stuff_classes)
    vocabularies = template_vocabularies(cfg, model, dataset_name, grid.templates)
    for each in vocabularies.values():
        cache.read_texts(each)
    totals = {setting: np.zeros((size + 1, size + 1), dtype=np.int64) for setting in grid}
    skipped: dict[str, str] = {}
    count = 0
    records = evenly(get_records(dataset_name), images)
    for record in tqdm(records, desc=dataset_name, unit=" images", disable=not progress):
        try:
            truth = read_label(record["sem_seg_file_name"], classes=size)
            picture = LabelledEncoding(cache.encoding(record, grid.thresholds), truth)
        except ImageError as error:
            logger.error("left out: %s", error)
            skipped[str(record["file_name"])] = str(error)
            continue
        count += 1
        for threshold, templates in product(grid.thresholds, grid.templates):
            counts = sweep(
                model,
                picture,
                vocabularies[templates],
                grid.weights,
                threshold=threshold,
                ignore_label=metadata.ignore_label,
            )
            for weight, matrix in counts.items():
                totals[templates, threshold, weight] += matrix
    if not count:
        raise ValueError(
            f"expected pictures and label maps in {dataset_name!r}, none of {len(records)} could "
            f"be read; {next(iter(skipped.values()), '')}"
        )
    return totals, skipped, count
