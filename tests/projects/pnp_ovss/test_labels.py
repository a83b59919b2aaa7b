from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ovseg.modeling import DensePrediction
from ovseg.modeling.views.dense_crf import CRFSettings
from ovseg.projects.pnp_ovss.labels import (
    LabelRules,
    add_background,
    blur,
    keep_salient,
    min_max,
    score_channels,
)
from ovseg.projects.pnp_ovss.prediction import SubsetPrediction

PLAIN = LabelRules(post="none")


def picture(height=8, width=10):
    return np.zeros((height, width, 3), np.uint8)


def test_cells_below_the_threshold_of_the_scaled_map_are_left_out_and_others_keep_their_value():
    maps = torch.tensor([[[1.0, 2.0], [3.0, 5.0]]])  # scaled: 0, 1/4, 1/2, 1
    assert keep_salient(maps, 0.3).tolist() == [[[0.0, 0.0], [3.0, 5.0]]]
    assert keep_salient(maps, 0.5).tolist() == [[[0.0, 0.0], [3.0, 5.0]]]
    assert keep_salient(torch.full((1, 2, 2), 7.0), 0.3).tolist() == [[[0.0, 0.0], [0.0, 0.0]]]


def test_a_constant_map_is_scaled_to_zeros():
    maps = torch.stack([torch.full((2, 2), 3.0), torch.tensor([[1.0, 2.0], [3.0, 5.0]])])
    assert min_max(maps).tolist() == [[[0, 0], [0, 0]], [[0, 0.25], [0.5, 1]]]


def test_the_background_is_where_no_class_is():
    maps = torch.tensor([[[0.0, 1.0], [0.0, 0.0]], [[0.0, 0.0], [2.0, 0.0]]])
    assert add_background(maps)[0].tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize(
    ("policy", "channels"), [("always", [2, 3, 4]), ("if_few", [2, 3, 3]), ("never", [1, 2, 3])]
)
def test_the_policy_decides_whether_there_is_a_background(policy, channels):
    rules = replace(PLAIN, background=policy, few=3)
    maps = torch.rand(3, 4, 5)
    assert [len(score_channels(maps[:k], picture(), rules)) for k in (1, 2, 3)] == channels


def test_several_maps_are_scaled_after_upsampling_where_the_rules_say_so_and_one_never():
    maps = torch.rand(2, 4, 5)
    scaled = replace(PLAIN, scale_01=True, background="never")
    found = score_channels(maps, picture(), scaled)
    assert found.amax((1, 2)).tolist() == [1, 1] and found.amin((1, 2)).tolist() == [0, 0]
    plain = score_channels(maps[:1], picture(), replace(PLAIN, background="never"))
    torch.testing.assert_close(score_channels(maps[:1], picture(), scaled), plain)


def test_blurred_channels_are_scaled_and_a_missing_background_does_not_poison_the_rest():
    channels = torch.stack([torch.zeros(20, 20), torch.zeros(20, 20)])
    channels[1, 5:9, 5:9] = 3.0
    found = blur(channels, 2.0)
    assert found[0].abs().max() == 0
    assert found[1].max() == 1 and found[1].min() == 0 and 0 < found[1, 5, 5] < 1
    maps = torch.ones(1, 4, 5)
    maps[0, 0, 0] = 0.9  # scaled 0; everything else is kept, bilinearly from the first cell on
    assert score_channels(maps, picture(), LabelRules(post="blur")).isfinite().all()


def test_a_crf_without_pairs_gives_the_softmax_of_the_channels():
    rules = LabelRules(post="crf", crf=CRFSettings(smooth_weight=0, colour_weight=0))
    maps = 3 * torch.rand(2, 4, 5)
    plain = score_channels(maps, picture(), replace(rules, post="none"))
    found = score_channels(maps, picture(), rules)
    torch.testing.assert_close(found, plain.softmax(0), rtol=1e-3, atol=1e-5)


def test_the_crf_follows_the_picture():
    image = np.full((24, 32, 3), 20, np.uint8)
    image[:, 16:] = 220
    maps = torch.zeros(1, 3, 4)
    maps[0, :, :2] = 1.0  # without the picture, the class ends at column 20
    plain = score_channels(maps, image, PLAIN).argmax(0)
    assert (plain[:, :20] == 1).all() and (plain[:, 21:] == 0).all()
    labels = score_channels(maps, image, LabelRules()).argmax(0)
    assert (labels[:, :16] == 1).all() and (labels[:, 16:] == 0).all()


def test_unknown_policies_and_modes_are_refused():
    with pytest.raises(ValueError, match=r"BACKGROUND.POLICY: expected one of .* got 'some'"):
        LabelRules(background="some")
    with pytest.raises(ValueError, match=r"POST.MODE: expected one of .* got 'sharpen'"):
        LabelRules(post="sharpen")


def test_classes_that_were_not_asked_for_get_no_pixel_whatever_the_order():
    inner = DensePrediction(torch.tensor([[[0.0, 0.7]], [[0.0, 0.2]]]), (1, 2))
    prediction = SubsetPrediction(inner, [3, 1], 5)
    assert prediction.labels().tolist() == [[1, 3]]  # of two zeros the class with the lower id
    scores = prediction.sem_seg()
    assert scores.shape == (5, 1, 2) and (scores[[0, 2, 4]] < 0).all()
    assert torch.equal(scores.argmax(0), prediction.labels())
    confidence = prediction.region_scores(np.array([[-1, 3]]))
    np.testing.assert_allclose(confidence, [0, 0, 0, 0.7, 0], rtol=1e-6)


def test_blank_pixels_stay_blank():
    blank = torch.tensor([[True, False]])
    inner = DensePrediction(torch.tensor([[[0.0, 0.7]]]), (1, 2), blank)
    prediction = SubsetPrediction(inner, [2], 4)
    assert prediction.labels(blank=-1).tolist() == [[-1, 2]]
    assert torch.equal(prediction.abstention(), blank)


def test_a_window_of_a_few_classes_is_that_part_of_the_whole():
    inner = DensePrediction(torch.rand(2, 7, 9), (24, 20), torch.rand(24, 20) > 0.5)
    p = SubsetPrediction(inner, [3, 1], 5)
    rows, columns = slice(5, 21), slice(3, 17)
    bands = list(p.final_bands(6, (rows, columns)))
    scores = torch.cat([values for _, values in bands]).permute(2, 0, 1)
    assert scores.equal(p.sem_seg()[:, rows, columns])
    blank = torch.cat([p.abstains(band, values, columns) for band, values in bands])
    assert blank.equal(inner.blank[rows, columns])
