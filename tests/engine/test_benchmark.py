from __future__ import annotations

import torch

from ovseg.engine.benchmark import (
    Comparison,
    Cost,
    compare_label_maps,
    compare_text_towers,
    measure,
    stages,
)
from ovseg.modeling.postprocess import DensePrediction, Prediction
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


def test_the_best_of_the_repeats_counts_and_unknown_memory_stays_unknown():
    calls = []
    cost = measure(lambda: calls.append(torch.ones(10)), device=torch.device("cpu"), repeats=3)
    assert len(calls) == 4 and cost.seconds < 0.1
    assert Comparison(Cost(2.0, None), Cost(0.5, 10), 0.0).memory_ratio is None
    assert Comparison(Cost(2.0, 40), Cost(0.5, 10), 0.0).speedup == 4.0
