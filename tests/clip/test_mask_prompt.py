from __future__ import annotations

import open_clip
import pytest
import torch

from ovseg.clip import build_clip
from tests.clip.tiny import CONFIG, make_clip, make_images

PATCH = 8


def _reference(visual, image, mask):
    """One image, patch by patch, as section 3.3 of the paper reads."""
    depth = len(visual.mask_embedding)
    rows = []
    inside = []
    for top in range(0, 32, PATCH):
        for left in range(0, 32, PATCH):
            window = image[:, top : top + PATCH, left : left + PATCH]
            rows.append((visual.conv1.weight * window).sum(dim=(1, 2, 3)))
            inside.append(bool((mask[0, top : top + PATCH, left : left + PATCH] > 0).any()))
    for patch, kept in enumerate(inside):
        if depth > 0 and not kept:
            rows[patch] = visual.mask_embedding[0, patch]
    x = torch.stack([visual.class_embedding, *rows]) + visual.positional_embedding
    x = visual.ln_pre(x)[None]
    for number, block in enumerate(visual.transformer.resblocks, start=1):
        x = block(x)
        for patch, kept in enumerate(inside):
            if number < depth and not kept:
                x[0, 1 + patch] = visual.mask_embedding[number, patch]
    return visual.ln_post(x[0, 0]) @ visual.proj


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@torch.no_grad()
def test_masked_patches_are_replaced_at_every_depth(depth):
    visual = make_clip(depth).visual
    images = make_images(2)
    masks = torch.zeros(2, 1, 32, 32)
    masks[0, :, 4:20, 6:17] = 1
    masks[1, :, 31, 31] = 0.01  # a single soft pixel keeps its patch
    features = visual(images, masks)
    for feature, image, mask in zip(features, images, masks, strict=True):
        torch.testing.assert_close(feature, _reference(visual, image, mask), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_without_masks_the_tower_is_open_clips():
    clip = make_clip(3)
    plain = open_clip.CLIP(
        CONFIG["embed_dim"],
        open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"]),
        open_clip.CLIPTextCfg(**CONFIG["text_cfg"]),
        quick_gelu=True,
    ).eval()
    state = clip.state_dict()
    del state["visual.mask_embedding"]
    plain.load_state_dict(state)
    images = make_images()
    assert torch.equal(clip.visual(images), clip.encode_image(images))
    assert torch.equal(clip.visual.train()(images), plain.visual.train()(images))
    # In evaluation the last block computes the class token alone: equal but for rounding.
    exact = images.double()
    found, expected = clip.eval().visual.double()(exact), plain.visual.double()(exact)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_full_mask_changes_nothing_and_an_empty_one_hides_the_image():
    visual = make_clip(2).visual
    images = make_images()
    full, empty = torch.ones(2, 1, 32, 32), torch.zeros(2, 1, 32, 32)
    torch.testing.assert_close(visual(images, full), visual(images))
    hidden = visual(images, empty)
    torch.testing.assert_close(hidden[0], hidden[1])
    assert (visual(images)[0] - visual(images)[1]).abs().max() > 1e-2


def test_the_prompt_gets_gradients_only_where_patches_are_masked():
    visual = make_clip(2).visual
    masks = torch.ones(1, 1, 32, 32)
    masks[:, :, :8, :8] = 0  # the first patch
    visual(make_images(1), masks).sum().backward()
    gradient = visual.mask_embedding.grad.abs().sum(dim=-1)
    assert (gradient[:, 0] > 0).all()
    assert (gradient[:, 1:] == 0).all()


def test_gradient_checkpointing_gives_the_same_gradients():
    visual = make_clip(2).visual.train()
    images, masks = make_images(), torch.zeros(2, 1, 32, 32)
    gradients = []
    for enabled in (False, True):
        visual.zero_grad()
        visual.set_grad_checkpointing(enabled)
        visual(images, masks).square().sum().backward()
        gradients.append(visual.mask_embedding.grad.clone())
    torch.testing.assert_close(gradients[0], gradients[1])


def test_half_precision_towers_take_float32_masks():
    visual = make_clip(1).visual.bfloat16()
    features = visual(make_images(1).bfloat16(), torch.zeros(1, 1, 32, 32))
    assert features.dtype == torch.bfloat16
    assert features.isfinite().all()


def test_an_empty_batch_gives_no_features():
    visual = make_clip(1).visual
    assert visual(make_images(0), torch.zeros(0, 1, 32, 32)).shape == (0, 8)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        ((2, 3, 16, 16), None, r"expected images of shape \(N, 3, 32, 32\), got \(2, 3, 16, 16\)"),
        ((2, 3, 32, 32), (2, 32, 32), r"expected masks of shape \(2, 1, 32, 32\)"),
        ((2, 3, 32, 32), (1, 1, 32, 32), r"expected masks of shape \(2, 1, 32, 32\)"),
    ],
)
def test_wrong_sizes_are_refused(images, masks, message):
    visual = make_clip(1).visual
    with pytest.raises(ValueError, match=message):
        visual(torch.zeros(images), None if masks is None else torch.zeros(masks))


def test_a_depth_beyond_the_blocks_is_refused():
    with pytest.raises(ValueError, match=r"expected a mask prompt depth in 0\.\.3 .* got 4"):
        build_clip(CONFIG, mask_prompt_depth=4)
