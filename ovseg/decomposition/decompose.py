"""Scores of a dataset with parts of OVSeg replaced by the truth, one after the other.

Source: the question of OVSeg (Liang et al., CVPR 2023, table 1), whether masks or their names hold
a two-stage model back, asked of any model and dataset and by groups of classes.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ovseg.clip_training.accuracy import (
    MIN_PIXELS,
    accuracy_of_ranks,
    class_ranks,
    proposal_scores,
)
from ovseg.d2.config import CfgNode
from ovseg.d2.data import MetadataCatalog
from ovseg.data.loaders import TestLoader, get_records
from ovseg.data.mappers import TestMapper
from ovseg.data.sampling import evenly
from ovseg.decomposition.oracles import Overlap, find_overlap, merge_labels, name_true_masks
from ovseg.evaluation.confusion import confusion_matrix
from ovseg.evaluation.counts import ImageCounts
from ovseg.evaluation.intervals import Bootstrap
from ovseg.evaluation.results import Measured
from ovseg.modeling.ovseg import OVSeg
from ovseg.readers.pictures import ImageError, read_label
from ovseg.tuning.sweep import (
    CLIP_ONLY,
    MASK_CLASSIFIER_ONLY,
    LabelledEncoding,
    ensemble_settings,
    require_plain,
)
from ovseg.vocab import Vocabulary

__all__ = ["ALL", "Decomposition", "Row", "decompose"]

logger = logging.getLogger(__name__)

# The group of all classes.
ALL = "all"
SCORED = {
    "system": "the system as it is",
    "mask_classifier": "mask classifier alone",
    "clip": "CLIP alone",
    "majority": "its proposals, each named by its majority class",
    "best": "best proposal of every true class, named right",
    "true_masks": "true masks, named by its CLIP",
}
RECALLS = (0.5, 0.75)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: short, for programs.
        label: what it is, in words.
        values: percentages by name of a group; NaN where no class of the group occurs.
        intervals: bootstrap intervals of the values, where there are any.
    """

    name: str
    label: str
    values: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Decomposition:
    """What was found.

    Args:
        dataset: its name.
        images: number of pictures counted.
        skipped: reason by file of those that were not.
        rows: the table.
        proposals: mean number of proposals per picture.
        bootstrap: how intervals were made.
    """

    dataset: str
    images: int
    skipped: Mapping[str, str]
    rows: tuple[Row, ...]
    proposals: float
    bootstrap: Bootstrap

    def __getitem__(self, name: str) -> Mapping[str, float]:
        """Look up the values of a row by its name."""
        return next(row.values for row in self.rows if row.name == name)


