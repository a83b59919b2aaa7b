from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.backends.cuda import flash_sdp_enabled, math_sdp_enabled  # of all devices

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, encode_texts
from ovseg.clip.contrastive import ContrastiveLoss
from ovseg.clip_training.captions import CaptionPairs
from ovseg.clip_training.model import (
    ContrastiveModel,
    LockedTexts,
    PairBatch,
    TextTower,
    attention_for_training,
)
from ovseg.data.sampling import SampleKey
from tests.clip.tiny import make_clip, make_images
from tests.clip_training.tiny_captions import render


def unit_rows(clip, texts):
    return F.normalize(encode_texts(clip, texts), dim=-1)


@pytest.mark.parametrize("use_masks", [True, False])
def test_regions_are_compared_with_the_texts_of_their_pairs(use_masks) -> None:
    clip = make_clip(2)
    texts = ["a cat.", "a dog.", "a cat."]
    locked = LockedTexts(clip)
    locked.encode(["a mouse.", *texts])
    model = ContrastiveModel(
        image_tower=clip.visual,
        text_tower=locked,
        logit_scale=clip.logit_scale,
        use_masks=use_masks,
    )
    images = make_images(3)
    masks = torch.zeros(3, 1, 32, 32)
    masks[:, :, :16] = 1
    regions = F.normalize(clip.visual(images, masks if use_masks else None), dim=-1)
    expected = ContrastiveLoss()(
        regions, unit_rows(clip, texts), clip.logit_scale.exp(), torch.arange(3)
    )
    loss = model(PairBatch(images, masks, texts, texts))["loss_contrastive"]
    assert torch.allclose(loss, expected, atol=1e-6)
    assert not torch.allclose(clip.visual(images, masks), clip.visual(images))


def test_pairs_of_one_noun_are_found_whatever_their_texts() -> None:
    clip = make_clip(0)
    texts = ["a cat.", "a dog.", "one cat."]
    model = ContrastiveModel(
        image_tower=clip.visual,
        text_tower=TextTower(clip),
        logit_scale=clip.logit_scale,
        duplicates="ignored",
    )
    images = make_images(3)
    loss = model(PairBatch(images, images[:, :1], texts, ["cat", "dog", "cat"]))
    expected = ContrastiveLoss("ignored")(
        F.normalize(clip.visual(images), dim=-1),
        unit_rows(clip, texts),
        clip.logit_scale.exp(),
        torch.tensor([5, 6, 5]),
    )
    assert torch.allclose(loss["loss_contrastive"], expected, atol=1e-6)


def test_a_text_tower_and_locked_texts_give_the_same_rows_but_one_trains() -> None:
    clip = make_clip(0)
    texts = ["a cat.", "a striped cat on a mat", "a cat."]
    locked = LockedTexts(clip)
    locked.encode(texts)
    rows = TextTower(clip)(texts)
    torch.testing.assert_close(locked(texts), rows, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(3))
    assert rows.requires_grad and not locked(texts).requires_grad
    assert not list(locked.parameters()) and not locked.state_dict()


def test_captioned_pictures_come_in_the_order_of_the_stream() -> None:
    pairs = CaptionPairs(render, count=20, image_size=(16, 16), first=5)
    item = pairs[SampleKey(position=2, record=13)]
    picture, caption = render(7)
    assert (item["text"], item["noun"]) == (caption, caption)
    mean, std = np.array(CLIP_PIXEL_MEAN), np.array(CLIP_PIXEL_STD)
    expected = torch.from_numpy((picture - mean) / std).permute(2, 0, 1).float()
    torch.testing.assert_close(item["image"], expected, rtol=1e-6, atol=1e-6)
    assert item["mask"].shape == (1, 16, 16) and bool(item["mask"].all())
    assert torch.equal(pairs[2]["image"], item["image"]) and len(pairs) == 20


def test_a_batch_is_cut_along_its_pairs() -> None:
    batch = PairBatch(torch.arange(4.0), torch.arange(4.0), list("abcd"), list("wxyz"))
    part = batch[1:3]
    assert (len(part), part.images.tolist(), part.texts, part.nouns) == (
        2,
        [1, 2],
        ["b", "c"],
        ["x", "y"],
    )


@pytest.mark.parametrize(
    ("device", "bf16", "recomputed", "plain"),
    [
        ("cpu", True, False, True),
        ("cpu", False, False, False),
        ("cpu", True, True, False),
        ("cuda", True, False, False),
    ],
)
def test_plain_attention_is_for_bfloat16_steps_on_a_cpu(device, bf16, recomputed, plain):
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        attention_for_training(torch.device(device), recomputed=recomputed),
    ):
        assert math_sdp_enabled()
        assert flash_sdp_enabled() is not plain
    assert flash_sdp_enabled()
