"""The full-size Swin-B + ViT-L/14 model with random weights on real photographs, end to end."""

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


@pytest.mark.slow
def test_full_size_model_segments_photographs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("demo_script", DEMO)
    assert spec is not None and spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    (tmp_path / "in").mkdir()
    sizes = {}
    for name, read in photographs().items():
        picture = read()
        sizes[name] = picture.shape[:2]
        Image.fromarray(picture).save(tmp_path / "in" / f"{name}.png")
    arguments = ["--input", str(tmp_path / "in"), "--output", str(tmp_path / "out")]
    arguments += ["--class-names", "sky", "person", "cup", "cat", "flower", "building"]
    arguments += ["--config-file", "ovseg_swinB", "--weights", "random", "--device", "cpu"]
    assert demo.main(arguments) == 0
    for name, size in sizes.items():
        labels = np.asarray(Image.open(tmp_path / "out" / f"{name}_labels.png"))
        assert labels.shape == size and labels.max() < 6
        described = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert sum(entry["area"] for entry in described["classes"]) == labels.size
