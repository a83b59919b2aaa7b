from __future__ import annotations

import math

import torch
from torch import Tensor

from ovseg.clip_training.accuracy import box_masks, crop_accuracy, proposal_names
from ovseg.modeling import MaskPrediction
from ovseg.vocab import Vocabulary


class NamesByArea:
    """Says class 0 for a region of fewer than 20 pixels, else class 1."""

    def classify(
        self, image: Tensor, masks: Tensor, vocabulary: Vocabulary
    ) -> tuple[Tensor, Tensor]:
        large = masks.flatten(1).sum(1) >= 20
        logits = torch.zeros(len(masks), len(vocabulary) + 1)
        logits[range(len(masks)), large.long()] = 1.0
        logits[:, -1] = 2.0  # "no object" wins, and must not count
        return logits, torch.ones(len(masks), dtype=torch.bool)


def test_box_masks_fill_the_tight_box() -> None:
    masks = torch.zeros(2, 6, 8, dtype=torch.bool)
    masks[0, 1, 2] = masks[0, 3, 5] = True
    masks[1, 5, 7] = True
    filled = box_masks(masks)
    assert filled[0].sum() == 3 * 4
    assert bool(filled[0, 1:4, 2:6].all())
    assert filled[1].sum() == 1


def test_accuracy_is_the_mean_over_classes_and_leaves_small_regions_out() -> None:
    labels = torch.full((10, 10), 255)
    labels[0, 0] = labels[4, 4] = 0  # 2 pixels, but a box of 25
    labels[6:10, 0:8] = 1  # 32 pixels, its box the same
    labels[9, 9] = 2  # too small
    picture = (torch.zeros(3, 10, 10), labels)
    vocabulary = Vocabulary.make(["a", "b", "c"])
    figures = crop_accuracy(
        NamesByArea(),  # type: ignore[arg-type]
        [picture, (torch.zeros(3, 4, 4), torch.full((4, 4), 255))],
        vocabulary,
        groups={"first": [0], "second": [1], "none": [2]},
        min_pixels=2,
    )
    assert figures["masked/first"] == 100.0
    assert figures["box/first"] == 0.0  # the box is large, so it is taken for class 1
    assert figures["masked/second"] == figures["box/second"] == 100.0
    assert math.isnan(figures["masked/none"])
    assert (figures["masked/all"], figures["box/all"]) == (100.0, 50.0)


def test_a_proposal_shows_the_class_that_has_half_of_its_pixels() -> None:
    labels = torch.zeros(8, 8, dtype=torch.uint8)
    labels[:, 4:] = 1
    labels[6:] = 255
    masks = torch.zeros(5, 4, 4)  # a quarter of the labels' resolution
    masks[0, :2, :] = 0.9  # half class 0, half class 1: the lower id
    masks[1, :, 3] = 0.6  # three pixels of class 1, one ignored
    masks[2, 2:, 0] = 0.7  # one of class 0, one ignored
    masks[3, 3] = 1.0  # ignored pixels only
    masks[4] = 0.3  # below the threshold
    scores = torch.tensor([[0.1, 0.9], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5], [1.0, 1.0]])
    valid = torch.tensor([True, True, True, True, False])
    prediction = MaskPrediction(masks, scores, scores, scores, valid, (8, 8))
    ids, named = proposal_names(prediction, labels, threshold=0.4)
    assert ids.tolist() == [0, 1, 0]
    assert named.tolist() == [1, 1, 0]
    ids, _ = proposal_names(prediction, labels, threshold=0.4, min_share=0.7)
    assert ids.tolist() == [1]
