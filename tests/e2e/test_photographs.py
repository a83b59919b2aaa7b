"""Real photographs from end to end, with the small model and with the full-size one.

The weights are random, as none can be assumed to be there: what is tested is that the pictures
pass through every stage of models of these sizes. The full-size model takes 4 GB of memory and
about 5 minutes of one CPU core per photograph.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ovseg

DEMO = Path(ovseg.__file__).resolve().parents[1] / "demo" / "demo.py"


def photographs() -> dict[str, Callable[[], np.ndarray]]:
    data = pytest.importorskip("skimage.data")
    datasets = pytest.importorskip("sklearn.datasets")
    return {
        "astronaut": data.astronaut,
        "coffee": data.coffee,
        "chelsea": data.chelsea,
        "china": lambda: datasets.load_sample_image("china.jpg"),
        "flower": lambda: datasets.load_sample_image("flower.jpg"),
    }


def run(folder: Path, names: list[str], config: str) -> None:
    spec = importlib.util.spec_from_file_location("demo_script", DEMO)
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    (folder / "in").mkdir()
    sizes = {}
    for name in names:
        picture = photographs()[name]()
        sizes[name] = picture.shape[:2]
        Image.fromarray(picture).save(folder / "in" / f"{name}.png")
    arguments = ["--input", str(folder / "in"), "--output", str(folder / "out")]
    arguments += ["--class-names", "sky", "person", "cup", "cat", "flower", "building"]
    arguments += ["--config-file", config, "--weights", "random", "--device", "cpu"]
    assert demo.main(arguments) == 0
    for name, size in sizes.items():
        labels = np.asarray(Image.open(folder / "out" / f"{name}_labels.png"))
        assert labels.shape == size and labels.max() < 6
        described = json.loads((folder / "out" / f"{name}.json").read_text())
        assert sum(entry["area"] for entry in described["classes"]) == labels.size


def test_small_model_segments_photographs(tmp_path: Path) -> None:
    run(tmp_path, ["astronaut", "coffee", "chelsea", "china", "flower"], "ovseg_tiny")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coffee", "china"])
def test_full_size_model_segments_photographs(tmp_path: Path, name: str) -> None:
    run(tmp_path, [name], "ovseg_swinB")
