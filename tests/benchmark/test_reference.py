"""The reference computes what the package saves, and comes to the same result."""

from __future__ import annotations

import pytest
import torch

from ovseg.benchmark.reference import without
from ovseg.benchmark.replacing import replaced
from ovseg.modeling.prediction import Prediction
from tests.modeling.tiny import image, tiny_model, vocabulary


def tokens_seen(module) -> list[int]:
    """The lengths of what goes through a module from now on."""
    lengths: list[int] = []
    module.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[-2]))
    return lengths


@torch.no_grad()
def predict(model):
    [prediction] = model.predict([{"image": image(64, 96)}], vocabulary())
    return prediction


def test_the_reference_equals_the_package_as_it_is():
    model = tiny_model(MODEL__CLIP_ADAPTER__MASK_PROMPT_DEPTH=2)
    exact = predict(model)
    model.clip_adapter.text_bank.clear()
    with without(model):
        reference = predict(model)
    assert exact.valid.sum() > 1 and exact.clip_scores is not None
    torch.testing.assert_close(reference.clip_scores, exact.clip_scores, rtol=0, atol=1e-4)
    torch.testing.assert_close(reference.class_scores, exact.class_scores, rtol=0, atol=1e-4)
    assert (reference.labels() == exact.labels()).float().mean() > 0.999


def test_every_text_is_encoded_whole_and_the_bank_of_the_model_stays_as_it_is():
    model = tiny_model()
    clip, bank = model.clip_adapter.clip_model, model.clip_adapter.text_bank
    texts = tokens_seen(clip.transformer.resblocks[0].ln_1)
    with without(model, ("texts",)):
        predict(model)
        assert len(model.clip_adapter.text_bank) == 3
    assert texts == [77]
    assert model.clip_adapter.text_bank is bank and len(bank) == 0
    predict(model)
    assert len(texts) == 2 and texts[1] < 77 * 3


def test_the_last_block_runs_for_all_tokens_and_the_tower_is_restored():
    model = tiny_model()
    visual = model.clip_adapter.clip_model.visual
    last = tokens_seen(visual.transformer.resblocks[-1].mlp.c_fc)
    predict(model)
    with without(model, ("blocks",)):
        assert not any(block.training for block in visual.transformer.resblocks)
        predict(model)
    everything = 1 + visual.grid_size[0] * visual.grid_size[1]
    assert last[-1] == everything and last[0] != everything
    assert not visual.training and len(model.clip_adapter.text_bank) == 3


def test_a_model_is_restored_after_an_error_and_unknown_savings_are_told():
    model = tiny_model()
    bank = model.clip_adapter.text_bank
    with pytest.raises(RuntimeError), without(model):
        raise RuntimeError
    assert model.clip_adapter.text_bank is bank
    assert not model.clip_adapter.clip_model.visual.training
    with (
        pytest.raises(ValueError, match="savings of texts, blocks, got tricks"),
        without(model, ("tricks",)),
    ):
        pass


def test_what_a_class_or_an_object_had_itself_comes_back():
    labels, found = Prediction.labels, tiny_model()
    with replaced(Prediction, "labels", None), replaced(found, "forward", len):
        assert Prediction.labels is None and found.forward is len
    assert Prediction.labels is labels and "forward" not in vars(found)
