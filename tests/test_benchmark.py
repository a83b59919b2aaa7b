from __future__ import annotations

import torch

from ovseg.benchmark import (
    Comparison,
    Cost,
    _slabs,
    compare_label_maps,
    compare_text_towers,
    measure,
    measure_evaluation,
    stages,
)
from ovseg.modeling.prediction import DensePrediction, Prediction
from tests.modeling.tiny import image, tiny_model, vocabulary


def test_stages_add_up_and_the_model_is_left_as_it_was():
    model = tiny_model(TEST__OUTPUT="labels")
    labels = Prediction.labels
    seconds = stages(model, image(64, 48), vocabulary(), repeats=1)
    assert list(seconds) == [
        "text, first time",
        "backbone",
        "pixel decoder and transformer",
        "regions: crop and resize",
        "regions: CLIP image tower",
        "label map",
        "all else",
        "total",
    ]
    parts = sum(seconds.values()) - seconds["total"] - seconds["text, first time"]
    assert abs(parts - seconds["total"]) < 1e-9 and min(seconds.values()) > 0
    assert Prediction.labels is labels and "forward" not in vars(model.backbone)


def test_trimming_the_text_tower_changes_nothing_but_the_time():
    compared = compare_text_towers(tiny_model(), ["a photo of a cat."] * 20, repeats=2)
    assert compared.difference < 1e-5
    assert compared.speedup > 1.5


def test_bands_give_the_same_labels_in_less_memory():
    scores = DensePrediction(torch.rand(200, 30, 40), (400, 600))
    compared = compare_label_maps(scores, repeats=1)
    assert compared.difference == 0
    if compared.memory_ratio is not None:
        # Linux adds up a process's pages in batches per core, so its figures lag by some 100 KiB.
        assert compared.plain.peak_bytes > 200 * 400 * 600 * 4 - 2**20
        assert compared.memory_ratio > 1.5


def test_scores_that_do_not_fit_are_compared_slab_by_slab(monkeypatch):
    scores = DensePrediction(torch.rand(40, 30, 40), (101, 64))
    monkeypatch.setattr("ovseg.benchmark.BAND_BYTES", 4 * 40 * 64 * 3)
    monkeypatch.setattr("ovseg.modeling.prediction.BAND_BYTES", 4 * 40 * 64 * 3)
    row = 4 * 40 * 64
    slabs = [(start, slab.clone()) for start, slab in _slabs(scores, 7)]
    assert [start for start, _ in slabs] == list(range(0, 101, 7))
    torch.testing.assert_close(
        torch.cat([slab for _, slab in slabs], dim=1), scores.sem_seg(), rtol=0, atol=0
    )
    compared = compare_label_maps(scores, repeats=1, limit_bytes=7 * row + 5)
    assert (compared.rows, compared.plain_rows, compared.difference) == (101, 7, 0)
    assert compared.record()["speedup"] is None
    if compared.plain.peak_bytes is not None:
        assert "7 of 101 rows at once" in compared.text()
        assert compared.whole_bytes == compared.plain.peak_bytes + 94 * row


def test_a_pixel_labelled_differently_is_counted(monkeypatch):
    scores = DensePrediction(torch.rand(5, 8, 8), (8, 8))
    labels = scores.labels()
    labels[7, 3] = (labels[7, 3] + 1) % 5
    monkeypatch.setattr(DensePrediction, "labels", lambda self: labels)
    assert compare_label_maps(scores, repeats=1, limit_bytes=4 * 5 * 8 * 3).difference == 1


def test_evaluating_one_image_holds_no_map_of_all_scores():
    model = tiny_model(TEST__OUTPUT="labels")
    names = vocabulary(*(f"thing {index}" for index in range(300)))
    inputs = {"image": image(32, 48), "height": 400, "width": 500}
    model([inputs], names)
    cost = measure_evaluation(model, inputs, names)
    assert cost.seconds > 0
    if cost.peak_bytes is not None:
        assert cost.peak_bytes < 300 * 400 * 500 * 4 / 2


def test_the_best_of_the_repeats_counts_and_unknown_memory_stays_unknown():
    calls = []
    cost = measure(lambda: calls.append(torch.ones(10)), device=torch.device("cpu"), repeats=3)
    assert len(calls) == 4 and cost.seconds < 0.1
    assert Comparison(Cost(2.0, None), Cost(0.5, 10), 0.0).memory_ratio is None
    assert Comparison(Cost(2.0, 40), Cost(0.5, 10), 0.0).speedup == 4.0
