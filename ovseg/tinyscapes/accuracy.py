"""Zero-shot accuracy of a CLIP on the true masks of tinyscapes, over all its classes."""

from __future__ import annotations

from ovseg.clip import MaskPromptedCLIP
from ovseg.clip_training.accuracy import evaluate_regions, label_regions
from ovseg.tinyscapes import ALL_NAMES, render_scene, scene_groups
from ovseg.tinyscapes.ablation_pairs import without_mask
from ovseg.vocab import Vocabulary

__all__ = ["crop_accuracy", "macro_accuracy"]

MACRO = "macro-top1"


def crop_accuracy(
    clip: MaskPromptedCLIP, *, split: str = "val", count: int = 200, mask_prompt: bool = False
) -> dict[str, float]:
    """Measure a CLIP on the regions of scenes, one per class and scene.

    Args:
        clip: left in the mode that it is in.
        split: "train", "val" or "test".
        count: scenes.
        mask_prompt: whether CLIP sees the masks besides the regions.

    Returns:
        Top-1 in percent, averaged over the classes of a group: "masked/<group>" for regions with
        their surroundings filled and "box/<group>" for the same boxes left as they are; group "all"
        is added. A group without regions is NaN.
    """
    scenes = (render_scene(split, index) for index in range(count))
    pictures = ((scene.image, scene.labels) for scene in scenes)
    masked = label_regions(pictures, ALL_NAMES, image_size=clip.image_size)
    vocabulary, groups = Vocabulary.make(ALL_NAMES), scene_groups()
    found: dict[str, float] = {}
    for view, pairs in (("masked", masked), ("box", without_mask(masked))):
        figures = evaluate_regions(clip, pairs, vocabulary, groups=groups, mask_prompt=mask_prompt)
        found |= macro_accuracy(figures, view)
    return found


def macro_accuracy(figures: dict[str, float], name: str) -> dict[str, float]:
    """Of the figures of `top_accuracy` the top-1 over classes, as "<name>/<group>"."""
    groups = {
        key.removeprefix(f"{MACRO}/"): value
        for key, value in figures.items()
        if key.startswith(f"{MACRO}/")
    }
    return {f"{name}/{group}": value for group, value in {**groups, "all": figures[MACRO]}.items()}
