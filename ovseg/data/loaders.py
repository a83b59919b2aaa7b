"""Loaders of training batches and test images.

Both hand out lists of dicts (see `mappers`). A picture that cannot be read does not end a run:
in training it is quarantined and another sample takes its place, in evaluation it is left out and
counted; either way the loader keeps its name and the reason.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ovseg.d2.config import CfgNode
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.utils import comm
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.mappers import TestMapper, build_train_mapper
from ovseg.data.sampling import BatchPlan, SampleKey, sample_generator
from ovseg.readers.pictures import ImageError, image_size

__all__ = ["TestLoader", "TrainLoader", "build_test_loader", "build_train_loader", "get_records"]

_MAX_REPLACEMENTS = 100
_QUARANTINED = "_quarantined"

_logger = logging.getLogger(__name__)

Record = dict[str, Any]


def build_train_loader(cfg: CfgNode, *, start_iteration: int = 0) -> TrainLoader:
    """Build the endless loader of training batches.

    Args:
        cfg: DATASETS.TRAIN, SOLVER.IMS_PER_BATCH (over all processes), SEED, DATALOADER, INPUT.
            With a negative SEED one is drawn, and a resumed run sees other samples.
        start_iteration: iteration whose batch comes first.

    Returns:
        Iterator over this process's part of each batch.

    Raises:
        ValueError: the datasets do not fit together, or the batch does not divide evenly.
    """
    _require_sampler(cfg.DATALOADER.SAMPLER_TRAIN)
    mapper = build_train_mapper(cfg)
    own = getattr(mapper, "records", None)
    records = get_training_records(cfg.DATASETS.TRAIN) if own is None else own
    seed = cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()
    plan = BatchPlan(
        num_records=len(records),
        batch_size=cfg.SOLVER.IMS_PER_BATCH,
        seed=seed,
        is_wide=_Orientation(records) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None,
    )
    return TrainLoader(
        records=records,
        mapper=mapper,
        plan=plan,
        start_iteration=start_iteration,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
    )


def build_test_loader(cfg: CfgNode, dataset_name: str, *, done: Collection[str] = ()) -> TestLoader:
    """Build the loader of one test set.

    Args:
        cfg: SOLVER.TEST_IMS_PER_BATCH (per process), DATALOADER.NUM_WORKERS, INPUT.
        dataset_name: a registered dataset.
        done: names of pictures that are evaluated already.

    Returns:
        Loader of this process's part of the set.
    """
    return TestLoader(
        records=get_records(dataset_name),
        mapper=TestMapper(cfg),
        batch_size=cfg.SOLVER.TEST_IMS_PER_BATCH,
        rank=comm.get_rank(),
        world_size=comm.get_world_size(),
        num_workers=cfg.DATALOADER.NUM_WORKERS,
        done=done,
    )


def get_records(dataset_name: str) -> list[Record]:
    """List the records of a dataset, each with the dataset's name in its `meta`.

    Args:
        dataset_name: a registered dataset, of this package or of Detectron2, or the path of a
            YAML file that describes one (see `ovseg.data.dataset_yaml`).

    Returns:
        Copies of the records.

    Raises:
        KeyError: no such dataset.
        ValueError: the dataset is empty.
    """
    dataset_name = resolve_dataset(dataset_name)
    records = DatasetCatalog.get(dataset_name)
    if not records:
        raise ValueError(f"expected dataset {dataset_name!r} to have images, it has none")
    meta = {"dataset_name": dataset_name}
    return [{**record, "meta": {**record.get("meta", {}), **meta}} for record in records]


def get_training_records(names: Sequence[str]) -> list[Record]:
    """List the records of one or more training sets with the same classes.

    Args:
        names: registered datasets. All records carry the first one's name, since a model takes
            only batches of a single vocabulary.

    Returns:
        The records, set after set.

    Raises:
        ValueError: no dataset given, or class lists or ignore labels that differ.
    """
    if not names:
        raise ValueError("expected at least one training set, got none; set DATASETS.TRAIN")
    names = [resolve_dataset(name) for name in names]
    records: list[Record] = []
    first = MetadataCatalog.get(names[0])
    for name in names:
        records += get_records(name)
        metadata = MetadataCatalog.get(name)
        for key in ("stuff_classes", "ignore_label"):
            if metadata.get(key) != first.get(key):
                raise ValueError(
                    f"expected training sets with the same {key}, got different ones for "
                    f"{names[0]!r} and {name!r}; train on one of them"
                )
    for record in records:
        record["meta"]["dataset_name"] = names[0]
    return records


class TrainLoader(Iterator[list[Record]]):
    """Endless iterator over one process's part of the training batches.

    Each sample carries its global index as `sample_index`. The next batch depends on the plan and
    the iteration only, not on the number of workers or processes.

    Args:
        records: dataset records.
        mapper: record and random generator -> sample.
        plan: the batches.
        start_iteration: iteration whose batch comes first.
        rank, world_size: this process's number and the number of processes.
        num_workers: worker processes that prepare samples; 0 prepares them in this one.

    Attributes:
        iteration: iteration of the next batch.
        quarantined: files left out so far -> reason.
    """

    def __init__(
        self,
        *,
        records: Sequence[Record],
        mapper: Callable[[Mapping[str, Any], np.random.Generator], Record],
        plan: BatchPlan,
        start_iteration: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
    ) -> None:
        self.iteration = start_iteration
        self.quarantined: dict[str, str] = {}
        next(plan.share(0, rank=rank, world_size=world_size))  # fail here, not in the first step
        self._batches = _make_loader(
            _TrainSamples(records, mapper, plan.seed),
            _Batches(lambda: plan.share(self.iteration, rank=rank, world_size=world_size)),
            num_workers,
            plan.seed,
        )
        self._iterator: Iterator[list[Record]] | None = None

    def __next__(self) -> list[Record]:
        """Return the next batch."""
        if self._iterator is None:
            self._iterator = iter(self._batches)
        batch = next(self._iterator)
        for sample in batch:
            for file, reason in sample.pop(_QUARANTINED):
                if file not in self.quarantined:
                    self.quarantined[file] = reason
                    _logger.warning(
                        "quarantined %s, another sample takes its place (%d quarantined so far)",
                        reason,
                        len(self.quarantined),
                    )
        self.iteration += 1
        return batch

    def close(self) -> None:
        """Stop the workers; another `next` starts them again at `iteration`."""
        self._iterator = None


class TestLoader:
    """One pass over one process's part of a test set, in order.

    Args:
        records: records of the whole set.
        mapper: record -> model input.
        batch_size: images per batch and process.
        rank, world_size: this process's number and the number of processes; each takes a
            contiguous part.
        num_workers: worker processes that prepare images; 0 prepares them in this one.
        done: names of pictures to leave out. Batches are formed before, and one with any other
            picture stays whole: padding makes a picture's result depend on its neighbours.

    Attributes:
        skipped: (file, reason) of the images of the last pass that could not be read. The list
            object stays the same, so an evaluator can hold on to it.
    """

    __test__ = False  # not a test class, whatever its name

    def __init__(
        self,
        *,
        records: Sequence[Record],
        mapper: Callable[[Mapping[str, Any]], Record],
        batch_size: int = 1,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        done: Collection[str] = (),
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                f"expected a test batch size of at least 1, got {batch_size}; "
                "set SOLVER.TEST_IMS_PER_BATCH"
            )
        positions = range(len(records))
        chunks = [list(positions[i : i + batch_size]) for i in positions[::batch_size]]
        left = [c for c in chunks if any(str(records[i]["file_name"]) not in done for i in c)]
        first, end = (len(left) * r // world_size for r in (rank, rank + 1))
        self.skipped: list[tuple[str, str]] = []
        self._chunks = left[first:end]
        self._batches = _make_loader(
            _TestSamples(records, mapper), _Batches(lambda: iter(self._chunks)), num_workers, 0
        )

    def __len__(self) -> int:
        """Return the number of batches, unreadable images included."""
        return len(self._chunks)

    def __iter__(self) -> Iterator[list[Record]]:
        """Yield batches; unreadable images are missing from them, and empty batches from all."""
        self.skipped.clear()
        for batch in self._batches:
            for item in batch:
                if isinstance(item, _Unreadable):
                    self.skipped.append((item.file, item.reason))
                    _logger.error("cannot evaluate %s", item.reason)
            readable = [item for item in batch if not isinstance(item, _Unreadable)]
            if readable:
                yield readable
        if self.skipped:
            _logger.error(
                "%d images could not be read and are not in the results: %s",
                len(self.skipped),
                ", ".join(file for file, _ in self.skipped),
            )


class _Unreadable:
    def __init__(self, file: str, reason: str) -> None:
        self.file = file
        self.reason = reason


class _TrainSamples(Dataset[Record]):
    def __init__(
        self,
        records: Sequence[Record],
        mapper: Callable[[Mapping[str, Any], np.random.Generator], Record],
        seed: int,
    ) -> None:
        self.records = records
        self.mapper = mapper
        self.seed = seed

    def __getitem__(self, key: SampleKey) -> Record:
        quarantined = []
        for step in range(min(_MAX_REPLACEMENTS, len(self.records))):
            record = self.records[(key.record + step) % len(self.records)]
            try:
                sample = self.mapper(record, sample_generator(self.seed, key.position))
            except ImageError as error:
                quarantined.append((record["file_name"], str(error)))
                continue
            return {**sample, "sample_index": key.position, _QUARANTINED: quarantined}
        raise ImageError(
            f"{len(quarantined)} training samples in a row cannot be read, the last: "
            f"{quarantined[-1][1]}; check that the data folder is complete"
        )


class _TestSamples(Dataset[Any]):
    def __init__(
        self, records: Sequence[Record], mapper: Callable[[Mapping[str, Any]], Record]
    ) -> None:
        self.records = records
        self.mapper = mapper

    def __getitem__(self, index: int) -> Record | _Unreadable:
        record = self.records[index]
        try:
            return self.mapper(record)
        except ImageError as error:
            return _Unreadable(record["file_name"], str(error))


class _Batches:
    """A batch sampler that can be iterated over more than once."""

    def __init__(self, make: Callable[[], Iterator[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        return self._make()


class _Orientation:
    """Whether a record's picture is wider than tall, from the record or the file's header."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records
        self._known: dict[int, bool] = {}

    def __call__(self, index: int) -> bool:
        if index not in self._known:
            self._known[index] = self._look_up(self._records[index])
        return self._known[index]

    @staticmethod
    def _look_up(record: Record) -> bool:
        if "width" in record and "height" in record:
            return bool(record["width"] > record["height"])
        try:
            height, width = image_size(record["file_name"])
        except ImageError:
            return True  # it will be quarantined when it is read
        return width > height


def _make_loader(
    dataset: Dataset[Any], batches: _Batches, num_workers: int, seed: int
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=_as_list,
        worker_init_fn=_start_worker,
        # The loader draws a base seed; from its own generator, or it would change the model's.
        generator=torch.Generator().manual_seed(seed),
    )


def _as_list(samples: list[Any]) -> list[Any]:
    return samples


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that they work for


def _require_sampler(name: str) -> None:
    if name != "TrainingSampler":
        raise ValueError(f"expected DATALOADER.SAMPLER_TRAIN to be 'TrainingSampler', got {name!r}")
