from __future__ import annotations

import math

import pytest
import torch

from ovseg.d2.layers import ShapeSpec
from ovseg.modeling.heads.mask_former_head import MaskFormerHead, OpenVocabMaskFormerHead
from ovseg.modeling.heads.position import PositionEmbeddingSine
from ovseg.modeling.heads.transformer import LayerSpec, Transformer
from tests.modeling.tiny import NAMES, QUERIES, tiny_cfg

SHAPES = {f"res{i + 2}": ShapeSpec(channels=16 * 2**i, stride=4 * 2**i) for i in range(4)}


def features(height: int = 16, width: int = 24) -> dict[str, torch.Tensor]:
    return {
        name: torch.randn(2, s.channels, 4 * height // s.stride, 4 * width // s.stride)
        for name, s in SHAPES.items()
    }


def test_position_encoding_puts_rows_first_and_interleaves_sine_and_cosine():
    encoding = PositionEmbeddingSine(features=4)(torch.empty(1, 1, 3, 5))
    assert encoding.shape == (1, 8, 3, 5)
    angle = 2 * math.pi * 2 / (3 + 1e-6)  # second of three rows
    expected = [math.sin(angle), math.cos(angle), math.sin(angle / 100), math.cos(angle / 100)]
    assert encoding[0, :4, 1, 0].tolist() == pytest.approx(expected, abs=1e-6)
    assert torch.equal(encoding[0, :4, 1, 0], encoding[0, :4, 1, 4])  # rows do not see columns


def test_head_predicts_an_embedding_and_a_mask_per_query():
    outputs = OpenVocabMaskFormerHead(tiny_cfg(), SHAPES).eval()(features())
    assert outputs["pred_logits"].shape == (2, QUERIES, 64)
    assert outputs["pred_masks"].shape == (2, QUERIES, 16, 24)
    assert "aux_outputs" not in outputs


def test_training_returns_the_inner_layers_and_the_last_equals_inference():
    head = OpenVocabMaskFormerHead(tiny_cfg(MODEL__MASK_FORMER__DROPOUT=0.0), SHAPES)
    inputs = features()
    training, inference = head.train()(inputs), head.eval()(inputs)
    assert len(training["aux_outputs"]) == 1
    assert not torch.allclose(training["aux_outputs"][0]["pred_masks"], training["pred_masks"])
    torch.testing.assert_close(training["pred_masks"], inference["pred_masks"])


def test_closed_head_has_a_logit_per_class_and_one_for_no_object():
    head = MaskFormerHead(tiny_cfg(), SHAPES).eval()
    assert head(features())["pred_logits"].shape == (2, QUERIES, len(NAMES) + 1)


def test_pre_norm_encoder_ends_with_a_norm_and_runs():
    spec = LayerSpec(dim=16, heads=2, feedforward=8, dropout=0.0, pre_norm=True)
    transformer = Transformer(spec, encoder_layers=2, decoder_layers=2)
    assert transformer.encoder.norm is not None
    pos = PositionEmbeddingSine(features=8)(torch.empty(1, 1, 2, 3))
    states = transformer(torch.randn(2, 16, 2, 3), pos, torch.randn(5, 16), all_layers=True)
    assert states.shape == (2, 2, 5, 16)
    assert states.mean(-1).abs().max() < 1e-5  # normalised


@pytest.mark.parametrize("feature", ["transformer_encoder", "pixel_embedding", "res4"])
def test_queries_can_attend_to_any_feature(feature):
    cfg = tiny_cfg(
        MODEL__MASK_FORMER__TRANSFORMER_IN_FEATURE=feature,
        MODEL__SEM_SEG_HEAD__PIXEL_DECODER_NAME="TransformerEncoderPixelDecoder",
        MODEL__SEM_SEG_HEAD__TRANSFORMER_ENC_LAYERS=1,
    )
    outputs = OpenVocabMaskFormerHead(cfg, SHAPES).eval()(features())
    assert outputs["pred_masks"].shape == (2, QUERIES, 16, 24)


def test_an_unknown_feature_and_a_missing_encoder_are_named():
    with pytest.raises(ValueError, match=r"TRANSFORMER_IN_FEATURE: expected one of .*got 'res9'"):
        OpenVocabMaskFormerHead(tiny_cfg(MODEL__MASK_FORMER__TRANSFORMER_IN_FEATURE="res9"), SHAPES)
    cfg = tiny_cfg(MODEL__MASK_FORMER__TRANSFORMER_IN_FEATURE="transformer_encoder")
    with pytest.raises(ValueError, match="TransformerEncoderPixelDecoder"):
        OpenVocabMaskFormerHead(cfg, SHAPES)(features())
