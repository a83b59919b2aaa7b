from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovseg.config import get_default_cfg, load_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.modeling import build_model
from ovseg.data.catalog import register_builtin, register_sem_seg

SIZES = [(20, 30), (30, 20), (24, 24), (18, 40), (40, 18), (22, 33), (31, 21)]


def write_toy_set(folder) -> None:
    """Seven pictures of one colour each, wide and tall, with labels 0, 1 and ignored rows."""
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for index, (height, width) in enumerate(SIZES):
        image = np.full((height, width, 3), 10 * index, np.uint8)
        labels = np.zeros((height, width), np.uint8)
        labels[height // 2 :] = 1
        labels[-2:] = 255
        Image.fromarray(image).save(folder / "images" / f"{index}.jpg", quality=95)
        Image.fromarray(labels).save(folder / "labels" / f"{index}.png")


@pytest.fixture
def toy(tmp_path) -> Iterator[str]:
    """Name of a registered dataset; its files lie in tmp_path / "toy"."""
    name = f"toy_{tmp_path.name}"
    write_toy_set(tmp_path / "toy")
    register_sem_seg(
        name,
        images=tmp_path / "toy" / "images",
        labels=tmp_path / "toy" / "labels",
        stuff_classes=["top", "bottom"],
    )
    yield name
    DatasetCatalog.remove(name)
    MetadataCatalog.remove(name)


@pytest.fixture
def toy_cfg(toy: str):
    cfg = get_default_cfg()
    cfg.DATASETS.TRAIN = (toy,)
    cfg.DATASETS.TEST = (toy,)
    cfg.SEED = 5
    cfg.SOLVER.IMS_PER_BATCH = 4
    cfg.DATALOADER.NUM_WORKERS = 0
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 255
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.COLOR_AUG_SSD = True
    cfg.INPUT.MIN_SIZE_TRAIN = (16, 24)
    cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING = "choice"
    cfg.INPUT.MAX_SIZE_TRAIN = 64
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE = "absolute"
    cfg.INPUT.CROP.SIZE = [16, 16]
    cfg.INPUT.SIZE_DIVISIBILITY = 16
    cfg.INPUT.MIN_SIZE_TEST = 10
    cfg.INPUT.MAX_SIZE_TEST = 100
    return cfg


@pytest.fixture
def evaluate_tiny(tmp_path, monkeypatch) -> Iterator[Callable[..., Mapping[str, Any]]]:
    """Evaluate the bundled model on datasets of a root by their names in the catalogue.

    Predictions lie in `tmp_path / "output" / "inference" / name`.
    """
    from ovseg.data.dataset_yaml import resolve_dataset
    from ovseg.evaluation import SemSegEvaluator
    from ovseg.evaluation.evaluate import evaluate
    from ovseg.training.weights import load_for_evaluation

    def evaluator(_: object, name: str, folder: Path) -> SemSegEvaluator:
        return SemSegEvaluator(name, output_dir=folder, write_predictions=True)

    datasets, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)

    def run(root: Path, *names: str) -> Mapping[str, Any]:
        monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
        register_builtin(root)
        cfg = load_cfg(
            "ovseg_tiny",
            [
                *("MODEL.DEVICE", "cpu", "DATASETS.TEST", str(names), "DATALOADER.NUM_WORKERS", 0),
                *("MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", "predefined"),
                *("INPUT.MIN_SIZE_TEST", 64, "INPUT.MAX_SIZE_TEST", 128),
                *("OUTPUT_DIR", str(tmp_path / "output")),
            ],
        )
        model = build_model(cfg)
        weights = load_for_evaluation(model, cfg.MODEL.WEIGHTS)
        results = evaluate(cfg, model, weights=weights, make_evaluator=evaluator)
        return {name: results[resolve_dataset(name)]["sem_seg"] for name in names}

    yield run
    for catalogue, before in ((DatasetCatalog, datasets), (MetadataCatalog, metadata)):
        catalogue.data.clear()
        catalogue.data.update(before)
