"""Zero-shot accuracy of a CLIP on ground-truth regions: what naming costs when masks are given.

Source: OVSeg (Liang et al., CVPR 2023), section 3.2: CLIP is measured on the ground-truth masks of
a validation set, one region per class and image.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from ovseg.clip import MaskPromptedCLIP
from ovseg.data.tinyscapes import ALL_NAMES, render_scene, scene_groups
from ovseg.modeling.region_classifier import RegionClassifier
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
    hits = {"masked": torch.zeros(len(vocabulary)), "box": torch.zeros(len(vocabulary))}
    counts = torch.zeros(len(vocabulary))
    for image, labels in pictures:
        ids, pixels = labels.unique(return_counts=True)
        ids = ids[(ids < len(vocabulary)) & (pixels >= min_pixels)].long()
        if not len(ids):
            continue
        masks = labels[None] == ids[:, None, None]  # (N, h, w)
        counts[ids] += 1
        for view, regions in (("masked", masks), ("box", box_masks(masks))):
            logits, _ = classifier.classify(image, regions.float(), vocabulary)  # (N, K + 1)
            hits[view][ids] += (logits[:, :-1].argmax(1) == ids).float()
    named = {**groups, "all": range(len(vocabulary))}
    return {
        f"{view}/{name}": round(100 * (hits[view] / counts)[list(ids)].nanmean().item(), 2)
        for view in hits
        for name, ids in named.items()
    }


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
