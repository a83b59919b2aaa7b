from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.clip.merging import merge_outside
from tests.clip.tiny import make_clip, make_images


def make_regions() -> torch.Tensor:
    """Of the tiny CLIP's 4 x 4 patches: a corner, a strip across two blocks, all."""
    regions = torch.zeros(3, 1, 32, 32)
    regions[0, :, :9, :5] = 1  # two patches of the first block
    regions[1, :, 12:20] = 1  # the two rows in the middle: a part of every block
    regions[2] = 1
    return regions


def slowly(visual, image, region, after):
    """All patches stay, each outside block as four copies of its mean, with ordinary attention."""
    tokens = visual.ln_pre(
        torch.cat([visual.class_embedding[None], visual.conv1(image[None])[0].flatten(1).T])
        + visual.positional_embedding
    )[None]
    inside = F.max_pool2d(region[None], 8)[0, 0] > 0  # (4, 4)
    for index, block in enumerate(visual.transformer.resblocks, start=1):
        tokens = block(tokens)
        if index == after:
            patches = tokens[0, 1:].unflatten(0, (4, 4)).clone()
            for top in (0, 2):
                for left in (0, 2):
                    square = (slice(top, top + 2), slice(left, left + 2))
                    if not inside[square].any():
                        patches[square] = patches[square].mean((0, 1))
            tokens = torch.cat([tokens[:, :1], patches.flatten(0, 1)[None]], dim=1)
    return visual.ln_post(tokens[0, 0]) @ visual.proj


@pytest.mark.parametrize("after", [1, 2])
@torch.no_grad()
def test_a_merged_token_counts_as_four_copies_of_it(after):
    visual, images, regions = make_clip().visual, make_images(3), make_regions()
    found = visual(images, regions=regions, merge_after=after)
    expected = [slowly(visual, *one, after) for one in zip(images, regions, strict=True)]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)
    plain = visual(images)
    torch.testing.assert_close(found[2], plain[2], rtol=1e-4, atol=1e-5)
    assert (found[0] - plain[0]).abs().max() > 1e-3


def test_tokens_left_are_counted_and_an_odd_side_keeps_its_last_patches():
    inside = F.max_pool2d(make_regions(), 8).flatten(1) > 0
    tokens = torch.randn(3, 17, 6)
    pack = merge_outside(tokens, inside, (4, 4))
    # A corner: the other three blocks become a token each; the strip keeps all, as does the whole.
    assert pack.bias.isfinite().sum((1, 2, 3)).tolist() == [1 + 4 + 3, 17, 17]
    assert pack.tokens.shape == (1, 8 + 17 + 17, 6)
    torch.testing.assert_close(pack.tokens[0, 5], tokens[0, [3, 4, 7, 8]].mean(0))
    assert pack.bias[0, 0, 0, 5].exp() == pytest.approx(4)
    none = merge_outside(torch.randn(1, 16, 6), torch.zeros(1, 15, dtype=torch.bool), (3, 5))
    assert none.tokens.shape[1] == 1 + (15 - 8) + 2


@torch.no_grad()
def test_the_mask_prompt_comes_first():
    visual, images, regions = make_clip(2).visual, make_images(3), make_regions()
    prompted = visual(images, regions, regions=regions, merge_after=2)
    assert F.cosine_similarity(prompted, visual(images, regions)).min() > 0.8
    torch.testing.assert_close(prompted[2], visual(images, regions)[2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="after 2 to 2 blocks"):
        visual(images, regions, regions=regions, merge_after=1)
    with pytest.raises(ValueError, match="after 1 to 2 blocks"):
        visual(images, regions=regions, merge_after=3)
