from __future__ import annotations

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer

from ovseg.clip import PatchEncoder
from ovseg.config import load_cfg
from ovseg.projects.corrclip.dense import (
    ClipFeatures,
    RandomFeatures,
    TimmFeatures,
    build_dense,
)
from tests.projects.corrclip.tiny import picture, tiny_clip


def vit(**options) -> VisionTransformer:
    torch.manual_seed(0)
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}
    model = VisionTransformer(**size, **options, num_classes=0, dynamic_img_size=True).eval()
    torch.nn.init.normal_(model.pos_embed)
    return model


def images(height: int = 32, width: int = 32) -> torch.Tensor:
    return picture(height, width)[None]


def cfg_with(*opts: str):
    return load_cfg("corrclip_vitB", [*opts])


@torch.no_grad()
def test_queries_plus_keys_are_the_parts_of_the_last_attention():
    model = vit()
    of = {
        feature: TimmFeatures(model, name="vit", feature=feature)(images())
        for feature in ("q", "k", "v", "qk")
    }
    torch.testing.assert_close(of["qk"], of["q"] + of["k"])
    assert of["v"].shape == (1, 24, 4, 4) and not of["v"].allclose(of["k"])


@torch.no_grad()
def test_dinos_and_timms_positions_agree_where_nothing_is_resized():
    for feature in ("qk", "last"):
        dino, stock = (
            TimmFeatures(vit(), name="vit", feature=feature, positions=positions)
            for positions in ("dino", "timm")
        )
        torch.testing.assert_close(dino(images()), stock(images()), rtol=1e-4, atol=1e-5)
        wide = images(32, 48)
        assert dino(wide).shape == stock(wide).shape == (1, 24, 4, 6)
        assert (dino(wide) - stock(wide)).abs().max() > 1e-3


@torch.no_grad()
def test_the_last_layer_is_normalised_and_has_no_class_token():
    model = vit(reg_tokens=2)
    found = TimmFeatures(model, name="vit", feature="last", positions="timm")(images())
    vision = TimmFeatures(model, name="vit", positions="timm")
    tokens = model.forward_features(vision.normalise(images()))
    torch.testing.assert_close(found.flatten(2).transpose(1, 2), tokens[:, 3:])


def test_what_a_transformer_cannot_give_is_refused():
    with pytest.raises(ValueError, match=r"POSITIONS: expected 'timm'"):
        TimmFeatures(vit(reg_tokens=2), name="vit")
    with pytest.raises(ValueError, match=r"DENSE.FEATURE: expected one of"):
        build_dense(cfg_with("MODEL.CORRCLIP.DENSE.FEATURE", "o"), tiny_clip().visual)
    with pytest.raises(ValueError, match=r"DENSE.NAME: expected one of .*timm_vit"):
        build_dense(cfg_with("MODEL.CORRCLIP.DENSE.NAME", "dino"), tiny_clip().visual)


@torch.no_grad()
def test_clips_own_features_are_those_of_its_patches():
    visual = tiny_clip().visual
    last = ClipFeatures(visual, feature="last", scale_offset=0.0)
    normalised = (images() - last.mean) / last.std
    wanted = PatchEncoder(visual, output="ln_post")(normalised).features
    torch.testing.assert_close(last(images()), wanted)
    parts = {f: ClipFeatures(visual, feature=f)(images(32, 40)) for f in ("q", "k", "qk")}
    assert parts["qk"].shape == (1, 32, 4, 5)
    torch.testing.assert_close(parts["qk"], parts["q"] + parts["k"])
    assert ClipFeatures(visual, stride=4)(images()).shape == (1, 32, 7, 7)


def test_random_features_are_the_same_every_time():
    first, second = (RandomFeatures(cell=4, channels=6, seed=1)(images()) for _ in range(2))
    assert first.equal(second) and first.shape == (1, 6, 8, 8)
    assert not RandomFeatures(cell=4, channels=6, seed=2)(images()).equal(first)


@torch.no_grad()
def test_any_transformer_of_timm_is_built_by_its_name():
    opts = ["MODEL.CORRCLIP.DENSE.MODEL", "test_vit", "MODEL.CORRCLIP.DENSE.WEIGHTS", "random"]
    assert "test_vit" in timm.list_models()
    dense = build_dense(cfg_with(*opts), tiny_clip().visual)
    assert dense.name == "test_vit/qk/dino" and dense.cell == 16
    assert dense(images(32, 64)).shape[2:] == (2, 4)


@torch.no_grad()
def test_a_maskformers_pixel_decoder_gives_features_per_cell():
    opts = ["DENSE.NAME", "maskformer", "DENSE.MODEL", "ovseg_tiny", "DENSE.WEIGHTS", "random"]
    opts = [f"MODEL.CORRCLIP.{o}" if o.startswith("DENSE.") else o for o in opts]
    dense = build_dense(cfg_with(*opts, "MODEL.DEVICE", "cpu"), tiny_clip().visual)
    assert dense(images(40, 56)).shape == (1, 32, 5, 7)
