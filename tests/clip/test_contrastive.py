from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ovseg.clip.contrastive import DUPLICATES, ContrastiveLoss


def rows(count: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, 8, generator=generator, dtype=torch.float64), dim=-1)


def brute_force(images, texts, scale, nouns) -> float:
    """Cross-entropy of either direction, written with loops."""
    total, count = 0.0, len(images)
    for queries, keys in ((images, texts), (texts, images)):
        for i in range(count):
            scores = [scale * float(queries[i] @ keys[j]) for j in range(count)]
            norm = math.log(sum(math.exp(score) for score in scores))
            friends = [j for j in range(count) if nouns[j] == nouns[i]]
            total -= sum(scores[j] - norm for j in friends) / len(friends)
    return total / (2 * count)


def test_pairs_of_one_noun_share_the_target_evenly() -> None:
    nouns = [0, 1, 0, 2, 0, 1]
    images, texts = rows(6, 1), rows(6, 2)
    loss = ContrastiveLoss("positive")(images, texts, torch.tensor(7.0), torch.tensor(nouns))
    assert float(loss) == pytest.approx(brute_force(images, texts, 7.0, nouns), rel=1e-6)


def test_by_default_pairs_of_one_noun_are_negatives() -> None:
    images, texts = rows(6, 1), rows(6, 2)
    nouns = torch.tensor([0, 1, 0, 2, 0, 1])
    loss = ContrastiveLoss()(images, texts, torch.tensor(7.0), nouns)
    assert float(loss) == pytest.approx(brute_force(images, texts, 7.0, range(6)), rel=1e-6)
    positive = ContrastiveLoss("positive")(images, texts, torch.tensor(7.0), torch.arange(6))
    assert float(positive) == pytest.approx(float(loss), rel=1e-6)


def test_ignored_pairs_of_one_noun_are_left_out_of_the_sums() -> None:
    nouns = [0, 1, 0, 2, 0, 1]
    images, texts = rows(6, 1), rows(6, 2)
    expected = 0.0
    for queries, keys in ((images, texts), (texts, images)):
        for i in range(6):
            rivals = [j for j in range(6) if j == i or nouns[j] != nouns[i]]
            scores = {j: 7 * float(queries[i] @ keys[j]) for j in rivals}
            expected -= (scores[i] - math.log(sum(math.exp(s) for s in scores.values()))) / 12
    loss = ContrastiveLoss("ignored")(images, texts, torch.tensor(7.0), torch.tensor(nouns))
    assert float(loss) == pytest.approx(expected, rel=1e-6)


def test_where_equal_nouns_have_equal_texts_positives_and_negatives_are_the_same_loss() -> None:
    nouns = torch.tensor([0, 1, 0, 2, 0, 1])
    texts = rows(3, 2)[nouns]
    gradients, values = [], []
    for kind in DUPLICATES:
        images = rows(6, 1).requires_grad_()
        loss = ContrastiveLoss(kind)(images, texts, torch.tensor(7.0), nouns)
        loss.backward()
        gradients.append(images.grad)
        values.append(float(loss.detach()))
    negative, positive, ignored = gradients
    assert values[0] == pytest.approx(values[1], rel=1e-6)
    assert torch.allclose(negative, positive, rtol=1e-5)
    assert values[2] < values[0]
    assert not torch.allclose(negative, ignored, rtol=1e-2)


def test_another_kind_of_duplicates_is_refused() -> None:
    with pytest.raises(ValueError, match=r"duplicates: expected one of .*'negative', 'positive'"):
        ContrastiveLoss("neutral")
