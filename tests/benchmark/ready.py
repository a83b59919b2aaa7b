"""Ways of the tiny model, and something to ask them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.benchmark.rounds import Subject
from ovseg.benchmark.ways import EXACT, REFERENCE, ReadyWay, Way
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.predictor import Predictor
from tests.modeling.tiny import tiny_cfg, tiny_model, vocabulary


def ready_ways(*ways: Way) -> Sequence[ReadyWay]:
    cfg, model = tiny_cfg(INPUT__MIN_SIZE_TEST=64), tiny_model()
    predictor = Predictor.from_config(cfg, model)
    return [ReadyWay(way, cfg, model, predictor) for way in ways or (REFERENCE, EXACT)]


def subject() -> Subject:
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    return Subject(picture, vocabulary(), vocabulary("dog", "tree"))


def register_halves(folder: Path) -> str:
    """Three pictures; the upper half is class 0, the lower class 1, the last row is ignored."""
    records = []
    labels = np.zeros((40, 50), np.uint8)
    labels[20:] = 1
    labels[-1] = 255
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)
        files = [str(folder / f"{kind}{number}.png") for kind in ("picture", "labels")]
        Image.fromarray(picture).save(files[0])
        Image.fromarray(labels).save(files[1])
        records.append(dict(zip(("file_name", "sem_seg_file_name"), files, strict=True)))
    DatasetCatalog.register("halves", lambda: records)
    MetadataCatalog.get("halves").set(stuff_classes=["cat", "sky"], ignore_label=255)
    return "halves"


def remove_halves() -> None:
    DatasetCatalog.remove("halves")
    MetadataCatalog.remove("halves")
