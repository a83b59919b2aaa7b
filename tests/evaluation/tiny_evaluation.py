"""An evaluation of a model that costs nothing, in one or several processes, killed or not.

Run as a script it evaluates in processes of its own; DIE_AFTER makes a process kill itself before
its n-th picture.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ovseg.d2.arguments import default_argument_parser
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import load_sem_seg
from ovseg.evaluation.evaluate import evaluate
from ovseg.training.distributed import run_distributed
from ovseg.utils.images import write_png
from tests.modeling.tiny import tiny_cfg

DATASETS = ("engine_pictures", "engine_more_pictures")
CLASSES = ["black", "dim", "grey", "bright", "nowhere"]
WEIGHTS = {"name": "shades", "path": "", "sha256": "5" * 64}
COUNT = 9


def write_pictures(root: Path) -> None:
    """Pictures whose red channel says the class, noise over it; one truth is all ignored."""
    for number in range(COUNT):
        rng = np.random.default_rng(number)
        labels = rng.integers(0, 4, (3 + number % 3, 4)).repeat(8, 0).repeat(8, 1)
        red = np.clip(60 * labels + rng.normal(0, 25, labels.shape), 0, 255)
        image = np.stack([red, red * 0, red * 0], -1).astype(np.uint8)
        labels[rng.random(labels.shape) < (1.0 if number == 4 else 0.1)] = 255
        write_png(root / "images" / f"{number}.png", image)
        write_png(root / "labels" / f"{number}.png", labels.astype(np.uint8))


def register(root: Path) -> None:
    for name in DATASETS:
        records = load_sem_seg(root / "labels", root / "images", image_suffix="png", name=name)
        DatasetCatalog.register(name, lambda records=records: records)
        MetadataCatalog.get(name).set(
            stuff_classes=CLASSES,
            ignore_label=255,
            evaluation_set={"seen": [0, 1]},
            image_root=str(root / "images"),
        )


class Shades(nn.Module):
    """Takes every pixel for the nearest shade, and bright ones in the top row for nowhere."""

    def __init__(self, die_after: int = 0) -> None:
        super().__init__()
        self.left = die_after or -1
        self.seen: list[str] = []

    def forward(self, batched_inputs):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        results = []
        for inputs in batched_inputs:
            self.seen.append(Path(inputs["file_name"]).name)
            red = inputs["image"][:1].float()[None]  # (1, 1, h, w)
            size = (inputs["height"], inputs["width"])
            red = nn.functional.interpolate(red, size=size, mode="nearest")[0, 0]
            labels = (red / 60).round().long().clamp(0, 3)
            labels[0][labels[0] == 3] = 4
            results.append({"labels": labels})
        return results


def cfg_for(output: Path, *opts: object):
    given = dict(zip(opts[::2], opts[1::2], strict=True))
    settings = {
        "OUTPUT_DIR": str(output),
        "DATASETS.TEST": DATASETS,
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TEST": 24,
    }
    settings |= given
    return tiny_cfg(**{str(key).replace(".", "__"): value for key, value in settings.items()})


def main(args) -> None:
    torch.set_num_threads(1)
    register(Path(os.environ["TINY_ROOT"]))
    model = Shades(int(os.environ.get("DIE_AFTER", "0")))
    evaluate(cfg_for(Path(os.environ["TINY_OUTPUT"])), model, weights=WEIGHTS)


if __name__ == "__main__":
    run_distributed(main, default_argument_parser().parse_args(sys.argv[1:]))
