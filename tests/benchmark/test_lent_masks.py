from __future__ import annotations

import pytest
import torch

from ovseg.benchmark.lent_masks import lend_masks
from tests.benchmark.ready import subject
from tests.modeling.tiny import QUERIES, tiny_model


@torch.no_grad()
def test_a_model_finds_the_masks_of_another_at_its_own_size():
    picture = subject().picture  # 48 x 64
    model, donor = tiny_model(), tiny_model(MODEL__MASK_FORMER__NUM_OBJECT_QUERIES=5)
    image = torch.from_numpy(picture).permute(2, 0, 1).float()
    [expected] = donor.encode([{"image": image}])
    large = torch.nn.functional.interpolate(image[None], (96, 128))[0]
    [own] = model.encode([{"image": large}])
    lend_masks(model, donor, picture)
    [found] = model.encode([{"image": large}])
    assert found.masks.shape == (5, 96, 128) and own.masks.shape == (QUERIES, 96, 128)
    wanted = torch.nn.functional.interpolate(expected.masks[None], (96, 128), mode="bilinear")[0]
    assert (found.masks - wanted).abs().mean() < 0.3 * (own.masks[:5] - wanted).abs().mean()
    torch.testing.assert_close(found.class_embeddings, own.class_embeddings[:5])


def test_more_masks_than_the_model_has_are_refused():
    few = tiny_model(MODEL__MASK_FORMER__NUM_OBJECT_QUERIES=3)
    with pytest.raises(ValueError, match="at most 3 masks, as many as the model has, got 7"):
        lend_masks(few, tiny_model(), subject().picture)
