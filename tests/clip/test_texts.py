from __future__ import annotations

import copy

import pytest
import torch

import ovseg
from ovseg.clip import ClipTexts, build_clip, encode_texts, texts
from ovseg.weights.catalogue import KEEP_TEXTS_VARIABLE


@pytest.fixture(scope="module")
def clip():
    torch.manual_seed(0)
    return build_clip("ovseg-tiny").eval()


@pytest.fixture
def _every_tower(monkeypatch):
    monkeypatch.setattr(texts, "_LEAST_WEIGHTS", 0)


def test_texts_are_encoded_in_the_precision_of_the_weights(clip):
    with torch.no_grad():
        plain = encode_texts(clip, ["a photo of a cat."])
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ClipTexts(clip)(["a photo of a cat."]), plain)


@pytest.mark.usefixtures("_every_tower")
def test_every_weight_of_the_text_tower_counts_and_no_other(clip):
    other = copy.deepcopy(clip)
    named = ClipTexts(clip).identity()
    assert len(named) == 64 and ClipTexts(other).identity() == named
    with torch.no_grad():
        other.visual.proj[0, 0] += 1
        assert ClipTexts(other).identity() == named
        for name in ("token_embedding.weight", "text_projection", "ln_final.bias"):
            weight = other.get_parameter(name)
            before = weight.clone()
            weight.view(-1)[-1] += 1e-3
            assert ClipTexts(other).identity() != named, name
            weight.copy_(before)
    assert ClipTexts(other).identity() == named


@pytest.mark.usefixtures("_every_tower")
def test_another_activation_is_another_tower(clip):
    other = copy.deepcopy(clip)
    other.transformer.resblocks[0].mlp.gelu = torch.nn.ReLU()
    assert ClipTexts(other).identity() != ClipTexts(clip).identity()


def test_texts_of_small_towers_are_not_kept(clip):
    assert ClipTexts(clip).identity() == ""


@pytest.mark.usefixtures("_every_tower")
@pytest.mark.parametrize("config", ["ovseg_tiny", "corrclip_tiny", "pacl_tiny"])
def test_a_loaded_model_knows_the_words_of_the_last_one(config, tmp_path, monkeypatch):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path))
    picture = torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()

    def encoded() -> list[str]:
        predictor = ovseg.load(config=config, device="cpu")
        asked: list[str] = []
        bank = predictor.model.text_banks()[0]
        encode = bank._encode_rows
        bank._encode_rows = lambda keys: asked.extend(k[0][0] for k in keys) or encode(keys)
        predictor.segment(picture, ["sky", "moon"])
        return asked

    assert encoded() == ["sky", "moon"]
    assert encoded() == []
    monkeypatch.setenv(KEEP_TEXTS_VARIABLE, "0")
    assert encoded() == ["sky", "moon"]
