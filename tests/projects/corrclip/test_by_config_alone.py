"""CorrCLIP in miniature through every tool, by its config alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ovseg
from ovseg.modeling import AugmentedSegmentor, SlidingWindow
from ovseg.tinyscapes import write_split
from tests.helpers import ROOT, run_python

CONFIG = "corrclip_tiny"
SET = "tinyscapes_val_sem_seg"
WORDS = ["sky; cloud", "grass", "house"]
GRID = ("MODEL.CORRCLIP.REGIONS.NAME", "grid", "MODEL.CORRCLIP.DENSE.NAME", "clip")
YAML = """
name: own_scenes
images: tinyscapes/val2017
labels: tinyscapes/stuffthingmaps/val2017
classes: {classes}
split: validation
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> Path:
    """Evaluations on three scenes, and with tiles and flips on a dataset of one's own."""
    root = tmp_path_factory.mktemp("world")
    write_split(root, "val", 3, workers=0)
    names = json.loads((ROOT / "ovseg/vocab/classes/tinyscapes.json").read_text())["names"]
    (root / "own.yaml").write_text(YAML.format(classes=json.dumps(names)))
    views = ("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96", "TEST.AUG.ENABLED")
    views = (*views, "True", "TEST.AUG.MIN_SIZES", "(128,)")
    own = ("DATASETS.TEST", f"('{root / 'own.yaml'}',)")
    runs = {"method": (CONFIG, ()), "views": (CONFIG, (*GRID, *views, *own)), "ovseg": ()}
    runs["ovseg"] = ("ovseg_tiny", ())
    for name, (config, opts) in runs.items():
        words = ("--config-file", config, "--eval-only", *opts, "DATALOADER.NUM_WORKERS", "0")
        words = (*words, "OUTPUT_DIR", str(root / name))
        run = run_python("tools/train_net.py", *words, DETECTRON2_DATASETS=str(root))
        assert run.returncode == 0, run.stderr
    return root


@pytest.fixture(scope="module")
def predictor():
    return ovseg.load(config=CONFIG, device="cpu", opts=GRID)


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_picture_is_encoded_once_and_asked_any_words(predictor):
    encoded = predictor.set_image(picture())
    first, second = encoded.segment(WORDS), encoded.segment(["sky", "sea"])
    assert first.labels.shape == (90, 120) and set(np.unique(first.labels)) <= {0, 1, 2}
    assert first.names == tuple(WORDS) and second.names == ("sky", "sea")
    assert 0 < first.scores.max() <= 1
    # Regions are those of the grid, each with one label (the first of all is the uncovered one).
    corner = first.labels[-11:, -15:]
    assert len(np.unique(corner)) == 1


def test_regions_of_the_bundled_masks_are_the_default():
    segmented = ovseg.load(config=CONFIG, device="cpu").segment(
        ROOT / "demo/samples/scene_0041.jpg", ["sky", "grass", "house"]
    )
    assert len(np.unique(segmented.labels)) > 1


def test_views_wrap_it():
    views = ("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96", "TEST.AUG.ENABLED")
    opts = (*GRID, *views, "True", "TEST.AUG.MIN_SIZES", "(96,)")
    wrapped = ovseg.load(config=CONFIG, device="cpu", opts=opts)
    assert isinstance(wrapped.model, AugmentedSegmentor)
    assert isinstance(wrapped.model.model, SlidingWindow)
    assert wrapped.segment(picture(), WORDS).labels.shape == (90, 120)


def test_the_demo_runs_it_by_its_config(tmp_path):
    words = ("--input", "demo/samples/scene_0041.jpg", "--class-names", *WORDS)
    run = run_python(
        *("demo/demo.py", *words, "--config-file", CONFIG, "--output", str(tmp_path)),
        *("--opts", *GRID),
    )
    assert run.returncode == 0, run.stderr
    described = json.loads((tmp_path / "scene_0041.json").read_text())
    assert described["names"] == WORDS
    assert described["provenance"]["weights"]["name"] == "no weights of its own"


def test_an_evaluation_says_how_it_came_about(results):
    folder = results / "method" / "inference" / SET
    manifest = json.loads((folder / "manifest.json").read_text())
    protocol = manifest["protocol"]
    assert len(manifest["weights"]["sha256"]) == 64
    assert protocol["method"] == "CorrCLIP" and protocol["window"] == "64 every 32"
    assert protocol["dense_features"] == "maskformer/ovseg_tiny/8"
    assert "CorrCLIP" in (folder / "report.html").read_text()
    assert json.loads((folder / "metrics.json").read_text())


def test_tiles_and_flips_on_a_dataset_of_ones_own(results):
    manifest = json.loads((results / "views/inference/own_scenes/manifest.json").read_text())
    assert manifest["protocol"]["sliding_window"]
    assert manifest["protocol"]["test_time_augmentation"]


def test_it_is_compared_with_ovseg_protocol_first(results):
    run = run_python("tools/compare_results.py", str(results / "method"), str(results / "ovseg"))
    assert run.returncode == 0, run.stderr
    assert run.stdout.index("CorrCLIP") < run.stdout.index("mIoU")
    assert "map_correction" in run.stdout and "OVSeg" in run.stdout
