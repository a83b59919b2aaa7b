from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.modeling.proposer import MaskFormerProposer, distinct_masks
from ovseg.proposals import propose_batch
from tests.modeling.tiny import image, tiny_model, vocabulary

MODEL = tiny_model()


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return image(height, width, seed).permute(1, 2, 0).to(torch.uint8).numpy()


def proposer(**options) -> MaskFormerProposer:
    return MaskFormerProposer(
        **{"model": MODEL, "name": "tiny", "resize": lambda pixels: pixels, **options}
    )


def masks_of_the_model(pixels: np.ndarray) -> torch.Tensor:
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    [prediction] = MODEL.predict([{"image": tensor}], vocabulary())
    return prediction.masks


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_regions_are_the_models_masks_cut_at_the_threshold(threshold):
    pixels = picture(50, 70)
    expected = masks_of_the_model(pixels) > threshold
    expected = expected[expected.flatten(1).any(1)]

    found = proposer(threshold=threshold)(pixels, "any")

    assert found.dtype == np.bool_
    assert found.shape == expected.shape
    # The model cuts after the sigmoid, which may round differently at the very threshold.
    assert (found != expected.numpy()).mean() < 1e-4
    assert found.any(axis=(1, 2)).all()


def test_regions_come_at_the_pictures_size_not_the_networks():
    pixels = picture(40, 60)

    def double(pixels: np.ndarray) -> np.ndarray:
        return pixels.repeat(2, axis=0).repeat(2, axis=1)

    found = proposer(resize=double)(pixels, "any")

    masks = masks_of_the_model(double(pixels)).clamp(1e-6, 1 - 1e-6)
    logits = F.interpolate(masks.logit()[None], size=(40, 60), mode="bilinear")[0]
    expected = logits > np.log(0.4 / 0.6)
    assert np.array_equal(found, expected[expected.flatten(1).any(1)].numpy())


def test_pictures_of_several_sizes_come_back_in_their_order():
    pictures = [picture(40, 60, 0), picture(32, 32, 1), picture(40, 60, 2), picture(40, 60, 3)]
    together = propose_batch(proposer(batch_size=2), pictures, list("abcd"))
    one_by_one = [proposer()(pixels, "any") for pixels in pictures]

    assert [masks.shape for masks in together] == [masks.shape for masks in one_by_one]
    for first, second in zip(together, one_by_one, strict=True):
        assert (first != second).mean() < 1e-3


def test_masks_that_never_reach_the_threshold_are_dropped(monkeypatch):
    logits = torch.tensor([-1.0, 0.5, 2.0])[:, None, None].expand(1, 3, 4, 4)
    halves = proposer(threshold=0.5)
    monkeypatch.setattr(halves, "_logits", lambda images: logits)

    assert halves(picture(4, 4), "any").shape == (2, 4, 4)


def test_repetitions_of_an_earlier_mask_are_left_out_on_request():
    masks = torch.zeros(4, 10, 10, dtype=torch.bool)
    masks[0, :5] = True
    masks[1, :5] = True
    masks[1, 4, 9] = False  # 49 of 50 pixels
    masks[2, 5:] = True
    masks[3, :4] = True  # 40 of 50

    assert distinct_masks(masks, 0.98).tolist() == [0, 2, 3]
    assert distinct_masks(masks, 0.99).tolist() == [0, 1, 2, 3]
    assert distinct_masks(masks, 0.8).tolist() == [0, 2]
    assert distinct_masks(masks[:0], 0.8).tolist() == []


def test_a_proposer_without_repetitions_gives_fewer_regions():
    pixels = picture(40, 60)
    everything, fewer = proposer()(pixels, "any"), proposer(duplicate_iou=0.2)(pixels, "any")

    assert 0 < len(fewer) < len(everything)


def test_half_precision_gives_nearly_the_same_regions():
    pixels = picture(40, 60)
    whole, half = proposer()(pixels, "any"), proposer(dtype=torch.bfloat16)(pixels, "any")

    assert half.shape == whole.shape
    assert 0 < (half != whole).mean() < 0.05


def test_the_model_is_asked_for_masks_only(monkeypatch):
    def refuse(*_):
        raise AssertionError("CLIP is not needed for masks")

    monkeypatch.setattr(MODEL.clip_adapter.clip_model.visual, "forward", refuse)
    monkeypatch.setattr(MODEL.clip_adapter.text_bank, "_encode", refuse)

    assert len(proposer()(picture(32, 32), "any"))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"threshold": 1.0}, "between 0 and 1, got 1.0"),
        ({"duplicate_iou": 0.0}, r"in \(0, 1\], got 0.0"),
        ({"batch_size": 0}, "at least 1, got 0"),
    ],
)
def test_options_out_of_range_are_refused(option, message):
    with pytest.raises(ValueError, match=message):
        proposer(**option)
