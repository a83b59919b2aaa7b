"""One picture's proposals held against its true masks, and what they would give named right.

An oracle replaces one part of the system by the truth and leaves the others as they are; what the
score gains is what that part costs. Pixels with the ignore label take part in nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ovseg.modeling import MaskEncoding, MaskPrediction
from ovseg.modeling.ovseg import OVSeg
from ovseg.utils.resizing import resize
from ovseg.vocab import Vocabulary

__all__ = ["Overlap", "find_overlap", "merge_labels", "name_true_masks"]


@dataclass(frozen=True, eq=False)
class Overlap:
    """How a picture's Q proposals and its P classes overlap at the network's input size.

    Args:
        classes: (P,) int64, ids of the classes that the label map has, ascending.
        regions: (P, h, w) bool, their true masks; empty where a class is lost in resizing.
        intersections: (P, Q) pixels of a class in a proposal.
        ious: (P, Q) in [0, 1]; 0 for proposals without a pixel above the mask threshold.
    """

    classes: Tensor
    regions: Tensor
    intersections: Tensor
    ious: Tensor

    def majority(self) -> Tensor:
        """Name each proposal by the class that has the most pixels in it.

        Returns:
            (P, Q) bool; a proposal without any labelled pixel has no class.
        """
        named = torch.zeros_like(self.intersections, dtype=torch.bool)
        named.scatter_(0, self.intersections.argmax(0, keepdim=True), True)
        return named & (self.intersections > 0)

    def best(self) -> Tensor:
        """Give each class the proposal with the best IoU, and no other a class.

        Returns:
            (P, Q) bool; a proposal that is the best of several classes goes to the one that it fits
            best.
        """
        values, places = self.ious.max(1)  # (P,)
        of_best = torch.zeros_like(self.ious)
        of_best.scatter_(1, places[:, None], values[:, None])
        named = torch.zeros_like(of_best, dtype=torch.bool)
        named.scatter_(0, of_best.argmax(0, keepdim=True), True)
        return named & (of_best > 0)


def find_overlap(prediction: MaskPrediction, labels: np.ndarray, ignore_label: int) -> Overlap:
    """Compare proposals, cut at the mask threshold, with the true masks.

    Args:
        prediction: Q proposals.
        labels: (H, W) integers, of any size; at least one pixel is labelled.
        ignore_label: of pixels without a class.

    Returns:
        The overlap.
    """
    masks = prediction.masks
    ids = np.unique(labels)
    classes = torch.from_numpy(ids[ids != ignore_label].astype(np.int64)).to(masks.device)  # (P,)
    small = resize(labels, (masks.shape[1], masks.shape[2]))  # (h, w)
    truth = torch.from_numpy(small.astype(np.int64)).to(masks.device)
    regions = classes[:, None, None] == truth  # (P, h, w)
    labelled = truth.flatten() != ignore_label
    inside = (masks > prediction.mask_threshold).flatten(1)[:, labelled].float()  # (Q, N)
    of_class = regions.flatten(1)[:, labelled].float()  # (P, N)
    intersections = of_class @ inside.T  # whole numbers, exact below 2^24
    unions = of_class.sum(1)[:, None] + inside.sum(1) - intersections
    return Overlap(classes, regions, intersections, intersections / unions.clamp(min=1))


def merge_labels(
    prediction: MaskPrediction, encoding: MaskEncoding, named: Tensor, classes: Tensor
) -> np.ndarray:
    """Merge proposals that are named from outside as the model merges its own.

    Args:
        prediction: Q proposals of K classes.
        encoding: that it was made from; it knows by what quality the proposals count.
        named: (P, Q) bool, whether a proposal shows a class; proposals without one are left out.
        classes: (P,) int64, ids of the classes, ascending.

    Returns:
        (H, W) int64 class ids at output size.
    """
    # Class 0 has the pixels that no mask reaches, as if all K classes were merged.
    columns = torch.cat((classes.new_zeros(1), classes[classes > 0]))
    scores = prediction.masks.new_zeros(named.shape[1], len(columns))
    scores[:, torch.searchsorted(columns, classes)] = encoding.weigh(named.T.to(scores.dtype))
    merged = replace(prediction, class_scores=scores, proposal_scores=scores, clip_scores=None)
    return columns[merged.labels()].cpu().numpy()


@torch.no_grad()
def name_true_masks(
    model: OVSeg, encoding: MaskEncoding, regions: Tensor, vocabulary: Vocabulary
) -> tuple[Tensor, Tensor]:
    """Let the model's CLIP name true masks, cut out of the picture as proposals are.

    Args:
        model: whose CLIP is asked.
        encoding: of the picture, with its image.
        regions: (P, h, w) bool at the network's input size.
        vocabulary: K classes.

    Returns:
        (V, K) logits of the V masks that are not empty, and (P,) bool, which those are.
    """
    assert encoding.image is not None
    found = model.clip_adapter(encoding.image, regions)
    text = model.clip_adapter.text_features(vocabulary)  # (K + 1, D), "no object" last
    logits = model.clip_adapter.similarity(found.features[found.valid], text)[:, :-1]
    return logits, found.valid
