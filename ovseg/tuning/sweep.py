"""Masks and mask-classifier scores computed once, then named and merged under many settings.

Most of a picture's cost is the backbone and the regions' way through CLIP; the ensemble of OVSeg
(Liang et al., CVPR 2023, section 3.1) is a product at the end. So masks are kept, CLIP names them
once, and each ensemble weight costs only a merge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.modeling import MaskPrediction
from ovseg.modeling.ensemble import ensemble_scores
from ovseg.modeling.ovseg import OVSeg
from ovseg.utils.images import read_label
from ovseg.vocab import Vocabulary

# Settings besides the ensemble weights in (0, 1].
MASK_CLASSIFIER_ONLY = "mask classifier only"
CLIP_ONLY = "CLIP only"
Setting = str | float


@dataclass(frozen=True)
class MaskedPicture:
    """What the first stage found in a picture, and its truth.

    Attributes:
        image: (3, h, w) float32 RGB 0-255, at the network's input size.
        masks: (Q, h, w) float32 in [0, 1].
        proposal_scores: (Q, K) of the mask classifier.
        labels: (H, W) integers, the ground truth.
    """

    image: Tensor
    masks: Tensor
    proposal_scores: Tensor
    labels: np.ndarray


NamedPicture = tuple[MaskedPicture, MaskPrediction]


def propose(
    model: OVSeg, loader: Iterable[Sequence[Mapping[str, Any]]], vocabulary: Vocabulary
) -> Iterator[MaskedPicture]:
    """Run the first stage over a data set.

    Args:
        model: in eval mode; its setting of the ensemble does not matter.
        loader: batches of model inputs with `sem_seg_file_name`.
        vocabulary: K classes.

    Yields:
        One picture after the other.
    """
    for batch in loader:
        images = model.prepare(batch).images
        for inputs, image, found in zip(
            batch, images, _masks_only(model, batch, vocabulary), strict=True
        ):
            labels = read_label(inputs["sem_seg_file_name"])
            yield MaskedPicture(image, found.masks, found.proposal_scores, labels)


def _masks_only(
    model: OVSeg, batch: Sequence[Mapping[str, Any]], vocabulary: Vocabulary
) -> list[MaskPrediction]:
    ensemble, model.clip_ensemble = model.clip_ensemble, False
    try:
        return model.predict_masks(batch, vocabulary)
    finally:
        model.clip_ensemble = ensemble


def name_masks(
    model: OVSeg, pictures: Iterable[MaskedPicture], vocabulary: Vocabulary
) -> Iterator[NamedPicture]:
    """Run the second stage: CLIP's scores of the masks, merged with the model's own weight.

    Args:
        model: names the masks; `model.clip_ensemble` must be on.
        pictures: see `propose`.
        vocabulary: K classes.

    Yields:
        One picture after the other, with its scores.

    Raises:
        ValueError: if the model runs without its CLIP, so that there would be nothing to weigh.
    """
    if not model.clip_ensemble:
        raise ValueError(
            "expected a model with MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE True, got one without CLIP"
        )
    for picture in pictures:
        size = (picture.labels.shape[0], picture.labels.shape[1])
        parts = (picture.image, picture.masks, picture.proposal_scores)
        with torch.no_grad():
            prediction = model.score(*parts, vocabulary, size)
        yield picture, prediction


def class_scores(prediction: MaskPrediction, setting: Setting) -> Tensor:
    """Final scores of the masks under one setting.

    Args:
        prediction: with the scores of both classifiers.
        setting: an ensemble weight in (0, 1], `MASK_CLASSIFIER_ONLY` or `CLIP_ONLY`.

    Returns:
        (Q, K).
    """
    if setting == MASK_CLASSIFIER_ONLY or prediction.clip_scores is None:
        return prediction.proposal_scores
    weight = 0.0 if setting == CLIP_ONLY else float(setting)
    parts = (prediction.proposal_scores, prediction.clip_scores, prediction.valid)
    return ensemble_scores(*parts, weight=weight)


def sweep(
    pictures: Iterable[NamedPicture],
    num_classes: int,
    settings: Sequence[Setting],
    *,
    ignore_label: int = 255,
) -> dict[Setting, np.ndarray]:
    """Count right and wrong pixels under each setting.

    Args:
        pictures: see `name_masks`.
        num_classes: K.
        settings: see `class_scores`.
        ignore_label: of the ground truth.

    Returns:
        Per setting the (K + 1, K + 1) confusion matrix of `ovseg.evaluation.confusion`.
    """
    totals: dict[Setting, np.ndarray] = {
        setting: np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
        for setting in settings
    }
    for picture, prediction in pictures:
        for setting, total in totals.items():
            merged = replace(prediction, class_scores=class_scores(prediction, setting))
            labels = merged.labels().numpy()
            total += confusion_matrix(labels, picture.labels, num_classes, ignore_label)
    return totals


def grouped_scores(
    matrix: np.ndarray, names: Sequence[str], groups: Mapping[str, Sequence[int]]
) -> dict[str, float]:
    """Reduce a confusion matrix to mIoU, overall and per group, in the paper's convention.

    Args:
        matrix: (K + 1, K + 1), see `sweep`.
        names: K class names.
        groups: class ids by name of a group.

    Returns:
        Percentages: "mIoU" and "mIoU-<group>".
    """
    everything = scores(matrix, names, class_groups=groups)
    return {key: everything[key] for key in ("mIoU", *(f"mIoU-{name}" for name in groups))}
