from __future__ import annotations

import json

import pytest
import torch
from open_clip.transformer import QuickGELU

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, build_clip
from tests.clip.tiny import CONFIG


def _build_without_memory(name, **options):
    with torch.device("meta"):
        return build_clip(name, **options)


@pytest.mark.parametrize(
    ("name", "size", "prompt", "text_width", "embed_dim"),
    [
        ("ViT-B/32", 224, (3, 49, 768), 512, 512),
        ("ViT-B/16", 224, (3, 196, 768), 512, 512),
        ("ViT-L/14", 224, (3, 256, 1024), 768, 768),
        ("ViT-L/14@336px", 336, (3, 576, 1024), 768, 768),
    ],
)
def test_openai_models_have_their_sizes_and_quick_gelu(name, size, prompt, text_width, embed_dim):
    clip = _build_without_memory(name, mask_prompt_depth=3)
    assert clip.image_size == (size, size)
    assert clip.visual.mask_embedding.shape == prompt
    assert clip.ln_final.weight.shape == (text_width,)
    assert clip.embed_dim == embed_dim
    for tower in (clip.visual.transformer, clip.transformer):
        assert all(isinstance(block.mlp.gelu, QuickGELU) for block in tower.resblocks)


def test_open_clip_names_keep_the_activation_of_their_config():
    assert not isinstance(
        _build_without_memory("ViT-B-32").transformer.resblocks[0].mlp.gelu, QuickGELU
    )
    clip = _build_without_memory("ViT-B-32-quickgelu")
    assert isinstance(clip.visual.transformer.resblocks[0].mlp.gelu, QuickGELU)


def test_state_dict_names_are_openais_plus_the_mask_embedding():
    names = set(_build_without_memory("ViT-L/14").state_dict())
    assert len(names) == 150 + 297
    assert {"visual.mask_embedding", "visual.proj", "text_projection", "logit_scale"} <= names


def test_depth_zero_has_an_empty_prompt():
    assert build_clip(CONFIG).visual.mask_embedding.shape == (0, 16, 16)


def test_a_new_prompt_is_zero():
    assert not build_clip(CONFIG, mask_prompt_depth=2).visual.mask_embedding.any()


def test_a_config_file_and_the_shipped_name_are_read(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(CONFIG))
    assert build_clip(path).image_size == (32, 32)
    assert build_clip("ovseg-tiny").visual.patch_size == (8, 8)


def test_statistics_are_on_the_scale_of_pixels():
    assert pytest.approx((122.771, 116.746, 104.094), abs=1e-3) == CLIP_PIXEL_MEAN
    assert pytest.approx((68.5005, 66.6322, 70.3232), abs=1e-3) == CLIP_PIXEL_STD


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-L/15", "valid: ViT-B/32, ViT-B/16, ViT-L/14, ViT-L/14@336px, ovseg-tiny"),
        ("RN50", "the mask prompt does not exist for the ResNet CLIPs"),
        ("ViT-B-16-SigLIP", "expected a CLIP with CLIP's own text tower"),
        ("absent.json", "there is no file"),
        ({"embed_dim": 8}, "lacks vision_cfg, text_cfg"),
    ],
)
def test_what_cannot_be_built_is_refused_with_the_choices(name, message):
    with pytest.raises(ValueError, match=message):
        build_clip(name)


def test_towers_without_a_patch_grid_are_refused():
    config = {**CONFIG, "vision_cfg": {**CONFIG["vision_cfg"], "patch_dropout": 0.5}}
    with pytest.raises(ValueError, match=r"image tower with patch_dropout = 0\.0, got 0\.5"):
        build_clip(config)
    config = {**CONFIG, "text_cfg": {**CONFIG["text_cfg"], "no_causal_mask": True}}
    with pytest.raises(ValueError, match="causal text tower"):
        build_clip(config)
