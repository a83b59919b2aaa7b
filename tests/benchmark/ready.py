"""Ways of the tiny model, and something to ask them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ovseg.benchmark.rounds import Subject
from ovseg.benchmark.ways import EXACT, REFERENCE, ReadyWay, Way
from ovseg.predictor import Predictor
from tests.modeling.tiny import tiny_cfg, tiny_model, vocabulary


def ready_ways(*ways: Way) -> Sequence[ReadyWay]:
    cfg, model = tiny_cfg(INPUT__MIN_SIZE_TEST=64), tiny_model()
    predictor = Predictor.from_config(cfg, model)
    return [ReadyWay(way, cfg, model, predictor) for way in ways or (REFERENCE, EXACT)]


def subject() -> Subject:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return Subject(picture, vocabulary(), vocabulary("dog", "tree"))
