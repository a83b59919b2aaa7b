"""PACL by its config alone through every tool that the package has."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

import ovseg
from ovseg.config import load_cfg
from ovseg.modeling.views import AugmentedSegmentor, SlidingWindow
from ovseg.tinyscapes import write_split
from ovseg.weights import catalogue
from tests.helpers import ROOT, run_python

CONFIG = "pacl_tiny"
SET = "tinyscapes_val_sem_seg"
WORDS = ["sky", "grass", "house"]
VIEWS = (
    *("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96"),
    *("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(96, 128)"),
)


@pytest.fixture(scope="module")
def predictor():
    return lambda *opts: ovseg.load("pacl_tiny", device="cpu", opts=opts)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Evaluations on three scenes, as a benchmark and by a YAML file, with views, and OVSeg's."""
    root = tmp_path_factory.mktemp("world")
    folder = write_split(root, "val", 3, workers=0)
    names = list(load_names())
    described = {
        "name": "mine",
        "images": str(folder / "val2017"),
        "labels": str(folder / "stuffthingmaps" / "val2017"),
        "classes": names,
    }
    (root / "mine.yaml").write_text(yaml.safe_dump(described))
    yaml_set = ("DATASETS.TEST", f"('{root / 'mine.yaml'}',)")
    runs = {"pacl": (CONFIG, ()), "views": (CONFIG, VIEWS)}
    runs |= {"mine": (CONFIG, yaml_set), "ovseg": ("ovseg_tiny", ())}
    for name, (config, opts) in runs.items():
        words = ("--config-file", config, "--eval-only", *opts)
        words = (*words, "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(root / name))
        run = run_python("tools/train_net.py", *words, DETECTRON2_DATASETS=str(root))
        assert run.returncode == 0, run.stderr
    return root


def load_names():
    from ovseg.vocab import class_list

    return class_list("tinyscapes").names


def picture(height=90, width=120):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def manifest(folder, dataset=SET):
    return json.loads((folder / "inference" / dataset / "manifest.json").read_text())


def test_the_bundled_weights_bring_their_config_and_stay_small():
    entry = catalogue.entries()["pacl_tiny"]
    assert entry.config == CONFIG and entry.bundled_path.stat().st_size < 100_000
    assert load_cfg(CONFIG).MODEL.WEIGHTS == "pacl_tiny"


def test_it_brings_its_keys_and_no_other_method_is_imported():
    code = (
        "import sys; from ovseg.config import load_cfg; from ovseg.d2.modeling import build_model; "
        f"build_model(load_cfg({CONFIG!r})); print('ovseg.modeling.ovseg' in sys.modules)"
    )
    assert run_python("-c", code).stdout.split() == ["False"]


def test_a_picture_is_encoded_once_and_asked_any_words(predictor):
    model = predictor()
    encoded = model.set_image(picture())
    model.model.tower.forward = None
    first, second = encoded.segment(WORDS), encoded.segment(["sky", "sea"])
    assert first.labels.shape == (90, 120) and set(np.unique(first.labels)) <= {0, 1, 2}
    assert second.names == ("sky", "sea") and first.proposals is None
    assert 0 < first.scores.max() <= 1


def test_tiles_scales_and_flips_wrap_it(predictor):
    plain = predictor().segment(picture(), WORDS).labels
    tiled, augmented = predictor(*VIEWS[:4]), predictor(*VIEWS[4:])
    assert isinstance(tiled.model, SlidingWindow)
    assert isinstance(augmented.model, AugmentedSegmentor)
    for other in (tiled, augmented):
        found = other.segment(picture(), WORDS).labels
        assert found.shape == plain.shape and (found == plain).mean() > 0.3


def test_pixels_of_high_entropy_stay_blank_in_tiles_too(predictor):
    entropy = ("MODEL.PACL.TEST.BACKGROUND", "entropy", "MODEL.PACL.TEST.ENTROPY_THR", "0.7")
    scene = ROOT / "demo" / "samples" / "scene_0041.jpg"
    whole = predictor(*entropy).segment(scene, WORDS).labels
    tiled = predictor(*entropy, *VIEWS[:4]).segment(scene, WORDS).labels
    assert 0 < (whole == -1).mean() < 1 and 0 < (tiled == -1).mean() < 1


def test_the_demo_runs_it(tmp_path):
    words = ("--input", "demo/samples/scene_0041.jpg", "--class-names", *WORDS)
    run = run_python("demo/demo.py", *words, "--config-file", CONFIG, "--output", str(tmp_path))
    assert run.returncode == 0, run.stderr
    described = json.loads((tmp_path / "scene_0041.json").read_text())
    assert described["names"] == WORDS
    assert described["provenance"]["weights"]["name"] == "pacl_tiny"


def test_an_evaluation_states_its_protocol_and_has_a_report(results):
    found = manifest(results / "pacl")
    assert found["weights"]["name"] == "pacl_tiny" and len(found["weights"]["sha256"]) == 64
    protocol = found["protocol"]
    assert protocol["method"] == "PACL" and protocol["templates"] == "pacl7"
    assert protocol["background"] == "ignore" and protocol["patch_stride"] == 4
    report = results / "pacl" / "inference" / SET / "report.html"
    assert "PACL" in report.read_text()
    views = manifest(results / "views")["protocol"]
    assert views["sliding_window"] and views["test_time_augmentation"]


def test_a_dataset_of_ones_own_has_the_scores_of_the_benchmark_it_copies(results):
    scores = [
        json.loads((results / name / "inference" / dataset / "metrics.json").read_text())
        for name, dataset in (("pacl", SET), ("mine", "mine"))
    ]
    assert scores[0]["sem_seg"]["mIoU"] == scores[1]["sem_seg"]["mIoU"] > 0


def test_it_is_compared_with_ovseg_protocol_first(results):
    run = run_python("tools/compare_results.py", str(results / "pacl"), str(results / "ovseg"))
    assert run.returncode == 0, run.stderr
    assert run.stdout.index("PACL") < run.stdout.index("mIoU")
    assert "patch_stride" in run.stdout and "ensemble_weight" in run.stdout


@pytest.mark.parametrize("name", ["pacl_vitB16", "pacl_vitL14", "pacl_vitB16_dino", "pacl_tiny"])
def test_shipped_configs_can_be_read(name):
    cfg = load_cfg(name)
    assert cfg.MODEL.META_ARCHITECTURE == "PACL"
    assert cfg.INPUT.DATASET_MAPPER_NAME == "pacl_captions" and cfg.DATASETS.TRAIN


@pytest.mark.parametrize(
    ("row", "dataset", "reported"),
    [
        ("pascal_voc_20", "pascalvoc20_sem_seg_val", 72.3),
        ("pascal_context_59", "pascal_context_59_sem_seg_val", 50.1),
        ("coco_stuff_171", "coco_2017_val_stuff_all_sem_seg", 38.8),
        ("ade20k_150", "ade20k_sem_seg_val", 31.4),
    ],
)
def test_every_published_row_has_a_config(row, dataset, reported):
    cfg = load_cfg(f"eval/pacl_vitB16_{row}")
    assert list(cfg.DATASETS.TEST) == [dataset]
    assert reported == cfg.TEST.PROTOCOL.REPORTED and cfg.TEST.PROTOCOL.BACKGROUND == "none"
    assert cfg.MODEL.PACL.TEST.PATCH_STRIDE == 4 and cfg.MODEL.PACL.TEST.INPUT_SIZE == 224
