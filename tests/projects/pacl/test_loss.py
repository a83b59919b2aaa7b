from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.projects.pacl.compatibility import PatchPooling
from ovseg.projects.pacl.loss import PairKeys, PatchAlignedLoss

SCALE = torch.tensor(10.0)


def keys(images, nouns=None, mentioned=None):
    nouns = [[0]] * len(images) if nouns is None else nouns
    mentioned = [[]] * len(images) if mentioned is None else mentioned
    return PairKeys.make(
        images=images, nouns=nouns, mentioned=mentioned, device=torch.device("cpu")
    )


def drawn(pictures=4, per_picture=1):
    generator = torch.Generator().manual_seed(0)
    patches = torch.randn(pictures, 6, 5, generator=generator)
    texts = torch.randn(pictures, per_picture, 5, generator=generator)
    return patches, F.normalize(texts, dim=-1)


def test_one_text_per_picture_is_clips_loss_of_the_compatibilities():
    patches, texts = drawn()
    pooling = PatchPooling(temperature=0.5)
    logits = SCALE * pooling.pairwise(patches, texts[:, 0])
    own = torch.arange(4)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    found = PatchAlignedLoss(pooling)(patches, texts, SCALE, keys([1, 2, 3, 4]))
    torch.testing.assert_close(found, expected)


def test_pairs_of_one_picture_are_left_out_of_each_others_sums():
    patches, texts = drawn(pictures=2, per_picture=2)
    found = PatchAlignedLoss(PatchPooling())(patches, texts, SCALE, keys([1, 2], [[0, 5]] * 2))
    scores = SCALE * PatchPooling().pairwise(patches, texts.flatten(0, 1))  # (2, 4)
    terms = []
    for pair in range(4):
        picture = pair // 2
        others = [text for text in range(4) if text // 2 != picture]
        row = torch.stack([scores[picture, t] for t in (pair, *others)])
        # The other picture is there once for each of its pairs.
        column = torch.stack([scores[picture, pair], *[scores[1 - picture, pair]] * 2])
        terms += [-row.log_softmax(0)[0], -column.log_softmax(0)[0]]
    torch.testing.assert_close(found, torch.stack(terms).mean())


def test_a_picture_that_comes_twice_is_no_negative_of_itself():
    patches, texts = drawn(pictures=2)
    loss = PatchAlignedLoss(PatchPooling())(patches, texts, SCALE, keys([7, 7]))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)  # nothing else is there to compare with


def test_prompts_of_a_noun_that_a_picture_mentions_can_be_ignored():
    patches, texts = drawn(pictures=3)
    given = keys([1, 2, 3], [[11], [12], [0]], [[11], [11, 12], [13]])
    scores = SCALE * PatchPooling().pairwise(patches, texts[:, 0])  # (3, 3)
    ignored = torch.zeros(3, 3, dtype=torch.bool)
    ignored[1, 0] = True  # picture 1 mentions the noun of text 0
    logits = scores.masked_fill(ignored, -torch.inf)
    own = torch.arange(3)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    loss = PatchAlignedLoss(PatchPooling(), same_noun="ignored")
    torch.testing.assert_close(loss(patches, texts, SCALE, given), expected)
    plain = PatchAlignedLoss(PatchPooling())(patches, texts, SCALE, given)
    assert abs(plain.item() - expected.item()) > 1e-3


def test_the_fast_mode_compares_each_pictures_own_pooling_with_all_texts():
    patches, texts = drawn()
    pooling = PatchPooling(temperature=0.5)
    pooled = pooling.matched(patches, texts)[:, 0]
    logits, own = SCALE * pooled @ texts[:, 0].T, torch.arange(4)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    found = PatchAlignedLoss(pooling, pairwise=False)(patches, texts, SCALE, keys([1, 2, 3, 4]))
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(
        found, PatchAlignedLoss(pooling)(patches, texts, SCALE, keys([1, 2, 3, 4]))
    )


def test_an_unknown_rule_for_nouns_is_refused():
    with pytest.raises(ValueError, match=r"MODEL.PACL.SAME_NOUN"):
        PatchAlignedLoss(PatchPooling(), same_noun="positive")
