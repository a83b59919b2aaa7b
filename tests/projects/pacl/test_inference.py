from __future__ import annotations

import math

import pytest
import torch

from ovseg.projects.pacl.inference import (
    InferenceSettings,
    PatchGrid,
    class_entropy,
    score_pixels,
)


def test_a_square_is_made_of_any_picture():
    image = torch.rand(3, 30, 50)
    framed, grid = InferenceSettings(input_size=64).frame(image, 16)
    assert framed.shape == (3, 64, 64) and grid.size == grid.padded_size == (64, 64)
    assert grid.stride == 4 and not grid.exact


def test_a_picture_that_keeps_its_size_is_padded_to_whole_patches():
    image = torch.rand(3, 30, 50)
    framed, grid = InferenceSettings(input_size=None, stride=None).frame(image, 16)
    assert framed.shape == (3, 32, 64) and torch.equal(framed[:, :30, :50], image)
    assert grid.size == (30, 50) and grid.padded_size == (32, 64) and grid.stride == 16


def test_padding_is_taken_off_the_maps():
    grid = PatchGrid(size=(30, 50), padded_size=(32, 64), patch_size=16, stride=16)
    columns = torch.tensor([[[0.0, 1.0, 2.0, 3.0], [0.0, 1.0, 2.0, 3.0]]])  # (1, 2, 4)
    placed = grid.place(columns)
    assert placed.shape == (1, 30, 50)
    assert placed[0, 0, 8 + 16].item() == pytest.approx(1.0, abs=0.05)


def test_exact_placement_puts_the_values_at_the_centres_of_the_patches():
    grid = PatchGrid((224, 224), (224, 224), patch_size=16, stride=4, exact=True)
    values = torch.arange(53.0).expand(1, 53, 53)
    placed = grid.place(values)[0]  # (224, 224)
    assert placed.shape == (224, 224)
    # Patch i covers pixels 4 i .. 4 i + 15; between its two middle pixels lies its centre.
    for i in (0, 10, 52):
        middle = (placed[100, 4 * i + 7] + placed[100, 4 * i + 8]) / 2
        assert middle.item() == pytest.approx(i, abs=0.13)
    assert placed[0, 0].item() == 0 and placed[0, 223].item() == 52
    stretched = PatchGrid((224, 224), (224, 224), patch_size=16, stride=4)
    assert torch.equal(stretched.place(values), values)


def test_entropy_is_nothing_for_a_sure_class_and_ln_k_for_none():
    scores = torch.tensor([[100.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(class_entropy(scores), torch.tensor([0.0, math.log(3)]))


SURE, UNSURE = (0.9, 0.1, 0.0, 0.0, 0.0, 0.0), (0.3,) * 6
ENTROPY = InferenceSettings(background="entropy")


def cosines():
    """Six classes; the left half is sure of class 0, the right half of none."""
    left = torch.tensor(SURE)[:, None, None].expand(6, 4, 4)
    right = torch.tensor(UNSURE)[:, None, None].expand(6, 4, 4)
    return torch.cat([left, right], dim=2)  # (6, 4, 8)


def test_pixels_at_which_no_class_stands_out_stay_blank():
    prediction = score_pixels(cosines(), (4, 8), settings=ENTROPY, scale=100.0)
    blank = prediction.labels(blank=-1)
    assert (blank[:, :4] == 0).all() and (blank[:, 4:] == -1).all()
    plain = score_pixels(cosines(), (4, 8), settings=InferenceSettings(), scale=100.0)
    assert not plain.may_abstain and (plain.labels() >= 0).all()


def test_cosines_without_a_scale_are_never_sure():
    prediction = score_pixels(cosines(), (4, 8), settings=ENTROPY, scale=1.0)
    assert (prediction.labels(blank=-1) == -1).all()


def test_a_background_class_of_the_vocabulary_gets_those_pixels():
    scores = cosines()
    scores = torch.cat([torch.full((1, 4, 8), 0.99), scores])  # a background that would win
    prediction = score_pixels(scores, (40, 80), settings=ENTROPY, scale=100.0, background=0)
    labels = prediction.labels()
    assert labels.shape == (40, 80)
    assert (labels[:, :35] == 1).all() and (labels[:, 45:] == 0).all()
    ignoring = InferenceSettings(background="ignore")
    compared = score_pixels(scores, (40, 80), settings=ignoring, scale=100.0, background=0)
    assert (compared.labels() == 0).all()


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"background": "none"}, "MODEL.PACL.TEST.BACKGROUND"),
        ({"stride": -4}, "MODEL.PACL.TEST.PATCH_STRIDE"),
        ({"input_size": -1}, "MODEL.PACL.TEST.INPUT_SIZE"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_the_name_of_their_key(options, named):
    with pytest.raises(ValueError, match=named):
        InferenceSettings(**options)
