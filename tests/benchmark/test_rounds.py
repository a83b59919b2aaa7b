from __future__ import annotations

import torch

from ovseg.benchmark import rounds
from ovseg.benchmark.cost import Cost
from ovseg.benchmark.rounds import count_operations, matmul_peak, measure_round, measure_ways
from tests.benchmark.ready import ready_ways, subject


def test_ways_take_turns_and_what_is_known_is_reported_after_each_round(monkeypatch):
    order, reported = [], []

    def measured(ready, _):
        order.append(ready.way.title)
        return measure_round(ready, subject())

    monkeypatch.setattr(rounds, "measure_round", measured)
    monkeypatch.setattr(rounds, "matmul_peak", lambda *_: float(len(order)))

    def report(found):
        reported.append([len(way["rounds"]) for way in found["ways"].values()])
        assert found["matmul"] == {"float32": len(order), "bfloat16": 0}
        assert [way["agreement"] for way in found["ways"].values()] == [1.0, 1.0]

    measure_ways(ready_ways(), subject(), repeats=2, report=report)
    assert order == 2 * ["reference", "exact"] and reported == [[1, 1], [2, 2]]


def test_a_round_begins_without_texts_and_its_stages_add_up():
    [_, exact] = ready_ways()
    asked = []
    encode = exact.model.clip_adapter.text_bank._encode
    exact.model.clip_adapter.text_bank._encode = lambda texts: asked.append(texts) or encode(texts)
    record, labels = measure_round(exact, subject())
    again, _ = measure_round(exact, subject())
    assert [len(texts) for texts in asked] == [3, 2, 3, 2]  # the vocabulary, then the new words
    assert labels.shape == (48, 64)
    assert abs(sum(record["stages"].values()) - record["seconds"]["picture"]) < 1e-9
    assert record["stages"].keys() == again["stages"].keys()
    width = exact.model.clip_adapter.clip_model.embed_dim
    assert record["kept_bytes"] == {"memory": 3 * 4 * width, "disk": 0}
    assert record["seconds"]["disk"] == record["seconds"]["texts"]  # a small CLIP keeps nothing


def test_texts_that_a_large_clip_keeps_on_disk_are_read_from_there(monkeypatch):
    monkeypatch.setattr("ovseg.clip.texts._LEAST_WEIGHTS", 1)
    reference, exact = ready_ways()
    record, _ = measure_round(exact, subject())
    assert record["kept_bytes"]["disk"] > record["kept_bytes"]["memory"]
    assert record["seconds"]["disk"] != record["seconds"]["texts"]
    assert measure_round(reference, subject())[0]["kept_bytes"]["disk"] == 0


def test_operations_of_the_reference_are_counted_whole():
    reference, exact = (count_operations(ready, subject()) for ready in ready_ways())
    clip = ready_ways()[0].model.clip_adapter.clip_model
    width, layers = clip.transformer.width, clip.transformer.layers
    # Four products of the attention and two of an MLP four times as wide, for 3 x 77 tokens, and
    # what the tokens have to do with each other.
    tokens = 2 * 3 * 77 * layers * (12 * width**2 + 2 * 77 * width)
    assert abs(reference["texts"] - tokens) < 0.02 * tokens
    assert exact["texts"] < reference["texts"] / 3
    tower = "regions: CLIP image tower"
    assert exact["stages"][tower] < reference["stages"][tower]
    assert exact["stages"]["backbone"] == reference["stages"]["backbone"] > 0
    assert sum(exact["stages"].values()) == exact["picture"]
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_peak_is_that_of_a_product(monkeypatch):
    shapes = []
    monkeypatch.setattr(
        rounds,
        "measure",
        lambda run, *, device: shapes.append(run().shape) or Cost(0.5, None),
    )
    assert matmul_peak(torch.device("cpu"), "bfloat16") == 2 * 512**3 / 0.5
    assert shapes == [(512, 512)]
