from __future__ import annotations

from functools import partial

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import _build_vision_tower
from open_clip.transformer import VisionTransformer
from torch import nn
from torch.profiler import ProfilerActivity

from ovseg.clip import PatchEncoder
from ovseg.clip.blocks import query_key_value, run_block
from ovseg.clip.dense import embed_patches, interpolate_positions
from tests.clip.tiny import CONFIG, make_clip, make_images

GRID = (4, 4)  # the tiny tower: 32 pixels in patches of 8, width 16, 2 heads
VARIANTS = {
    "gelu": {},
    "mean over the patches": {"pool_type": "avg"},
    "mean before the norm": {"pool_type": "avg", "final_ln_after_pool": True},
    "class token before the norm": {"final_ln_after_pool": True},
    "no norm before the blocks": {"no_ln_pre": True},
    "layer scale": {"ls_init_value": 0.3},
    "sine positions": {"pos_embed_type": "sin_cos_2d"},
    "normalised queries": {"qk_norm": True},
    "patch dropout": {"patch_dropout": 0.5},
}


def _tower(quick_gelu=False, **changes):
    config = open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"], **changes)
    return _build_vision_tower(CONFIG["embed_dim"], config, quick_gelu).eval()


def _hooked(visual, images):
    """The class token and the patches that open_clip's own modules pass on, block by block."""
    seen = {}

    def keep(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    handles = [
        visual.ln_post.register_forward_hook(keep("ln_post")),
        visual.transformer.register_forward_hook(keep("block")),
    ]
    seen["pooled"] = VisionTransformer.forward(visual, images)
    for handle in handles:
        handle.remove()
    return seen


@torch.no_grad()
def test_at_the_native_size_every_output_is_what_open_clips_modules_compute():
    for visual in (make_clip(2).visual, _tower(quick_gelu=True)):
        images = make_images(2)
        seen = _hooked(visual, images)
        seen["proj"] = seen["ln_post"] @ visual.proj
        for output in ("block", "ln_post", "proj"):
            encoded = PatchEncoder(visual, output=output)(images)
            cls, patches = seen[output][:, 0], seen[output][:, 1:]
            expected = patches.reshape(2, *GRID, -1).permute(0, 3, 1, 2)
            torch.testing.assert_close(encoded.features, expected, rtol=0, atol=2e-6)
            torch.testing.assert_close(encoded.pooled, cls, rtol=0, atol=2e-6)
        torch.testing.assert_close(encoded.pooled, seen["pooled"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
@torch.no_grad()
def test_the_pooled_feature_is_the_towers_own(changes):
    visual = _tower(**changes)
    images = make_images(2)
    encoded = PatchEncoder(visual)(images)
    assert encoded.features.shape == (2, CONFIG["embed_dim"], *GRID)
    torch.testing.assert_close(encoded.pooled, visual(images), rtol=0, atol=1e-6)


@torch.no_grad()
def test_quick_gelu_is_the_models_choice():
    quick, plain = _tower(quick_gelu=True), _tower()
    plain.load_state_dict(quick.state_dict())
    images = make_images(1)
    assert not torch.allclose(
        PatchEncoder(quick)(images).features, PatchEncoder(plain)(images).features
    )


@pytest.mark.parametrize(
    ("size", "stride", "grid"),
    [
        ((32, 32), None, (4, 4)),
        ((48, 24), None, (6, 3)),
        ((39, 71), None, (4, 8)),  # 7 pixels are not seen on either axis
        ((8, 8), None, (1, 1)),
        ((32, 32), 4, (7, 7)),
        ((33, 40), 2, (13, 17)),
    ],
)
@torch.no_grad()
def test_the_grid_follows_image_size_and_stride(size, stride, grid):
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    encoded = PatchEncoder(make_clip().visual.double(), stride=stride)(images)
    assert encoded.grid == grid
    assert encoded.features.shape == (2, CONFIG["embed_dim"], *grid)
    assert encoded.features.dtype == encoded.pooled.dtype == torch.float64
    assert encoded.features.isfinite().all()
    assert encoded.pooled.isfinite().all()


@torch.no_grad()
def test_pixels_beyond_the_last_whole_patch_are_not_seen():
    encoder = PatchEncoder(make_clip().visual)
    images = torch.randn(1, 3, 39, 47)
    seen = encoder(images[..., :32, :40])
    assert torch.equal(encoder(images).features, seen.features)


@torch.no_grad()
def test_every_image_of_a_batch_is_encoded_as_if_alone():
    encoder = PatchEncoder(make_clip().visual)
    images = torch.randn(2, 3, 24, 48)
    together = encoder(images)
    for index in range(2):
        alone = encoder(images[index : index + 1])
        torch.testing.assert_close(together.features[index : index + 1], alone.features)
        torch.testing.assert_close(together.pooled[index : index + 1], alone.pooled)
    assert encoder(images[:0]).features.shape == (0, CONFIG["embed_dim"], 3, 6)


@torch.no_grad()
def test_patches_keep_their_place():
    visual = make_clip().visual
    visual.positional_embedding.zero_()
    encoder = PatchEncoder(visual, output="block", attention=lambda q, k, v, *, grid: v)
    images = torch.zeros(1, 3, 24, 40)
    images[..., 8:16, 24:32] = 1  # row 1, column 3
    block_rows = encoder(images).features[0].flatten(1).T  # (15, C)
    differs = (block_rows - block_rows[0]).abs().sum(dim=1) > 1e-4
    assert differs.nonzero().flatten().tolist() == [1 * 5 + 3]


@torch.no_grad()
def test_a_stride_of_one_patch_changes_nothing():
    visual = make_clip().visual
    images = make_images(1)
    expected = PatchEncoder(visual)(images).features
    assert torch.equal(PatchEncoder(visual, stride=8)(images).features, expected)


@torch.no_grad()
def test_overlapping_patches_hold_the_plain_ones_before_positions_are_added():
    visual = make_clip().visual
    visual.positional_embedding.zero_()
    images = make_images(1)
    plain, _ = embed_patches(visual, images)
    overlapping, grid = embed_patches(visual, images, stride=4)
    every_second = overlapping[:, 1:].reshape(1, *grid, -1)[:, ::2, ::2].flatten(1, 2)
    torch.testing.assert_close(every_second, plain[:, 1:])


def test_positions_on_the_native_grid_are_the_parameter_itself():
    embedding = nn.Parameter(torch.randn(17, 5))
    assert interpolate_positions(embedding, GRID, GRID, scale_offset=0.1) is embedding


@pytest.mark.parametrize(("scale_offset", "grid"), [(0.0, (6, 7)), (0.1, (6, 7)), (0.1, (2, 3))])
def test_positions_are_interpolated_bicubically_at_the_scale_that_is_asked_for(scale_offset, grid):
    embedding = torch.randn(17, 5, dtype=torch.float64)
    result = interpolate_positions(embedding, GRID, grid, scale_offset=scale_offset)
    assert torch.equal(result[0], embedding[0])
    rows = _bicubic_matrix(grid[0], (grid[0] + scale_offset) / 4)
    columns = _bicubic_matrix(grid[1], (grid[1] + scale_offset) / 4)
    expected = torch.einsum("yi,xj,ijc->yxc", rows, columns, embedding[1:].reshape(4, 4, 5))
    torch.testing.assert_close(result[1:], expected.reshape(-1, 5))


def _bicubic_matrix(size, scale, a=-0.75):
    """(size, 4) weights of Keys' kernel with half-pixel centres and repeated borders."""
    weights = torch.zeros(size, 4, dtype=torch.float64)
    for target in range(size):
        source = (target + 0.5) / scale - 0.5
        first = int(source // 1) - 1
        for index in range(first, first + 4):
            x = abs(source - index)
            near = (a + 2) * x**3 - (a + 3) * x**2 + 1
            far = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            weights[target, min(max(index, 0), 3)] += near if x <= 1 else far
    return weights


@pytest.mark.parametrize(("antialias", "weight"), [(False, -0.09375), (True, 0.21506)])
def test_antialiasing_lets_every_patch_count_where_the_grid_shrinks(antialias, weight):
    embedding = torch.zeros(17, 1)
    embedding[1] = 1  # the patch in the corner
    shrunk = interpolate_positions(embedding, GRID, (1, 1), antialias=antialias)
    assert shrunk[1].item() == pytest.approx(weight**2, abs=1e-4)


def test_half_precision_positions_stay_half():
    embedding = torch.randn(17, 5)
    half = interpolate_positions(embedding.half(), GRID, (5, 3))
    assert half.dtype == torch.float16
    expected = interpolate_positions(embedding, GRID, (5, 3))
    torch.testing.assert_close(half.float(), expected, rtol=0, atol=5e-3)


def test_positions_of_another_grid_are_refused():
    with pytest.raises(ValueError, match=r"expected 1 \+ 4 x 4 rows .* got 16"):
        interpolate_positions(torch.zeros(16, 5), GRID, (5, 5))


@torch.no_grad()
def test_the_hook_gets_queries_keys_values_and_grid_of_the_last_block_alone():
    visual = make_clip().visual
    calls = []

    def attention(q, k, v, *, grid):
        calls.append((q.shape, k.shape, v.shape, grid))
        return F.scaled_dot_product_attention(q, k, v)

    images = torch.randn(2, 3, 24, 40)
    hooked = PatchEncoder(visual, attention=attention)(images)
    assert calls == [((2, 2, 16, 8),) * 3 + ((3, 5),)]
    plain = PatchEncoder(visual)(images)
    torch.testing.assert_close(hooked.features, plain.features)
    torch.testing.assert_close(hooked.pooled, plain.pooled)


@torch.no_grad()
def test_attention_to_oneself_is_the_blocks_value_path():
    visual = make_clip().visual
    images = make_images(2)
    encoder = PatchEncoder(
        visual=visual,
        output="block",
        attention=lambda q, k, v, *, grid: v,
        attention_only=True,
    )
    last = visual.transformer.resblocks[-1]
    entering = []
    handle = last.register_forward_pre_hook(lambda module, inputs: entering.append(inputs[0]))
    VisionTransformer.forward(visual, images)  # ours does not call the last block
    handle.remove()
    weight, bias = last.attn.in_proj_weight[-16:], last.attn.in_proj_bias[-16:]
    expected = last.attn.out_proj(F.linear(last.ln_1(entering[0]), weight, bias))
    features = encoder(images).features.flatten(2).transpose(1, 2)
    torch.testing.assert_close(features, expected[:, 1:])


@torch.no_grad()
def test_a_masked_block_equals_open_clips_with_the_additive_mask():
    block = make_clip().visual.transformer.resblocks[1]
    tokens = torch.randn(2, 6, 16)
    allowed = torch.rand(6, 6) > 0.5
    allowed.fill_diagonal_(True)
    attention = partial(F.scaled_dot_product_attention, attn_mask=allowed)
    additive = torch.zeros(6, 6).masked_fill(~allowed, float("-inf"))
    expected = block(tokens, attn_mask=additive)
    torch.testing.assert_close(run_block(block, tokens, attention=attention), expected)


def test_gradients_reach_the_images_and_the_positions_of_another_grid():
    visual = make_clip().visual
    images = torch.randn(1, 3, 24, 40, requires_grad=True)
    PatchEncoder(visual)(images).features.square().sum().backward()
    assert images.grad.abs().sum() > 0
    assert visual.positional_embedding.grad.abs().sum(dim=1).count_nonzero() == 17


@torch.no_grad()
def test_no_tensor_holds_a_weight_for_every_pair_of_patches():
    encoder = PatchEncoder(make_clip().visual)
    images = torch.randn(1, 3, 256, 256)  # 1025 tokens
    with torch.profiler.profile(profile_memory=True, activities=[ProfilerActivity.CPU]) as profile:
        encoder(images)
    largest = max(event.cpu_memory_usage for event in profile.events())
    assert 1025 * 64 * 4 <= largest < 1025 * 1025 * 4


def test_the_parts_of_the_tower_stay_with_their_model():
    visual = make_clip().visual
    before = {name: tensor.clone() for name, tensor in visual.state_dict().items()}
    modules = list(visual.modules())
    PatchEncoder(visual, attention=lambda q, k, v, *, grid: v)(torch.randn(1, 3, 40, 40))
    assert list(visual.modules()) == modules
    for name, tensor in visual.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("RN50", "got ModifiedResNet; patch features do not exist for ResNet"),
        ("timm", "got TimmModel; patch features do not exist"),
        ("whole", "got MaskPromptedCLIP"),
        ("attentional", "got one that pools by attention"),
        ("none", "got one that pools by nothing at all"),
    ],
)
def test_towers_without_patch_features_are_refused(model, message):
    if model == "RN50":
        config = {**CONFIG["vision_cfg"], "layers": [1, 1, 1, 1], "width": 8}
        visual = _build_vision_tower(8, open_clip.CLIPVisionCfg(**config))
    elif model == "timm":
        config = open_clip.CLIPVisionCfg(timm_model_name="convnext_atto", image_size=32)
        visual = _build_vision_tower(8, config)
    elif model == "whole":
        visual = make_clip()
    elif model == "attentional":
        visual = _tower(attentional_pool=True, attn_pooler_heads=2)
    else:
        visual = _tower(pool_type="none")
    with pytest.raises(ValueError, match=message):
        PatchEncoder(visual)


def test_a_block_that_cannot_be_taken_apart_is_refused_when_it_is_to_be_changed():
    visual = _tower(qk_norm=True)
    with pytest.raises(ValueError, match=r"plain multi-head attention.*got CustomResidual"):
        PatchEncoder(visual, attention=lambda q, k, v, *, grid: v)
    with pytest.raises(ValueError, match="plain multi-head attention"):
        query_key_value(visual.transformer.resblocks[0], torch.zeros(1, 3, 16))


def test_wrong_arguments_are_named():
    visual = make_clip().visual
    encoder = PatchEncoder(visual)
    with pytest.raises(ValueError, match=r"expected images of shape \(B, 3, H, W\), got \(3, 32"):
        encoder(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match=r"at least one patch \(8 x 8 pixels\), got 7 x 32"):
        encoder(torch.zeros(1, 3, 7, 32))
    with pytest.raises(ValueError, match="stride of at least 1 pixel, got 0"):
        PatchEncoder(visual, stride=0)(make_images(1))
    with pytest.raises(ValueError, match="expected an output out of block, ln_post, proj, got cls"):
        PatchEncoder(visual, output="cls")
    dropping = PatchEncoder(visual, attention=lambda q, k, v, *, grid: v[:, :, 1:])
    with pytest.raises(ValueError, match=r"return the shape of its values, \(1, 2, 17, 8\)"):
        dropping(make_images(1))


def test_the_activation_in_place_is_the_one_that_gradients_take_and_spares_the_input():
    block = make_clip().visual.transformer.resblocks[0]
    tokens = 30 * torch.randn(3, 17, 16)
    before = tokens.clone()
    with torch.no_grad():
        found = run_block(block, tokens)
    assert torch.equal(tokens, before)
    expected = run_block(block, tokens.requires_grad_())
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)
    expected.sum().backward()
    assert tokens.grad.abs().sum() > 0
