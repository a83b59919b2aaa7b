"""How right each way is on a data set, and how often it says what the first one says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ovseg.benchmark.ways import ReadyWay
from ovseg.d2.data import MetadataCatalog
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.loaders import get_records
from ovseg.data.mappers import TestMapper
from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.readers.pictures import read_label

__all__ = ["measure_accuracy"]


@torch.no_grad()
def measure_accuracy(
    ways: Sequence[ReadyWay], dataset: str, *, pictures: int | None = None
) -> dict[str, Any]:
    """Evaluate ways on the first pictures of a data set, picture by picture.

    Args:
        ways: the reference first.
        dataset: a registered data set with label maps, or the YAML file of one.
        pictures: how many; None: all.

    Returns:
        For JSON: `dataset`, `pictures`, and under `ways` by title `mIoU` in percent (the
        convention of `ovseg.evaluation.confusion`) and `agreement`, the share of all pixels that
        have the reference's label.

    Raises:
        ImageError: a picture or a label map cannot be read.
    """
    dataset = resolve_dataset(dataset)
    metadata = MetadataCatalog.get(dataset)
    names = list(metadata.stuff_classes)
    records = get_records(dataset)[:pictures]
    mappers = [TestMapper(ready.cfg) for ready in ways]
    matrices = np.zeros((len(ways), len(names) + 1, len(names) + 1), np.int64)
    same, pixels = np.zeros(len(ways), np.int64), 0
    for record in records:
        truth = read_label(record["sem_seg_file_name"], classes=len(names))
        reference = None
        for index, (ready, mapper) in enumerate(zip(ways, mappers, strict=True)):
            with ready.active():
                [prediction] = ready.predictor.model.predict([mapper(record)])
                labels = prediction.labels().cpu().numpy()
            reference = labels if reference is None else reference
            same[index] += int((labels == reference).sum())
            matrices[index] += confusion_matrix(labels, truth, len(names), metadata.ignore_label)
        pixels += truth.size
    return {
        "dataset": dataset,
        "pictures": len(records),
        "ways": {
            ready.way.title: {
                "mIoU": scores(matrix, names)["mIoU"],
                "agreement": int(count) / pixels,
            }
            for ready, matrix, count in zip(ways, matrices, same, strict=True)
        },
    }
