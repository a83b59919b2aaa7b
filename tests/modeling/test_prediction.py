from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.modeling import prediction as prediction_module
from ovseg.modeling.prediction import DensePrediction, MaskPrediction


def prediction(
    size=(13, 17), output_size=(31, 29), queries=6, classes=4, **fields
) -> MaskPrediction:
    torch.manual_seed(3)
    scores = torch.rand(queries, classes)
    return MaskPrediction(
        masks=torch.rand(queries, *size),
        class_scores=fields.pop("class_scores", scores),
        proposal_scores=scores,
        clip_scores=None,
        valid=torch.ones(queries, dtype=torch.bool),
        output_size=output_size,
        **fields,
    )


def reference(p: MaskPrediction) -> torch.Tensor:
    masks = (p.masks > p.mask_threshold).float() if p.binary else p.masks
    merged = torch.einsum("qk,qhw->khw", p.class_scores, masks)
    return F.interpolate(merged[None], size=p.output_size, mode="bilinear", align_corners=False)[0]


SIZES = [
    ((13, 17), (31, 29)),
    ((13, 17), (7, 5)),
    ((13, 17), (13, 17)),
    ((13, 17), (13, 40)),
    ((13, 17), (26, 17)),
    ((1, 1), (5, 3)),
    ((9, 1), (1, 9)),
    ((160, 213), (427, 569)),
]


@pytest.mark.parametrize("band_bytes", [1, 3000, 10**9])
@pytest.mark.parametrize(("size", "output_size"), SIZES)
def test_bands_give_the_scores_of_one_interpolation(monkeypatch, size, output_size, band_bytes):
    monkeypatch.setattr(prediction_module, "BAND_BYTES", band_bytes)
    p = prediction(size, output_size)
    torch.testing.assert_close(p.sem_seg(), reference(p), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("band_bytes", [1, 3000, 10**9])
@pytest.mark.parametrize(("size", "output_size"), SIZES)
def test_labels_are_exactly_the_argmax_of_the_scores(monkeypatch, size, output_size, band_bytes):
    monkeypatch.setattr(prediction_module, "BAND_BYTES", band_bytes)
    p = prediction(size, output_size)
    labels = p.labels()
    assert labels.shape == output_size and labels.dtype == torch.int64
    assert torch.equal(labels, p.sem_seg().argmax(0))


def test_no_band_exceeds_its_bytes(monkeypatch):
    monkeypatch.setattr(prediction_module, "BAND_BYTES", 20_000)
    p = prediction((50, 40), (200, 160))
    shapes = [values.shape for _, values in p._bounded_bands()]
    assert sum(shape[0] for shape in shapes) == 200
    assert max(4 * shape.numel() for shape in shapes) <= 20_000


def test_masks_without_scores_take_no_part():
    scores = torch.rand(6, 4)
    scores[[1, 4]] = 0
    p = prediction(class_scores=scores)
    torch.testing.assert_close(p.sem_seg(), reference(p), rtol=1e-4, atol=1e-5)
    nothing = prediction(class_scores=torch.zeros(6, 4))
    assert nothing.sem_seg().abs().sum() == 0
    assert torch.equal(nothing.labels(), torch.zeros(31, 29, dtype=torch.int64))


def test_a_threshold_merges_binary_masks():
    p = prediction(mask_threshold=0.7, binary=True)
    torch.testing.assert_close(p.sem_seg(), reference(p), rtol=1e-4, atol=1e-5)


def test_blank_marks_pixels_that_nothing_covers():
    p = prediction((8, 8), (8, 8), mask_threshold=0.9, binary=True)
    uncovered = ~(p.masks > 0.9).any(0)
    assert 0 < uncovered.sum() < 64
    assert torch.equal(p.labels(blank=-1) == -1, uncovered)
    assert torch.equal(p.labels(blank=-1)[~uncovered], p.labels()[~uncovered])


def test_blank_marks_pixels_where_a_hidden_class_wins():
    scores = torch.tensor([[0.9], [0.2]])
    p = MaskPrediction(
        masks=torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]]),
        class_scores=scores,
        proposal_scores=scores,
        clip_scores=None,
        valid=torch.ones(2, dtype=torch.bool),
        output_size=(1, 2),
        hidden_scores=torch.tensor([0.1, 0.8]),
    )
    assert p.labels(blank=7).tolist() == [[0, 7]]
    assert p.labels().tolist() == [[0, 0]]
    assert p.sem_seg().flatten().tolist() == pytest.approx([0.9, 0.2])


def test_dense_scores_are_read_out_alike():
    scores = torch.randn(3, 11, 7)
    p = DensePrediction(scores, (23, 30))
    expected = F.interpolate(scores[None], size=(23, 30), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(p.sem_seg(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(p.labels(), p.sem_seg().argmax(0))


def test_negative_logits_are_no_abstention():
    p = DensePrediction(-torch.rand(3, 4, 5) - 1, (4, 5))
    assert not p.may_abstain and p.abstention() is None
    assert torch.equal(p.labels(blank=-1), p.sem_seg().argmax(0))


def test_a_dense_method_abstains_where_it_says_so():
    blank = torch.zeros(8, 10, dtype=torch.bool)
    blank[2:5, 3:] = True
    p = DensePrediction(torch.randn(3, 4, 5), (8, 10), blank)
    assert torch.equal(p.abstention(), blank)
    assert torch.equal(p.labels(blank=-1) == -1, blank)
    assert torch.equal(p.labels(), p.sem_seg().argmax(0))


def test_the_confidence_of_a_dense_class_is_the_mean_probability_of_its_pixels():
    scores = torch.tensor([[[0.9, 0.6, 0.2]], [[0.1, 0.4, 0.8]], [[0.0, 0.0, 0.0]]])
    labels = np.array([[0, 0, -1]])
    assert DensePrediction(scores, (1, 3)).region_scores(labels).tolist() == pytest.approx(
        [0.75, 0, 0]
    )
    logits = DensePrediction(scores.log().clamp(min=-50) / 100, (1, 3), logit_scale=100.0)
    assert logits.region_scores(labels).tolist() == pytest.approx([0.75, 0, 0], abs=1e-5)
    assert DensePrediction(scores, (1, 3)).proposals() == ()


@pytest.mark.parametrize("height", [1, 4, 100])
@pytest.mark.parametrize(
    "p",
    [
        prediction(),
        prediction(mask_threshold=0.9, binary=True),
        DensePrediction(torch.randn(3, 11, 7), (31, 29), torch.rand(31, 29) > 0.5),
    ],
    ids=["masks", "cut masks", "dense"],
)
def test_a_window_is_that_part_of_the_whole(p, height):
    window = (slice(5, 23), slice(8, 29))
    bands = list(p.final_bands(height, window))
    assert [band.start for band, _ in bands] == list(range(5, 23, height))
    scores = torch.cat([values for _, values in bands]).permute(2, 0, 1)
    torch.testing.assert_close(scores, p.sem_seg()[:, window[0], window[1]])
    if p.may_abstain:
        blank = torch.cat([p.abstains(band, values, window[1]) for band, values in bands])
        assert torch.equal(blank, p.abstention()[window]) and 0 < blank.sum() < blank.numel()
