"""SegCLIP by its config alone: predictor, demo, evaluations, tiles, report, comparison."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

import ovseg
from ovseg.modeling.views import AugmentedSegmentor, SlidingWindow
from ovseg.tinyscapes import write_split
from ovseg.vocab import class_list
from tests.helpers import run_python

SET = "tinyscapes_val_sem_seg"
WORDS = ["sky", "grass", "house"]


def load(*opts):
    return ovseg.load("random", config="segclip_tiny", device="cpu", opts=opts)


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Evaluations on two data sets, in tiles, and of OVSeg, on two scenes."""
    root = tmp_path_factory.mktemp("world")
    write_split(root, "val", 2, workers=0)
    folder = root / "tinyscapes"
    own = {
        "name": "garden",
        "images": str(folder / "val2017"),
        "labels": str(folder / "stuffthingmaps" / "val2017"),
        "classes": list(class_list("tinyscapes").names),
    }
    (root / "garden.yaml").write_text(yaml.safe_dump(own))
    tiles = ("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96")
    runs = {
        "method": ("segclip_tiny", "DATASETS.TEST", f"('{SET}', '{root}/garden.yaml')"),
        "tiles": ("segclip_tiny", *tiles),
        "ovseg": ("ovseg_tiny",),
    }
    for name, (config, *opts) in runs.items():
        words = ("--config-file", config, "--eval-only", *opts, "DATALOADER.NUM_WORKERS", "0")
        words = (*words, "OUTPUT_DIR", str(root / name))
        if config == "segclip_tiny":
            words = (*words, "MODEL.WEIGHTS", "random")
        run = run_python("tools/train_net.py", *words, DETECTRON2_DATASETS=str(root))
        assert run.returncode == 0, run.stderr
    return root


def test_a_picture_is_encoded_once_and_asked_any_words():
    predictor = load()
    encoded = predictor.set_image(picture())
    predictor.model.clip.visual.forward = None
    first, second = encoded.segment(WORDS), encoded.segment(["sky", "sea"])
    assert first.labels.shape == (90, 120) and set(np.unique(first.labels)) <= {0, 1, 2}
    assert second.names == ("sky", "sea") and first.proposals is None
    assert 0 < first.scores.max() <= 1
    rest = encoded.segment(WORDS, background="others")
    assert rest.names[rest.background] == "others"
    assert set(encoded.encoding.tensors()) == {"images", "groups", "pixels"}


def test_tiles_scales_and_flips_wrap_it():
    tiled = load("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96")
    augmented = load("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(96, 128)")
    assert isinstance(tiled.model, SlidingWindow)
    assert isinstance(augmented.model, AugmentedSegmentor)
    for predictor in (tiled, augmented):
        assert predictor.segment(picture(), WORDS).labels.shape == (90, 120)


def test_the_demo_runs_it(tmp_path):
    words = ("--input", "demo/samples/scene_0041.jpg", "--class-names", *WORDS)
    words = (*words, "--config-file", "segclip_tiny", "--weights", "random")
    run = run_python("demo/demo.py", *words, "--output", str(tmp_path))
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "scene_0041.json").read_text())["names"] == WORDS


def test_evaluations_state_windows_gate_and_background_and_leave_reports(results):
    for name in (SET, "garden"):
        folder = results / "method" / "inference" / name
        protocol = json.loads((folder / "manifest.json").read_text())["protocol"]
        assert protocol["method"] == "SegCLIP" and protocol["window"] == 64
        assert protocol["top_classes"] == 8 and protocol["background_threshold"] == 0.8
        assert "SegCLIP" in (folder / "report.html").read_text()
    tiles = json.loads((results / "tiles" / "inference" / SET / "manifest.json").read_text())
    assert tiles["protocol"]["sliding_window"]


def test_it_is_compared_with_ovseg_protocol_first(results):
    folders = (str(results / name) for name in ("tiles", "ovseg"))
    run = run_python("tools/compare_results.py", *folders)
    assert run.returncode == 0, run.stderr
    assert run.stdout.index("SegCLIP") < run.stdout.index("mIoU") and "OVSeg" in run.stdout
