from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg.data.loaders import build_train_loader, get_records
from ovseg.data.mappers import (
    TRAIN_MAPPER_REGISTRY,
    TestMapper,
    TrainMapper,
    build_train_mapper,
    semantic_instances,
)
from ovseg.data.transforms import TrainTransform
from ovseg.readers.pictures import ImageError


def test_one_mask_per_class_in_ascending_order_without_the_ignored() -> None:
    labels = np.array([[7, 2, 255], [2, 2, 7]], np.int32)
    instances = semantic_instances(labels, 255)
    assert instances.image_size == (2, 3)
    assert instances.gt_classes.tolist() == [2, 7]
    assert instances.gt_classes.dtype == torch.int64
    assert instances.gt_masks.dtype == torch.bool
    assert instances.gt_masks[0].tolist() == [[False, True, False], [True, True, False]]
    assert instances.gt_masks[1].tolist() == [[True, False, False], [False, False, True]]


def test_all_ignored_gives_no_instances_but_keeps_the_mask_size() -> None:
    instances = semantic_instances(np.full((3, 5), 255, np.int32), 255)
    assert len(instances) == 0
    assert instances.gt_masks.shape == (0, 3, 5)


def test_training_sample_from_config(toy_cfg, toy: str) -> None:
    record = get_records(toy)[0]
    before = dict(record)
    sample = TrainMapper(toy_cfg)(record, np.random.default_rng(0))
    assert record == before
    assert sample["image"].shape == (3, 16, 16)
    assert sample["image"].dtype == torch.uint8
    assert (sample["height"], sample["width"]) == (20, 30)
    assert sample["instances"].gt_masks.shape[1:] == (16, 16)
    assert set(sample["instances"].gt_classes.tolist()) <= {0, 1}
    assert sample["meta"] == {"dataset_name": toy}


def test_the_generator_alone_decides(toy_cfg, toy: str) -> None:
    mapper, record = TrainMapper(toy_cfg), get_records(toy)[3]
    images = [mapper(record, np.random.default_rng(seed))["image"] for seed in (1, 1, 2)]
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_the_ignore_label_is_the_datasets(toy_cfg, toy: str) -> None:
    toy_cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 99
    assert TrainMapper(toy_cfg).ignore_label == 255


def test_test_input_keeps_labels_unread_and_states_the_files_size(toy_cfg, toy: str) -> None:
    record = {**get_records(toy)[1], "sem_seg_file_name": "nowhere.png"}
    sample = TestMapper(toy_cfg)(record)
    assert sample["image"].shape == (3, 15, 10)  # 30 x 20 with the shorter edge at 10
    assert (sample["height"], sample["width"]) == (30, 20)
    assert sample["sem_seg_file_name"] == "nowhere.png"
    assert "instances" not in sample


def test_labels_of_another_size_are_an_image_error(tmp_path, toy: str) -> None:
    record = get_records(toy)[0]
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(record["sem_seg_file_name"])
    mapper = TrainMapper(
        transform=TrainTransform(short_edges=(8,), max_size=20), ignore_label=255, num_classes=2
    )
    with pytest.raises(ImageError, match=r"0\.png: .*\(20, 30\), got \(5, 5\)"):
        mapper(record)


def test_labels_beyond_the_classes_are_not_taken_for_a_bad_file(toy: str) -> None:
    mapper = TrainMapper(
        transform=TrainTransform(short_edges=(8,), max_size=20), ignore_label=255, num_classes=1
    )
    with pytest.raises(ValueError, match=r"0\.\.0 or 255 \(ignored\), .*got \[1\]"):
        mapper(get_records(toy)[0])


def test_a_record_of_another_size_is_an_error(toy: str) -> None:
    record = {**get_records(toy)[0], "height": 21, "width": 30}
    with pytest.raises(ImageError, match=r"expected \(21, 30\).*got \(20, 30\)"):
        TestMapper(short=0, max_size=100)(record)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("INPUT.FORMAT", "BGR"),
        ("INPUT.RANDOM_FLIP", "vertical"),
        ("INPUT.CROP.TYPE", "relative_range"),
    ],
)
def test_unsupported_settings_are_named(toy_cfg, key: str, value: str) -> None:
    toy_cfg.merge_from_list([key, value])
    with pytest.raises(ValueError, match=rf"{key}.*{value}"):
        TrainMapper(toy_cfg)


def test_upstreams_name_of_the_mapper_gives_the_same_samples(toy_cfg, toy: str) -> None:
    assert toy_cfg.INPUT.DATASET_MAPPER_NAME == "mask_former_semantic"
    record = get_records(toy)[0]
    named, direct = (
        mapper(record, np.random.default_rng(0))
        for mapper in (build_train_mapper(toy_cfg), TrainMapper(toy_cfg))
    )
    assert torch.equal(named["image"], direct["image"])
    assert torch.equal(named["instances"].gt_masks, direct["instances"].gt_masks)


def test_an_unknown_mapper_is_refused_with_the_choices(toy_cfg) -> None:
    toy_cfg.INPUT.DATASET_MAPPER_NAME = "panoptic"
    with pytest.raises(ValueError, match=r"one of \['mask_former_semantic'.*\], got 'panoptic'"):
        build_train_mapper(toy_cfg)


def test_the_loader_takes_a_mapper_that_a_method_registered(toy_cfg, toy: str, monkeypatch) -> None:
    monkeypatch.setattr(TRAIN_MAPPER_REGISTRY, "_obj_map", dict(TRAIN_MAPPER_REGISTRY))

    @TRAIN_MAPPER_REGISTRY.register()
    def width_only(cfg):
        return lambda record, rng: {"width": cfg.INPUT.MAX_SIZE_TRAIN, "name": record["file_name"]}

    toy_cfg.INPUT.DATASET_MAPPER_NAME = "width_only"
    batch = next(build_train_loader(toy_cfg))

    assert {sample["width"] for sample in batch} == {toy_cfg.INPUT.MAX_SIZE_TRAIN}
    assert "image" not in batch[0]
