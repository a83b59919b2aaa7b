from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch

from ovseg.benchmark import (
    Comparison,
    Cost,
    LabelMaps,
    compare_label_maps,
    compare_text_towers,
    draw_words,
    measure,
    measure_evaluation,
    measure_words,
    stages,
)
from ovseg.benchmark.labels import _slabs
from ovseg.modeling.prediction import DensePrediction, MaskPrediction, Prediction
from ovseg.predictor import Predictor
from tests.modeling.tiny import image, tiny_cfg, tiny_model, vocabulary


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
    model, lengths = tiny_model(), []
    model.clip_adapter.clip_model.transformer.resblocks[0].ln_1.register_forward_pre_hook(
        lambda _, inputs: lengths.append(inputs[0].shape[1])
    )
    compared = compare_text_towers(model, ["a photo of a cat."] * 20, repeats=2)
    assert compared.difference < 1e-5
    assert lengths == [77, 8, 77, 77, 8, 8]  # once each to compare, then timed


def watch_bands(monkeypatch, kind: type[Prediction]) -> list[int]:
    """Notes the bytes of each band of scores that predictions of a kind give from now on."""
    held: list[int] = []
    bands = kind.bands

    def noted(self, height):
        for rows, scores in bands(self, height):
            held.append(scores.numel() * scores.element_size())
            yield rows, scores

    monkeypatch.setattr(kind, "bands", noted)
    return held


def test_bands_give_the_same_labels_as_all_scores_at_once(monkeypatch):
    scores = DensePrediction(torch.rand(20, 30, 40), (400, 600))
    monkeypatch.setattr("ovseg.benchmark.labels.BAND_BYTES", 2**20)
    monkeypatch.setattr("ovseg.modeling.prediction.BAND_BYTES", 2**20)
    held = watch_bands(monkeypatch, DensePrediction)
    compared = compare_label_maps(scores, repeats=1)
    assert (compared.difference, compared.rows, compared.plain_rows) == (0, 400, 400)
    assert compared.bytes_per_row == 20 * 600 * 4
    assert max(held) <= 2**20 and sum(held) == 4 * 400 * compared.bytes_per_row


def test_memory_of_rows_that_were_not_held_is_added_up():
    costs = Cost(1.0, 1000), Cost(2.0, 10)
    assert LabelMaps(*costs, 0.0, rows=10, plain_rows=4, bytes_per_row=30).whole_bytes == 1180
    assert LabelMaps(*costs, 0.0, rows=4, plain_rows=4, bytes_per_row=30).whole_bytes == 1000


def test_scores_that_do_not_fit_are_compared_slab_by_slab(monkeypatch):
    scores = DensePrediction(torch.rand(40, 30, 40), (101, 64))
    monkeypatch.setattr("ovseg.benchmark.labels.BAND_BYTES", 4 * 40 * 64 * 3)
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


def test_evaluating_one_image_makes_no_map_of_all_scores(monkeypatch):
    model = tiny_model(TEST__OUTPUT="labels")
    names = vocabulary(*(f"thing {index}" for index in range(300)))
    inputs = {"image": image(32, 48), "height": 100, "width": 120}
    monkeypatch.setattr("ovseg.modeling.prediction.BAND_BYTES", 2**20)
    held = watch_bands(monkeypatch, MaskPrediction)
    everything = "ovseg.modeling.prediction.contenders"
    monkeypatch.setattr(everything, lambda scores: torch.arange(scores.shape[1]))
    truths = []
    monkeypatch.setattr(
        "ovseg.benchmark.stage_times.confusion_matrix",
        lambda labels, *_: truths.append(labels.shape),
    )
    measure_evaluation(model, inputs, names)
    assert truths == [(100, 120)]
    assert max(held) <= 2**20 and sum(held) >= 300 * 100 * 120 * 4


def test_the_best_of_the_repeats_counts_and_the_first_run_does_not(monkeypatch):
    readings = iter([10.0, 13.0, 20.0, 22.0, 30.0, 35.0])
    monkeypatch.setattr(
        "ovseg.benchmark.cost.time", SimpleNamespace(perf_counter=readings.__next__)
    )
    monkeypatch.setattr("ovseg.benchmark.cost.held_bytes", lambda device: 100)
    monkeypatch.setattr("ovseg.benchmark.cost.peak_bytes", lambda device: 140)
    calls = []
    cost = measure(lambda: calls.append(1), device=torch.device("cpu"), repeats=3)
    assert (len(calls), cost) == (4, Cost(2.0, 40))
    monkeypatch.setattr("ovseg.benchmark.cost.peak_bytes", lambda device: None)
    readings = iter([0.0, 1.0])
    monkeypatch.setattr(
        "ovseg.benchmark.cost.time", SimpleNamespace(perf_counter=readings.__next__)
    )
    assert measure(lambda: None, device=torch.device("cpu"), repeats=1) == Cost(1.0, None)


def test_ratios_are_those_of_the_costs_and_unknown_memory_stays_unknown():
    assert Comparison(Cost(2.0, None), Cost(0.5, 10), 0.0).memory_ratio is None
    assert Comparison(Cost(2.0, 40), Cost(0.5, 10), 0.0).memory_ratio == 4.0
    assert Comparison(Cost(2.0, 40), Cost(0.5, 10), 0.0).speedup == 4.0


def test_words_are_drawn_ten_at_a_time_and_come_round_when_all_were_drawn():
    names = [str(number) for number in range(25)]
    first, second, third = draw_words(names, 3)
    assert len(first) == len(second) == len(third) == 10 and not {*first} & {*second}
    assert {*first, *second, *third} == {*names} and first[:5] == third[5:]
    assert draw_words(["a", "b"], 2) == 2 * [draw_words(["a", "b"], 1)[0]]


def test_words_are_asked_of_one_encoding_each_twice():
    model, asked = tiny_model(), []
    predictor = Predictor.from_config(tiny_cfg(INPUT__MIN_SIZE_TEST=64), model)
    encode, decode = model.encode, model.decode
    model.encode = lambda inputs: asked.append("encode") or encode(inputs)
    model.decode = lambda encoding, words: asked.append(words.names) or decode(encoding, words)
    words = [vocabulary("a", "b"), vocabulary("c", "d"), vocabulary("e", "f")]
    found = measure_words(predictor, np.zeros((40, 60, 3), np.uint8), words)
    assert asked == ["encode", *2 * [each.names for each in words]]
    assert len(found.answers) == len(found.repeated) == 3
    assert found.first == found.encode + found.answers[0]
    assert found.further == sum(found.answers[1:]) / 2
    assert "each further one, new words" in found.text()
