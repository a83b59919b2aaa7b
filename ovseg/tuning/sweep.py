"""One picture decoded under many settings of the ensemble.

Most of a picture's cost is the network and the regions' way through CLIP; the ensemble of OVSeg
(Liang et al., CVPR 2023, section 3.1) is a product at the end. So pictures are encoded once, and
each setting costs only a decoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ovseg.d2.config import CfgNode
from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.modeling import EnsembleSettings, MaskEncoding
from ovseg.modeling.ovseg import OVSeg
from ovseg.readers.pictures import read_label
from ovseg.vocab import Vocabulary

# Settings besides the ensemble weights in (0, 1].
MASK_CLASSIFIER_ONLY = "mask classifier only"
CLIP_ONLY = "CLIP only"
# A pair: the weights for seen and for unseen names.
Setting = str | float | tuple[float, float]


class LabelledEncoding(NamedTuple):
    """A picture that is encoded, and its truth.

    Attributes:
        encoding: of an OVSeg.
        labels: (H, W) integers.
    """

    encoding: MaskEncoding
    labels: np.ndarray


def require_plain(cfg: CfgNode, model: Any) -> None:
    """Refuse what encoding a picture once would not reproduce: views, and other merges.

    Args:
        cfg: the config that the model was built from.
        model: expected to be an OVSeg in semantic mode.

    Raises:
        ValueError: it is something else, or the config asks for more than plain inference.
    """
    if not isinstance(model, OVSeg) or model.inference_mode != "semantic":
        raise ValueError(
            "expected an OVSeg in semantic mode, got "
            f"{type(model).__name__} in mode {getattr(model, 'inference_mode', None)!r}; "
            "it has no ensemble of two classifiers, or another one"
        )
    switched = {
        "TEST.AUG.ENABLED": cfg.TEST.AUG.ENABLED,
        "TEST.SLIDING_WINDOW": cfg.TEST.SLIDING_WINDOW,
        "TEST.DENSE_CRF": cfg.TEST.DENSE_CRF,
    }
    wrong = [key for key, value in switched.items() if value]
    if wrong:
        raise ValueError(
            f"{', '.join(wrong)}: expected False, got True; pictures are encoded once, which is "
            "plain inference"
        )


@torch.no_grad()
def encode_all(
    model: OVSeg, loader: Iterable[Sequence[Mapping[str, Any]]]
) -> Iterator[LabelledEncoding]:
    """Encode a dataset.

    Args:
        model: in eval mode.
        loader: batches of model inputs with `sem_seg_file_name`.

    Yields:
        One picture after the other.
    """
    for batch in loader:
        for inputs, encoding in zip(batch, model.encode(batch), strict=True):
            yield LabelledEncoding(encoding, read_label(inputs["sem_seg_file_name"]))


def ensemble_settings(setting: Setting, threshold: float) -> EnsembleSettings:
    """Translate what is swept.

    Args:
        setting: an ensemble weight in (0, 1], a pair of them for seen and unseen names,
            `MASK_CLASSIFIER_ONLY` or `CLIP_ONLY`.
        threshold: of the masks.

    Returns:
        What `OVSeg.decode` takes.
    """
    if setting == MASK_CLASSIFIER_ONLY:
        return EnsembleSettings(use_clip=False, mask_threshold=threshold)
    if isinstance(setting, tuple):
        weight, unseen = setting
        return EnsembleSettings(weight=weight, weight_unseen=unseen, mask_threshold=threshold)
    weight = 0.0 if setting == CLIP_ONLY else float(setting)  # 0 in the released configurations
    return EnsembleSettings(weight=weight, mask_threshold=threshold)


@torch.no_grad()
def sweep(
    model: OVSeg,
    picture: LabelledEncoding,
    vocabulary: Vocabulary,
    settings: Sequence[Setting],
    *,
    threshold: float | None = None,
    ignore_label: int = 255,
) -> dict[Setting, np.ndarray]:
    """Count right and wrong pixels of a picture under each setting.

    Args:
        model: whose encoding it is, in semantic mode.
        picture: see `encode_all`.
        vocabulary: K classes.
        settings: see `ensemble_settings`.
        threshold: of the masks; None: the model's own.
        ignore_label: of the ground truth.

    Returns:
        Per setting the (K + 1, K + 1) confusion matrix of `ovseg.evaluation.confusion`.
    """
    threshold = model.ensemble.mask_threshold if threshold is None else threshold
    counts = {}
    for setting in settings:
        ensemble = ensemble_settings(setting, threshold)
        prediction = model.decode(picture.encoding, vocabulary, ensemble=ensemble)
        labels = prediction.labels().cpu().numpy()
        counts[setting] = confusion_matrix(labels, picture.labels, len(vocabulary), ignore_label)
    return counts


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
