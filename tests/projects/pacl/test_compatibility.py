from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from ovseg.projects.pacl.compatibility import PatchPooling, patch_weights

CASES = [
    {"temperature": temperature, "normalized": normalized, "renormalize": renormalize}
    for temperature in (1.0, 0.07)
    for normalized in (True, False)
    for renormalize in (True, False)
]


def drawn(pictures=3, patches=11, texts=7, channels=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tokens = 3 * torch.randn(pictures, patches, channels, generator=generator)
    return tokens, F.normalize(torch.randn(texts, channels, generator=generator), dim=-1)


def naive(tokens, text, *, temperature, normalized, renormalize):
    """The four steps of the paper for one picture and one text."""
    units = F.normalize(tokens, dim=-1)
    weights = ((units @ text) / temperature).softmax(0)
    pooled = (weights[:, None] * (units if normalized else tokens)).sum(0)
    return (F.normalize(pooled, dim=0) if renormalize else pooled) @ text


@pytest.mark.parametrize("options", CASES)
def test_the_efficient_form_equals_the_four_steps_of_the_paper(options):
    tokens, texts = drawn()
    found = PatchPooling(**options).pairwise(tokens, texts)
    expected = torch.stack([torch.stack([naive(v, t, **options) for t in texts]) for v in tokens])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", CASES)
def test_pooling_by_ones_own_text_gives_the_diagonal_of_all_pairs(options):
    tokens, texts = drawn(pictures=7)
    pooling = PatchPooling(**options)
    pooled = pooling.matched(tokens, texts[:, None])[:, 0]  # (7, 5)
    own = (pooled * texts).sum(-1)
    torch.testing.assert_close(
        own, pooling.pairwise(tokens, texts).diagonal(), rtol=1e-5, atol=1e-5
    )


def test_weights_are_positive_and_sum_to_one_per_text():
    similarity = torch.randn(4, 9, 3, generator=torch.Generator().manual_seed(0))
    weights = patch_weights(similarity, 0.1)
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(4, 3))


def test_the_order_of_the_patches_does_not_matter():
    tokens, texts = drawn()
    shuffled = tokens[:, torch.randperm(11, generator=torch.Generator().manual_seed(1))]
    pooling = PatchPooling(temperature=0.1)
    torch.testing.assert_close(pooling.pairwise(shuffled, texts), pooling.pairwise(tokens, texts))


def test_a_picture_of_one_patch_has_its_cosine():
    tokens, texts = drawn(patches=1)
    expected = F.normalize(tokens[:, 0], dim=-1) @ texts.T
    torch.testing.assert_close(PatchPooling().pairwise(tokens, texts), expected)


def test_a_high_temperature_pools_like_the_mean_and_a_low_one_takes_the_best_patch():
    tokens, texts = drawn()
    units = F.normalize(tokens, dim=-1)
    mean = F.normalize(units.mean(1), dim=-1) @ texts.T
    best = (units @ texts.T).amax(1)
    high, low = PatchPooling(temperature=1e6), PatchPooling(temperature=1e-3)
    torch.testing.assert_close(high.pairwise(tokens, texts), mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(low.pairwise(tokens, texts), best, rtol=1e-3, atol=1e-3)


def test_chunks_change_neither_values_nor_gradients():
    values, gradients = [], []
    for chunk in (256, 3):
        tokens, texts = drawn()
        tokens.requires_grad_(True)
        value = PatchPooling(temperature=0.2, chunk=chunk).pairwise(tokens, texts)
        (value * torch.arange(21.0).view(3, 7)).sum().backward()
        values.append(value.detach())
        gradients.append(tokens.grad)
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(gradients[0], gradients[1])


def test_no_tensor_of_pictures_times_texts_times_channels_is_made():
    pictures, texts, channels = 16, 24, 512
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            if isinstance(out, torch.Tensor):
                largest = max(largest, out.numel())
            return out

    tokens, rows = drawn(pictures, 4, texts, channels)
    with Watch():
        PatchPooling().pairwise(tokens, rows)
    assert largest <= pictures * 4 * channels < pictures * texts * channels


def test_patches_of_length_zero_stay_finite():
    tokens, texts = drawn()
    tokens[0] = 0
    tokens.requires_grad_(True)
    found = PatchPooling().pairwise(tokens, texts)
    found.sum().backward()
    assert found.isfinite().all() and tokens.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"temperature": 0.0}, {"chunk": 0}])
def test_what_cannot_be_is_refused_by_the_name_of_its_key(options):
    with pytest.raises(ValueError, match=r"MODEL.PACL"):
        PatchPooling(**options)
