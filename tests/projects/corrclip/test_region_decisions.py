from __future__ import annotations

import pytest
import torch

from ovseg.modeling import prediction as prediction_module
from ovseg.projects.corrclip.prediction import RegionwisePrediction, most_frequent


def made(size=(6, 8), output_size=(15, 18), strings=5, **options) -> RegionwisePrediction:
    scores = torch.randn(strings, *size, generator=torch.Generator().manual_seed(0)) * 0.05
    classes = options.pop("classes", torch.tensor([0, 0, 1, 2, 2]))
    return RegionwisePrediction(scores, output_size, classes=classes, count=3, **options)


def quarters(size=(15, 18)) -> torch.Tensor:
    ids = torch.zeros(size, dtype=torch.int32)
    ids[3:8], ids[8:] = 5, 9
    ids[8:, 9:] = 70
    return ids


def reference(p: RegionwisePrediction) -> torch.Tensor:
    resized = torch.nn.functional.interpolate(
        p.scores[None], size=p.output_size, mode="bilinear", align_corners=False
    )[0]
    each = (p.scale * resized).softmax(0)
    return torch.stack([each[p.classes == k].amax(0) for k in range(p.count)])


@pytest.mark.parametrize("band_bytes", [1, 4000, 10**9])
def test_a_class_takes_the_best_of_its_strings(monkeypatch, band_bytes):
    monkeypatch.setattr(prediction_module, "BAND_BYTES", band_bytes)
    p = made()
    torch.testing.assert_close(p.sem_seg(), reference(p))
    assert p.labels().equal(reference(p).argmax(0)) and p.num_classes == 3
    assert not p.may_abstain and p.abstention() is None


def test_a_region_takes_its_most_frequent_label_and_the_smallest_of_equal_ones():
    labels = torch.tensor([[2, 2, 1, 0], [1, 1, 2, 2], [0, 2, 1, 0]])
    regions = torch.tensor([[1, 1, 1, 0], [2, 2, 2, 2], [0, 0, 3, 3]])
    assert most_frequent(labels, regions).tolist() == [[2, 2, 2, 0], [1, 1, 1, 1], [0, 2, 0, 0]]
    assert most_frequent(-torch.ones_like(labels), regions).eq(-1).all()


def test_labels_after_correction_are_the_argmax_of_the_scores():
    p = made(regions=quarters(), threshold=0.5, background=0)
    labels = p.labels()
    for region in (5, 9, 70):
        assert len(labels[p.regions == region].unique()) == 1
    assert p.sem_seg().argmax(0).equal(labels)
    plain = made(threshold=0.5, background=0).labels()
    assert labels[p.regions == 0].equal(plain[p.regions == 0])
    assert not labels.equal(plain)


def test_unsure_pixels_go_to_the_background_or_stay_blank():
    sure = reference(made()).amax(0) >= 0.5
    with_background = made(threshold=0.5, background=1).labels()
    assert with_background[sure].equal(made().labels()[sure])
    assert with_background[~sure].eq(1).all() and 0 < sure.sum() < sure.numel()
    blank = made(threshold=0.5)
    assert blank.may_abstain and blank.abstention().equal(~sure)
    assert blank.labels(blank=-1).eq(-1).equal(~sure)
    assert blank.labels().equal(made().labels())


def test_a_region_that_is_mostly_unsure_stays_blank_as_a_whole():
    p = made(threshold=0.5, regions=quarters())
    low = reference(made()).amax(0) < 0.5
    for region in (5, 9, 70):
        inside = p.regions == region
        assert p.abstention()[inside].unique().numel() == 1
        if low[inside].float().mean() > 0.7:
            assert p.abstention()[inside].all()


def test_the_confidence_of_a_class_is_that_of_its_pixels_before_the_correction():
    p = made(regions=quarters())
    labels = p.labels()
    expected = [reference(p)[k][labels == k].mean() if (labels == k).any() else 0 for k in range(3)]
    assert p.region_scores(labels.numpy()).tolist() == pytest.approx([float(x) for x in expected])


def test_a_map_without_zero_leaves_its_first_region_alone_or_not():
    regions = quarters() + 4
    plain = made().labels()
    first = regions == 4
    assert made(regions=regions).labels()[first].equal(plain[first])
    assert len(made(regions=regions, unsegmented="zero").labels()[first].unique()) == 1


def test_a_window_is_that_part_of_the_whole():
    p = made(threshold=0.35, regions=quarters())
    rows, columns = slice(2, 11), slice(5, 18)
    bands = list(p.final_bands(4, (rows, columns)))
    scores = torch.cat([values for _, values in bands]).permute(2, 0, 1)
    torch.testing.assert_close(scores, p.sem_seg()[:, rows, columns], rtol=0, atol=1e-7)
    assert scores.argmax(0).equal(p.labels()[rows, columns])
    blank = torch.cat([p.abstains(band, values, columns) for band, values in bands])
    assert blank.equal(p.abstention()[rows, columns])
