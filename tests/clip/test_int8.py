from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from ovseg.clip.int8 import Int8Linear, has_int8, int8_copy
from tests.clip.tiny import make_clip, make_images

pytestmark = pytest.mark.skipif(
    not has_int8(torch.device("cpu")), reason="torch multiplies no int8 on this CPU"
)


def test_products_of_integers_are_exact():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 300, generator=generator)
    x = torch.randn(2, 7, 300, generator=generator)
    x[0, 0] = 0.0
    bias = torch.arange(5.0)
    scale = weight.abs().amax(1, keepdim=True) / 127
    largest = x.abs().amax(-1, keepdim=True).clamp(min=1e-12)
    tokens = (x * (63 / largest) + 64.5).floor().long() - 64
    product = (tokens.double() @ (weight / scale).round().double().T) * scale[:, 0]
    expected = product.float() * largest / 63 + bias
    torch.testing.assert_close(Int8Linear(weight, bias)(x), expected, rtol=1e-5, atol=1e-5)


def test_the_largest_values_do_not_overflow():
    x = torch.ones(3, 4096)
    x[1] = -1
    weight = torch.stack([torch.ones(4096), -torch.ones(4096)])
    expected = torch.tensor([[4096.0, -4096], [-4096, 4096], [4096, -4096]])
    torch.testing.assert_close(Int8Linear(weight, torch.zeros(2))(x), expected, rtol=1e-4, atol=0.1)


@torch.no_grad()
def test_a_tower_in_int8_is_near_and_shares_what_is_not_rounded():
    clip, images = make_clip(), make_images(8)
    visual = clip.visual
    state = copy.deepcopy(clip.state_dict())
    twin = int8_copy(visual)
    similarity = F.cosine_similarity(twin(images), visual(images))
    assert 0.99 < similarity.min() < similarity.max() < 1 - 1e-7
    assert twin.proj is visual.proj
    assert (
        twin.transformer.resblocks[-1].mlp.c_fc.weight
        is visual.transformer.resblocks[-1].mlp.c_fc.weight
    )
    assert all(torch.equal(state[name], value) for name, value in clip.state_dict().items())