@dataclass(eq=False)
class _Found:
    """What is kept of the pictures: small, however many classes there are."""

    files: list[str] = field(default_factory=list)
    counts: defaultdict[str, list[ImageCounts]] = field(default_factory=lambda: defaultdict(list))
    # Per picture: classes (P,) and the best IoU of a proposal with each.
    best: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    # By kind of region, per picture: true classes (N,) and their ranks by CLIP.
    ranks: defaultdict[str, list[tuple[Tensor, Tensor]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    proposals: list[int] = field(default_factory=list)


@torch.no_grad()
def decompose(
    cfg: CfgNode,
    model: OVSeg,
    dataset_name: str,
    *,
    images: int | None = None,
    bootstrap: Bootstrap | None = None,
    progress: bool = False,
) -> Decomposition:
    """Find out where a model loses what it loses.

    Args:
        cfg: the config that the model was built from.
        model: in eval mode, with its weights.
        dataset_name: a registered dataset with label maps.
        images: use only so many pictures, evenly spread; None: all.
        bootstrap: how intervals are made.
        progress: show a bar.

    Returns:
        The table; a picture that cannot be read, or has no labelled pixel, is in no figure of it.

    Raises:
        ValueError: the config asks for something else than plain inference with an OVSeg, or no
            picture can be read.
    """
    require_plain(cfg, model)
    metadata = MetadataCatalog.get(dataset_name)
    records = evenly(get_records(dataset_name), images)
    loader = TestLoader(
        records=records,
        mapper=TestMapper(cfg),
        batch_size=cfg.SOLVER.TEST_IMS_PER_BATCH,
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )
    vocabulary = model.find_vocabulary([{"meta": {"dataset_name": dataset_name}}])
    pictures = _pictures(model, loader, len(vocabulary), metadata.ignore_label)
    found, skipped = _Found(), {}
    for file, picture in tqdm(
        pictures, dataset_name, total=len(records), unit=" images", disable=not progress
    ):
        if isinstance(picture, str):
            logger.error("left out: %s", picture)
            skipped[file] = picture
        else:
            found.files.append(file)
            _count(found, model, picture, vocabulary, metadata.ignore_label)
    skipped |= dict(loader.skipped)
    if not found.files:
        raise ValueError(
            f"expected pictures and label maps in {dataset_name!r}, none of {len(records)} could "
            f"be used; {next(iter(skipped.values()), '')}"
        )
    bootstrap = bootstrap or Bootstrap()
    return Decomposition(
        dataset=dataset_name,
        images=len(found.files),
        skipped=skipped,
        rows=_rows(found, dataset_name, bootstrap),
        proposals=float(np.mean(found.proposals)),
        bootstrap=bootstrap,
    )


def _pictures(
    model: OVSeg, loader: TestLoader, num_classes: int, ignore_label: int
) -> Iterator[tuple[str, LabelledEncoding | str]]:
    """Each picture's file, and its encoding and truth or the reason to leave it out."""
    for batch in loader:
        for inputs, encoding in zip(batch, model.encode(batch), strict=True):
            file = str(inputs["file_name"])
            try:
                labels = read_label(inputs["sem_seg_file_name"], classes=num_classes)
            except ImageError as error:
                yield file, str(error)
                continue
            if (labels == ignore_label).all():
                yield file, f"{inputs['sem_seg_file_name']}: no pixel has a class"
            else:
                yield file, LabelledEncoding(encoding, labels)


def _count(
    found: _Found,
    model: OVSeg,
    picture: LabelledEncoding,
    vocabulary: Vocabulary,
    ignore_label: int,
) -> None:
    """Add what one picture shows."""
    encoding, labels = picture
    threshold = model.ensemble.mask_threshold

    def count(row: str, predicted: np.ndarray) -> None:
        matrix = confusion_matrix(predicted, labels, len(vocabulary), ignore_label)
        found.counts[row].append(ImageCounts.of_matrix(matrix))

    count("system", model.decode(encoding, vocabulary).labels().cpu().numpy())
    for row, setting in (("mask_classifier", MASK_CLASSIFIER_ONLY), ("clip", CLIP_ONLY)):
        ensemble = ensemble_settings(setting, threshold)
        prediction = model.decode(encoding, vocabulary, ensemble=ensemble)
        count(row, prediction.labels().cpu().numpy())
    overlap = find_overlap(prediction, labels, ignore_label)
    for row, named in (("majority", overlap.majority()), ("best", overlap.best())):
        count(row, merge_labels(prediction, encoding, named, overlap.classes))
    logits, valid = name_true_masks(model, encoding, overlap.regions, vocabulary)
    count("true_masks", _paint(labels, overlap, logits, valid, len(vocabulary)))

    found.best.append((overlap.classes.cpu(), overlap.ious.amax(1).cpu()))
    found.proposals.append(int(prediction.valid.sum()))
    large = overlap.regions.sum((1, 2)) >= MIN_PIXELS  # (P,)
    _rank(found, "true masks", logits[large[valid]], overlap.classes[valid & large])
    shown = torch.from_numpy(labels).to(model.device)
    _rank(found, "proposals", *proposal_scores(prediction, shown))


def _paint(
    labels: np.ndarray, overlap: Overlap, logits: Tensor, valid: Tensor, num_classes: int
) -> np.ndarray:
    """The label map with the names that CLIP gave its classes; one without a name has none."""
    names = np.full(max(int(labels.max()), num_classes) + 1, num_classes)
    names[overlap.classes[valid].cpu().numpy()] = logits.argmax(1).cpu().numpy()
    return names[labels]


def _rank(found: _Found, kind: str, scores: Tensor, targets: Tensor) -> None:
    found.ranks[kind].append((targets.cpu(), class_ranks(scores, targets).cpu()))


def _rows(found: _Found, dataset_name: str, bootstrap: Bootstrap) -> tuple[Row, ...]:
    metadata = MetadataCatalog.get(dataset_name)
    measured = {
        row: Measured(
            dataset=dataset_name,
            class_names=metadata.stuff_classes,
            ignore_label=metadata.ignore_label,
            evaluation_set=metadata.get("evaluation_set") or {},
            class_groups=metadata.get("class_groups") or {},
            files=found.files,
            images=images,
            bootstrap=bootstrap,
        )
        for row, images in found.counts.items()
    }
    groups = measured["system"].sets.all
    return (
        *(_scored(row, measured[row], groups) for row in SCORED),
        *_overlaps(found, groups),
        *(
            _accuracy(found, kind, len(metadata.stuff_classes), groups)
            for kind in ("true masks", "proposals")
        ),
    )


def _scored(row: str, measured: Measured, groups: Mapping[str, Sequence[int]]) -> Row:
    keys = {ALL: "mIoU", **{group: f"mIoU-{group}" for group in groups}}
    ranges = measured.intervals
    return Row(
        f"mIoU/{row}",
        SCORED[row],
        {group: measured.scores[key] for group, key in keys.items()},
        {group: ranges[key] for group, key in keys.items() if key in ranges},
    )


def _overlaps(found: _Found, groups: Mapping[str, Sequence[int]]) -> Iterator[Row]:
    """Mean best IoU and recalls over all pairs of a picture and one of its classes."""
    classes, ious = (torch.cat(parts).numpy() for parts in zip(*found.best, strict=True))
    chosen = {ALL: np.ones(len(classes), bool)}
    chosen |= {group: np.isin(classes, list(ids)) for group, ids in groups.items()}

    def means(values: np.ndarray) -> dict[str, float]:
        return {
            group: 100.0 * float(values[inside].mean()) if inside.any() else float("nan")
            for group, inside in chosen.items()
        }

    yield Row("best_iou", "mean best IoU of a proposal", means(ious))
    for bound in RECALLS:
        label = f"true classes with a proposal of IoU {bound:g} or more"
        yield Row(f"recall/{bound:g}", label, means(ious >= bound))


def _accuracy(
    found: _Found, kind: str, num_classes: int, groups: Mapping[str, Sequence[int]]
) -> Row:
    targets, ranks = (torch.cat(parts) for parts in zip(*found.ranks[kind], strict=True))
    figures = accuracy_of_ranks(ranks, targets, num_classes, groups=groups)
    values = {ALL: figures["macro-top1"]}
    values |= {group: figures[f"macro-top1/{group}"] for group in groups}
    return Row(f"accuracy/{kind.replace(' ', '_')}", f"CLIP's accuracy on {kind}", values)
