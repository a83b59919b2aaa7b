"""A folder of results as an evaluation leaves it, made from random predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ovseg.evaluation.confusion import confusion_matrix
from ovseg.evaluation.counts import ImageCounts, hash_labels
from ovseg.evaluation.intervals import Bootstrap
from ovseg.evaluation.results import Measured, write_result
from ovseg.utils.images import write_png

NAMES = ("sky", "<b>tree</b>", "star", "ghost")
SIZE = (6, 9)


def write_folder(
    folder: Path,
    *,
    right: float = 0.5,
    count: int = 12,
    dataset: str = "world",
    names: tuple[str, ...] = NAMES,
    weight: float = 0.7,
    seed: int = 0,
) -> Path:
    """Write a result whose share of right pixels is about as asked for; the last class is absent.

    The truth depends on `seed` only; two results of one seed have the same images.
    """
    rng = np.random.default_rng(seed)
    truths = [rng.choice([0, 1, 2, 255], size=SIZE) for _ in range(count)]
    images = []
    for index, truth in enumerate(truths):
        guess = np.random.default_rng(index).integers(0, 3, SIZE)
        hit = np.random.default_rng(index + 100).random(SIZE) < right
        labels = np.where(hit & (truth != 255), truth, guess)
        matrix = confusion_matrix(labels, truth, len(names), 255)
        images.append(ImageCounts.of_matrix(matrix, labels_hash=hash_labels(truth)))
        if index == 0:
            write_png(folder / "picture.png", np.full((*SIZE, 3), 90, np.uint8))
            write_png(folder / "truth.png", truth.astype(np.uint8))
            write_png(folder / "examples" / "0.png", labels.astype(np.uint16))
    example = {
        "name": "0.jpg",
        "image": str(folder / "picture.png"),
        "labels": str(folder / "truth.png"),
        "prediction": "examples/0.png",
    }
    measured = Measured(
        dataset=dataset,
        class_names=names,
        ignore_label=255,
        evaluation_set={"seen": [0, 1]},
        class_groups={},
        files=[f"{index}.jpg" for index in range(count)],
        images=images,
        bootstrap=Bootstrap(resamples=200),
    )
    missing = {"broken.jpg": "broken.jpg: <i>not</i> an image"}
    accounted = {"expected": count + 1, "scored": count, "missing": missing}
    write_result(folder, measured, accounted, {"worst": [example], "best": []})
    manifest = {
        "dataset": dataset,
        "weights": {"name": "tiny", "sha256": "a" * 64, "path": str(folder)},
        "backend": "lite",
        "protocol": {"ensemble_weight": weight, "sliding_window": False},
        "hashes": {"weights": "a" * 64},
        "remarks": [],
        "seconds": right,
        "environment": {"ovseg": "1.0", "packages": {"torch": "2.9"}},
        "config": f"OUTPUT_DIR: {folder}\nMODEL: {{CLIP_ADAPTER: {{WEIGHT: {weight}}}}}\n",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
