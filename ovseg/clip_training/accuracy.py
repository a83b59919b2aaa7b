"""Zero-shot accuracy of a CLIP on regions: what naming costs when masks are given.

Source: OVSeg (Liang et al., CVPR 2023), section 3.2: CLIP is measured on the ground-truth masks of
a validation set, one region per class and image. The same on proposals shows what remains of it
where regions are cut out as they are at inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.clip import MaskPromptedCLIP
from ovseg.modeling import MaskPrediction
from ovseg.modeling.region_classifier import RegionClassifier
from ovseg.tinyscapes import ALL_NAMES, render_scene, scene_groups
from ovseg.utils.boxes import masks_to_boxes
from ovseg.vocab import Vocabulary


def box_masks(masks: Tensor) -> Tensor:
    """Fill the tight box of each mask: the same crop with its surroundings left in.

    Args:
        masks: (N, h, w) bool, none empty.

    Returns:
        (N, h, w) bool.
    """
    filled = torch.zeros_like(masks)
    for mask, (left, top, right, bottom) in zip(
        filled, masks_to_boxes(masks).tolist(), strict=True
    ):
        mask[top:bottom, left:right] = True
    return filled


class ClassAccuracy:
    """Counts how many regions of each class were named right.

    Args:
        num_classes: K.
    """

    def __init__(self, num_classes: int) -> None:
        self.hits = torch.zeros(num_classes)
        self.counts = torch.zeros(num_classes)

    def add(self, ids: Tensor, named: Tensor) -> None:
        """Count regions.

        Args:
            ids: (N,) their classes.
            named: (N,) the classes that they were taken for.
        """
        size = len(self.counts)
        self.counts += ids.bincount(minlength=size)
        self.hits += ids[named == ids].bincount(minlength=size)

    def by_group(self, groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
        """Mean over the classes of each group, in percent; NaN where a group has no region.

        Args:
            groups: class ids by name of a group; "all" is added.
        """
        per_class = 100 * self.hits / self.counts  # NaN for a class without regions
        named = {**groups, "all": range(len(per_class))}
        return {
            name: round(per_class[list(ids)].nanmean().item(), 2) for name, ids in named.items()
        }


@torch.no_grad()
def crop_accuracy(
    classifier: RegionClassifier,
    pictures: Iterable[tuple[Tensor, Tensor]],
    vocabulary: Vocabulary,
    *,
    groups: Mapping[str, Sequence[int]],
    min_pixels: int = 64,
) -> dict[str, float]:
    """Top-1 accuracy over all classes of a vocabulary, averaged over the classes of each group.

    Args:
        classifier: crops, fills and compares the regions.
        pictures: image (3, h, w) RGB 0-255 and its labels (h, w), class ids; others are ignored.
        vocabulary: K classes, in the order of the ids.
        groups: class ids by name of a group.
        min_pixels: smaller regions are left out.

    Returns:
        In percent, "masked/<group>" for regions with their surroundings filled and "box/<group>"
        for the same boxes left as they are; group "all" is added. A group without regions is NaN.
    """
    found = {view: ClassAccuracy(len(vocabulary)) for view in ("masked", "box")}
    for image, labels in pictures:
        ids, pixels = labels.unique(return_counts=True)
        ids = ids[(ids < len(vocabulary)) & (pixels >= min_pixels)].long()
        if not len(ids):
            continue
        masks = labels[None] == ids[:, None, None]  # (N, h, w)
        for view, regions in (("masked", masks), ("box", box_masks(masks))):
            logits, _ = classifier.classify(image, regions.float(), vocabulary)  # (N, K + 1)
            found[view].add(ids, logits[:, :-1].argmax(1))
    return {
        f"{view}/{name}": value
        for view, accuracy in found.items()
        for name, value in accuracy.by_group(groups).items()
    }


def proposal_names(
    prediction: MaskPrediction, labels: Tensor, *, threshold: float, min_share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """What proposals show, and what CLIP takes them for.

    Args:
        prediction: Q proposals of K classes, with CLIP's scores.
        labels: (H, W) class ids; others are ignored.
        threshold: a pixel belongs to a proposal above this value.
        min_share: a proposal counts if one class has at least this share of its pixels.

    Returns:
        (N,) classes that have the most pixels in the N proposals that count, and (N,) those of
        CLIP's highest scores.

    Raises:
        ValueError: if CLIP was not asked.
    """
    if prediction.clip_scores is None:
        raise ValueError("expected a prediction with CLIP's scores, got one without")
    count = prediction.num_classes
    size = prediction.masks.shape[1:]
    small = F.interpolate(labels[None, None].float(), size, mode="nearest")[0, 0].long()  # (h, w)
    small[(small < 0) | (small >= count)] = count
    regions = prediction.masks > threshold  # (Q, h, w)
    pixels = torch.stack([small[r].bincount(minlength=count + 1) for r in regions])  # (Q, K + 1)
    most, ids = pixels[:, :-1].max(1)
    clear = prediction.valid & (most >= min_share * pixels.sum(1)) & (most > 0)
    return ids[clear], prediction.clip_scores.argmax(1)[clear]


def tiny_crop_accuracy(
    clip: MaskPromptedCLIP, *, split: str = "val", count: int = 200, mask_prompt: bool = False
) -> dict[str, float]:
    """Measure a CLIP on scenes of tinyscapes, over all its classes.

    Args:
        clip: the model.
        split: "train", "val" or "test".
        count: scenes.
        mask_prompt: whether CLIP sees the masks besides the regions.

    Returns:
        See `crop_accuracy`.
    """
    scenes = (render_scene(split, index) for index in range(count))
    pictures = (
        (torch.from_numpy(s.image).permute(2, 0, 1).float(), torch.from_numpy(s.labels))
        for s in scenes
    )
    classifier = RegionClassifier(clip_model=clip, mask_prompt=mask_prompt)
    vocabulary = Vocabulary.make(ALL_NAMES)
    return crop_accuracy(classifier, pictures, vocabulary, groups=scene_groups())
