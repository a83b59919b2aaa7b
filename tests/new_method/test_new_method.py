"""A method of somebody else's, from a package with an entry point, through every tool."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import ovseg
from ovseg.config import load_cfg, register_method
from ovseg.modeling.views import AugmentedSegmentor, SlidingWindow
from ovseg.tinyscapes import write_split
from tests.helpers import ROOT, run_python

FOLDER = Path(__file__).resolve().parent
CONFIG = FOLDER / "patch_text.yaml"
SET = "tinyscapes_val_sem_seg"
WORDS = ["sky", "grass", "house"]


@pytest.fixture(scope="module")
def predictor():
    sys.path.insert(0, str(FOLDER))
    try:
        register_method("PatchText", "patch_text")
        yield lambda *opts: ovseg.load(config=CONFIG, device="cpu", opts=opts)
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder on the path that holds the method as an installed package."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(FOLDER / "patch_text.py", site)
    record = site / "patch_text-1.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: patch-text\nVersion: 1.0\n")
    (record / "entry_points.txt").write_text("[ovseg.methods]\nPatchText = patch_text\n")
    return site


@pytest.fixture(scope="module")
def results(installed, tmp_path_factory) -> Path:
    """Evaluations of the method, with tiles, scales and flips, and of OVSeg, on three scenes."""
    root = tmp_path_factory.mktemp("world")
    write_split(root, "val", 3, workers=0)
    view = ("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96", "TEST.AUG.ENABLED")
    view = (*view, "True", "TEST.AUG.MIN_SIZES", "(96, 128)")
    runs = {"method": (CONFIG, ()), "views": (CONFIG, view), "ovseg": ("ovseg_tiny", ())}
    for name, (config, opts) in runs.items():
        words = ("--config-file", str(config), "--eval-only", *opts)
        words = (*words, "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(root / name))
        run = run_installed(installed, "tools/train_net.py", *words, DETECTRON2_DATASETS=str(root))
        assert run.returncode == 0, run.stderr
    return root


def run_installed(site: Path, *words: str, **environment: str):
    return run_python(*words, PYTHONPATH=f"{ROOT}:{site}", **environment)


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_its_config_brings_its_keys_and_no_other_method_is_imported(installed):
    code = (
        "import sys; from ovseg.config import load_cfg; from ovseg.d2.modeling import build_model; "
        f"cfg = load_cfg({str(CONFIG)!r}); build_model(cfg); "
        "print(cfg.MODEL.PATCH_TEXT.STRIDE, 'ovseg.modeling.ovseg' in sys.modules)"
    )
    run = run_installed(installed, "-c", code)
    assert run.stdout.split() == ["4", "False"], run.stderr


def test_a_picture_is_encoded_once_and_asked_any_words(predictor):
    model = predictor()
    encoded = model.set_image(picture())
    model.model.clip.visual.forward = model.model.patches = None
    first, second = encoded.segment(WORDS), encoded.segment(["sky", "sea"])
    assert first.labels.shape == (90, 120) and set(np.unique(first.labels)) <= {0, 1, 2}
    assert second.names == ("sky", "sea") and first.proposals is None
    assert 0 < first.scores.max() <= 1


def test_padding_and_the_rest_of_a_batch_change_no_score(predictor):
    model = predictor().model
    generator = torch.Generator().manual_seed(1)
    sizes = [(64, 80), (61, 77)]
    inputs = [{"image": 255 * torch.rand(3, *size, generator=generator)} for size in sizes]
    vocabulary = predictor().vocabulary(WORDS)
    together = [p.sem_seg() for p in model.predict(inputs, vocabulary)]
    assert [tuple(scores.shape) for scores in together] == [(3, 64, 80), (3, 61, 77)]
    [alone] = model.predict(inputs[:1], vocabulary)
    torch.testing.assert_close(together[0], alone.sem_seg(), rtol=1e-4, atol=1e-5)


def test_tiles_scales_flips_and_the_crf_wrap_it(predictor, monkeypatch):
    pixels = picture()
    tiled = predictor("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96")
    assert isinstance(tiled.model, SlidingWindow)
    augmented = predictor("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(96, 128)")
    assert isinstance(augmented.model, AugmentedSegmentor)
    monkeypatch.setattr("ovseg.modeling.views.dense_crf.require_dense_crf", lambda: None)
    monkeypatch.setattr(
        "ovseg.modeling.views.dense_crf.refine_scores",
        lambda image, scores: scores.flip(0) if image.shape == pixels.shape else None,
    )
    refined = predictor("TEST.DENSE_CRF", "True")
    plain = predictor().segment(pixels, WORDS).labels
    for other in (tiled, augmented):
        found = other.segment(pixels, WORDS).labels
        assert found.shape == plain.shape and (found != plain).any()
        assert (found == plain).mean() > 0.3
    # The CRF's stand-in reverses the classes.
    assert (predictor().segment(pixels, WORDS[::-1]).labels == plain).mean() < 0.9
    np.testing.assert_array_equal(
        refined.segment(pixels, WORDS).labels, predictor().segment(pixels, WORDS[::-1]).labels
    )


def test_the_demo_runs_it_by_its_config(installed, tmp_path):
    words = ("--input", "demo/samples/scene_0041.jpg", "--class-names", *WORDS)
    words = (*words, "--config-file", str(CONFIG), "--output", str(tmp_path))
    run = run_installed(installed, "demo/demo.py", *words)
    assert run.returncode == 0, run.stderr
    assert "no weights of its own" in run.stdout
    described = json.loads((tmp_path / "scene_0041.json").read_text())
    assert described["names"] == WORDS
    assert described["provenance"]["weights"]["name"] == "no weights of its own"


def test_an_evaluation_has_a_hash_a_protocol_of_its_own_and_a_report(results):
    folder = results / "method" / "inference" / SET
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["weights"]["sha256"]) == 64 and not manifest["weights"]["path"]
    protocol = manifest["protocol"]
    assert protocol["method"] == "PatchText" and protocol["stride"] == 4
    assert "ensemble" not in protocol and "mask_threshold" not in protocol
    assert "PatchText" in (folder / "report.html").read_text()
    views = json.loads((results / "views" / "inference" / SET / "manifest.json").read_text())
    assert views["protocol"]["sliding_window"] and views["protocol"]["test_time_augmentation"]
    assert views["weights"]["sha256"] == manifest["weights"]["sha256"]


def test_it_is_compared_with_ovseg_protocol_first(results):
    run = run_python("tools/compare_results.py", str(results / "method"), str(results / "ovseg"))
    assert run.returncode == 0, run.stderr
    assert run.stdout.index("PatchText") < run.stdout.index("mIoU")
    assert "ensemble_weight" in run.stdout and "OVSeg" in run.stdout


def test_weights_are_refused_for_a_method_that_has_none(predictor):
    with pytest.raises(ValueError, match="PatchText has no weights of its own, got 'ovseg_tiny'"):
        ovseg.load("ovseg_tiny", config=CONFIG, device="cpu")


def test_a_misspelled_method_is_answered_with_those_that_exist(predictor):
    with pytest.raises(KeyError, match="did you mean 'PatchText'"):
        load_cfg(CONFIG, ["MODEL.META_ARCHITECTURE", "PatchTxt"])
