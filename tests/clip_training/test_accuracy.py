from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ovseg.clip import encode_texts
from ovseg.clip_training.accuracy import (
    evaluate_regions,
    has_trained_prompt,
    label_regions,
    proposal_scores,
    top_accuracy,
)
from ovseg.data.pairs import ArrayPairDataset
from ovseg.modeling import MaskPrediction
from ovseg.modeling.region_classifier import RegionClassifier
from ovseg.vocab import Vocabulary
from tests.clip.tiny import make_clip
from tests.modeling.test_region_classifier import classify

NAMES = ("cat", "dog", "tree", "sky", "road", "boat", "chair")
SIZE = (32, 32)


def pictures(count: int = 6) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(count):
        labels = np.full((30, 40), 255, np.int32)
        for left in range(0, 40, 10):
            labels[: rng.integers(8, 28), left : left + 10] = rng.integers(0, len(NAMES))
        found.append((rng.integers(0, 256, (30, 40, 3)).astype(np.uint8), labels))
    return found


@pytest.mark.parametrize("mask_prompt", [False, True])
def test_the_figures_are_those_of_regions_named_as_in_segmentation(mask_prompt: bool) -> None:
    clip = make_clip(2)
    vocabulary = Vocabulary.make(NAMES)
    groups = {"animals": [0, 1], "rest": [2, 3, 4, 5, 6]}
    pairs = label_regions(pictures(), NAMES, image_size=SIZE, min_pixels=90)
    found = evaluate_regions(
        clip, pairs, vocabulary, groups=groups, mask_prompt=mask_prompt, batch_size=5
    )
    classifier = RegionClassifier(clip_model=clip, mask_prompt=mask_prompt)
    scores, targets = [], []
    for image, labels in pictures():
        ids, pixels = np.unique(labels, return_counts=True)
        ids = ids[(ids < len(NAMES)) & (pixels >= 90)]
        masks = torch.from_numpy(labels == ids[:, None, None]).float()
        picture = torch.from_numpy(image).permute(2, 0, 1).float()
        with torch.no_grad():
            logits, _ = classify(classifier, picture, masks, vocabulary)
        scores.append(logits[:, :-1])
        targets.append(torch.from_numpy(ids).long())
    assert found == top_accuracy(torch.cat(scores), torch.cat(targets), groups=groups)
    assert 0 < found["macro-top1"] < found["macro-top5"] <= 100


def test_accuracy_counts_regions_and_classes_and_groups_without_regions() -> None:
    # Classes 0 (two regions), 1 and 3; seven classes, so that the best five leave two out.
    scores = torch.zeros(4, 7)
    scores[0, 0] = 1.0  # right
    scores[1, 4] = scores[1, 5] = 1.0  # two classes fit better than the right one
    scores[2] = 1.0
    scores[2, 1] = 0.5  # six fit better
    scores[3, 3] = 2.0  # right
    found = top_accuracy(
        scores, torch.tensor([0, 0, 1, 3]), groups={"first": [0, 1], "third": [3], "none": [2, 6]}
    )
    assert (found["top1"], found["top5"]) == (50.0, 75.0)
    assert (found["macro-top1"], found["macro-top5"]) == (50.0, 66.67)
    assert (found["macro-top1/first"], found["macro-top1/third"]) == (25.0, 100.0)
    assert math.isnan(found["macro-top1/none"])


def test_micro_counts_regions_and_macro_counts_classes() -> None:
    clip = make_clip(0)
    vocabulary = Vocabulary.make(NAMES, templates="predefined")
    pairs = label_regions(pictures(), NAMES, image_size=SIZE)
    with torch.no_grad():
        texts = torch.nn.functional.normalize(
            encode_texts(clip, [f"a photo of a {name}." for name in NAMES]), dim=-1
        )
        images = torch.stack([pairs[i]["image"] for i in range(len(pairs))])
        rows = torch.nn.functional.normalize(clip.visual(images), dim=-1)
    order = (rows @ texts.T).argsort(1, descending=True).tolist()
    right = [NAMES.index(noun) for noun in pairs.nouns]
    top1 = [ranking[0] == k for ranking, k in zip(order, right, strict=True)]
    top5 = [k in ranking[:5] for ranking, k in zip(order, right, strict=True)]
    classes = sorted(set(right))
    macro = [np.mean([h for h, k in zip(top1, right, strict=True) if k == c]) for c in classes]
    found = evaluate_regions(clip, pairs, vocabulary, groups={"none": [], "all": classes})
    assert found["top1"] == round(100 * float(np.mean(top1)), 2)
    assert found["top5"] == round(100 * float(np.mean(top5)), 2)
    assert found["macro-top1"] == found["macro-top1/all"] == round(100 * float(np.mean(macro)), 2)
    assert math.isnan(found["macro-top1/none"])


def test_regions_are_one_per_class_and_picture_and_not_too_small() -> None:
    labels = np.full((10, 10), 9)
    labels[:4, :4] = 2
    labels[6:, 6:] = 2
    labels[0, 9] = 1
    pairs = label_regions(
        [(np.zeros((10, 10, 3), np.uint8), labels)], NAMES, image_size=SIZE, min_pixels=2
    )
    assert list(pairs.nouns) == ["tree"]
    assert pairs.region(0)[1].sum() == 32


def test_a_prompt_of_zeros_is_not_used() -> None:
    clip = make_clip(2)
    assert has_trained_prompt(clip)
    vocabulary = Vocabulary.make(NAMES)
    pairs = label_regions(pictures(), NAMES, image_size=SIZE)
    prompted = evaluate_regions(clip, pairs, vocabulary)
    assert prompted == evaluate_regions(clip, pairs, vocabulary, mask_prompt=True)
    torch.nn.init.zeros_(clip.visual.mask_embedding)
    assert not has_trained_prompt(clip)
    plain = evaluate_regions(clip, pairs, vocabulary)
    assert plain == evaluate_regions(clip, pairs, vocabulary, mask_prompt=False)


def test_measuring_leaves_mode_and_random_numbers_alone() -> None:
    clip = make_clip(2).train()
    pairs = label_regions(pictures(2), NAMES, image_size=SIZE)
    state = torch.get_rng_state()
    evaluate_regions(clip, pairs, Vocabulary.make(NAMES))
    assert clip.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in clip.parameters())


def test_regions_of_other_classes_are_refused() -> None:
    pairs = label_regions(pictures(1), NAMES, image_size=SIZE)
    with pytest.raises(ValueError, match=r"regions of the 1 classes.*class list of the regions"):
        evaluate_regions(make_clip(0), pairs, Vocabulary.make(["zebra"]))
    empty = ArrayPairDataset([], texts=[], image_size=SIZE)
    with pytest.raises(ValueError, match="got 0 regions"):
        evaluate_regions(make_clip(0), empty, Vocabulary.make(NAMES))


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
    named, ids = proposal_scores(prediction, labels)
    assert ids.tolist() == [0, 1, 0]
    assert named.argmax(1).tolist() == [1, 1, 0]
    _, ids = proposal_scores(prediction, labels, min_share=0.7)
    assert ids.tolist() == [1]
