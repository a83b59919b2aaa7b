from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ovseg.config import get_default_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.evaluation import inference_on_dataset
from ovseg.data.catalog import register_builtin
from ovseg.data.loaders import build_test_loader, get_records
from ovseg.data.mappers import TrainMapper
from ovseg.data.transforms import TrainTransform
from ovseg.evaluation import SemSegEvaluator
from ovseg.readers.pictures import read_label
from ovseg.tinyscapes import SEEN_NAMES, write_split


@pytest.fixture
def root(tmp_path):
    datasets, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    for split in ("train", "val"):
        write_split(tmp_path, split, 4, workers=0)
    register_builtin(tmp_path)
    yield tmp_path
    for catalogue, before in ((DatasetCatalog, datasets), (MetadataCatalog, metadata)):
        catalogue.data.clear()
        catalogue.data.update(before)


def test_the_truth_scores_one_hundred(root) -> None:
    cfg = get_default_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.DATALOADER.NUM_WORKERS = 0

    def oracle(inputs):
        labels = [read_label(x["sem_seg_file_name"]) for x in inputs]
        return [{"labels": torch.from_numpy(np.where(a == 255, 0, a))} for a in labels]

    result = inference_on_dataset(
        oracle,
        build_test_loader(cfg, "tinyscapes_val_sem_seg"),
        SemSegEvaluator("tinyscapes_val_sem_seg"),
    )["sem_seg"]
    for key in ("mIoU", "mIoU-gt", "pACC", "mIoU-seen", "mIoU-seen_things", "mIoU-seen_stuff"):
        assert result[key] == pytest.approx(100.0), key
    assert all(math.isnan(v) or v == pytest.approx(100.0) for v in result.values())


def test_training_labels_are_ids_of_the_seen_classes(root) -> None:
    mapper = TrainMapper(
        transform=TrainTransform(short_edges=(64,), max_size=200),
        ignore_label=255,
        num_classes=len(SEEN_NAMES),
    )
    for record in get_records("tinyscapes_train_sem_seg"):
        instances = mapper(record, np.random.default_rng(0))["instances"]
        assert len(instances) > 0
        assert int(instances.gt_classes.max()) < len(SEEN_NAMES)
