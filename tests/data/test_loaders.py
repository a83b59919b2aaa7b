from __future__ import annotations

import logging
from itertools import islice

import pytest
import torch

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.loaders import (
    TestLoader,
    TrainLoader,
    build_test_loader,
    build_train_loader,
    get_records,
    get_training_records,
)
from ovseg.data.mappers import TestMapper, TrainMapper
from ovseg.data.sampling import BatchPlan


def take(loader, count: int):
    return list(islice(loader, count))


def same(left, right) -> bool:
    return [[s["file_name"] for s in b] for b in left] == [
        [s["file_name"] for s in b] for b in right
    ] and all(
        torch.equal(a["image"], b["image"])
        and torch.equal(a["instances"].gt_masks, b["instances"].gt_masks)
        for x, y in zip(left, right, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def truncate(path: str) -> None:
    with open(path, "r+b") as file:
        file.truncate(60)


@pytest.fixture
def broken(toy: str) -> str:
    """File of the toy set that is damaged."""
    file = get_records(toy)[2]["file_name"]
    truncate(file)
    return file


def test_training_batches_are_lists_of_samples_with_their_index(toy_cfg) -> None:
    batches = take(build_train_loader(toy_cfg), 3)
    assert [len(batch) for batch in batches] == [4, 4, 4]
    indices = [s["sample_index"] for batch in batches for s in batch]
    assert len(set(indices)) == 12
    assert max(indices) < 16 * 4  # within the first window of grouped batches
    assert {s["image"].shape for batch in batches for s in batch} == {(3, 16, 16)}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_gives_the_samples_it_would_have_given(toy_cfg, workers: int) -> None:
    whole = take(build_train_loader(toy_cfg), 6)
    toy_cfg.DATALOADER.NUM_WORKERS = workers
    resumed = build_train_loader(toy_cfg, start_iteration=3)
    assert same(whole[3:], take(resumed, 3))
    assert resumed.iteration == 6
    resumed.close()


def test_closing_and_going_on_loses_no_batch(toy_cfg) -> None:
    whole = take(build_train_loader(toy_cfg), 4)
    loader = build_train_loader(toy_cfg)
    first = take(loader, 2)
    loader.close()
    assert same(whole, first + take(loader, 2))


def test_processes_share_the_global_batch_pixel_for_pixel(toy_cfg, toy: str) -> None:
    def batches(rank: int, world_size: int):
        loader = TrainLoader(
            records=get_records(toy),
            mapper=TrainMapper(toy_cfg),
            plan=BatchPlan(num_records=7, batch_size=4, seed=5),
            rank=rank,
            world_size=world_size,
        )
        return take(loader, 3)

    def by_index(batch):
        return [sorted(batch, key=lambda sample: sample["sample_index"])]

    for alone, left, right in zip(batches(0, 1), batches(0, 2), batches(1, 2), strict=True):
        assert same(by_index(alone), by_index(left + right))


def test_loading_leaves_the_global_random_state_alone(toy_cfg) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    take(build_train_loader(toy_cfg), 2)
    assert torch.equal(torch.rand(3), expected)


def test_grouping_batches_pictures_of_one_orientation(toy_cfg, toy: str) -> None:
    toy_cfg.DATALOADER.ASPECT_RATIO_GROUPING = True
    toy_cfg.SOLVER.IMS_PER_BATCH = 2
    batches = take(build_train_loader(toy_cfg), 16)
    mixed = sum(len({s["width"] > s["height"] for s in batch}) == 2 for batch in batches)
    assert mixed <= 1
    plain = toy_cfg.clone()
    plain.DATALOADER.ASPECT_RATIO_GROUPING = False
    batches = take(build_train_loader(plain), 16)
    assert sum(len({s["width"] > s["height"] for s in batch}) == 2 for batch in batches) > 1


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_replaced_and_reported_once(
    toy_cfg, toy: str, broken: str, workers: int, caplog
) -> None:
    toy_cfg.DATALOADER.NUM_WORKERS = workers
    loader = build_train_loader(toy_cfg)
    with caplog.at_level(logging.WARNING, "ovseg"):
        batches = take(loader, 6)  # three passes over the set
    loader.close()
    files = [s["file_name"] for batch in batches for s in batch]
    assert broken not in files
    assert len(files) == 24
    assert list(loader.quarantined) == [broken]
    assert sum("quarantined" in record.message for record in caplog.records) == 1
    toy_cfg.DATALOADER.NUM_WORKERS = 0
    assert same(batches, take(build_train_loader(toy_cfg), 6))


def test_nothing_readable_ends_the_run_with_the_last_reason(toy_cfg, toy: str) -> None:
    for record in get_records(toy):
        truncate(record["file_name"])
    with pytest.raises(OSError, match=r"7 training samples in a row.*\.jpg: "):
        next(build_train_loader(toy_cfg))


def test_a_batch_that_does_not_divide_fails_at_once(toy_cfg, toy: str) -> None:
    with pytest.raises(ValueError, match="IMS_PER_BATCH"):
        TrainLoader(
            records=get_records(toy),
            mapper=TrainMapper(toy_cfg),
            plan=BatchPlan(num_records=7, batch_size=3, seed=0),
            world_size=2,
        )


@pytest.mark.parametrize("workers", [0, 1])
def test_test_loader_goes_through_the_set_in_order(toy_cfg, toy: str, workers: int) -> None:
    toy_cfg.DATALOADER.NUM_WORKERS = workers
    toy_cfg.SOLVER.TEST_IMS_PER_BATCH = 3
    loader = build_test_loader(toy_cfg, toy)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [s["image_id"] for batch in batches for s in batch] == [str(i) for i in range(7)]
    assert all(s["meta"]["dataset_name"] == toy for batch in batches for s in batch)


def test_processes_divide_the_test_set_without_overlap(toy: str) -> None:
    parts = [
        TestLoader(
            records=get_records(toy),
            mapper=TestMapper(short=8, max_size=20),
            rank=rank,
            world_size=3,
        )
        for rank in range(3)
    ]
    seen = [sample["image_id"] for part in parts for batch in part for sample in batch]
    assert seen == [str(i) for i in range(7)]


def test_an_unreadable_test_image_is_left_out_and_counted(toy_cfg, toy, broken, caplog) -> None:
    loader = build_test_loader(toy_cfg, toy)
    held = loader.skipped
    with caplog.at_level(logging.ERROR, "ovseg"):
        batches = list(loader)
    assert [s["image_id"] for batch in batches for s in batch] == ["0", "1", "3", "4", "5", "6"]
    assert len(loader) == 7
    assert [file for file, _ in held] == [broken]
    assert "1 images could not be read" in caplog.text
    list(loader)
    assert len(held) == 1


def test_several_training_sets_take_the_name_of_the_first(toy: str) -> None:
    DatasetCatalog.register("toy_twin", lambda: DatasetCatalog.get(toy)[:2])
    MetadataCatalog.get("toy_twin").set(stuff_classes=["top", "bottom"], ignore_label=255)
    DatasetCatalog.register("toy_other", lambda: DatasetCatalog.get(toy))
    MetadataCatalog.get("toy_other").set(stuff_classes=["sky"], ignore_label=255)
    try:
        records = get_training_records([toy, "toy_twin"])
        assert len(records) == 9
        assert {record["meta"]["dataset_name"] for record in records} == {toy}
        with pytest.raises(ValueError, match=r"same stuff_classes.*toy_other"):
            get_training_records([toy, "toy_other"])
    finally:
        for name in ("toy_twin", "toy_other"):
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)


def test_no_training_set_names_the_config_key() -> None:
    with pytest.raises(ValueError, match=r"DATASETS\.TRAIN"):
        get_training_records([])


def test_another_sampler_is_refused(toy_cfg) -> None:
    toy_cfg.DATALOADER.SAMPLER_TRAIN = "RepeatFactorTrainingSampler"
    with pytest.raises(ValueError, match=r"SAMPLER_TRAIN.*RepeatFactor"):
        build_train_loader(toy_cfg)
