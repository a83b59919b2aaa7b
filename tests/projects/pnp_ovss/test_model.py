"""PnP-OVSS by its config alone, through every tool."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import ovseg
from ovseg.config import load_cfg
from ovseg.modeling.views import AugmentedSegmentor, SlidingWindow
from ovseg.tinyscapes import write_split
from ovseg.utils.images import write_png
from ovseg.weights.load import WeightsError
from tests.helpers import ROOT, run_python
from tests.projects.pnp_ovss.tiny import write_config

pytest.importorskip("transformers")

SET = "tinyscapes_val_sem_seg"
WORDS = ["sky", "grass", "traffic light"]
FILTER = "MODEL.PNP_OVSS.FILTER.NAME"
CONFIGS = sorted(path.stem for path in (ROOT / "projects/pnp_ovss/configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    return write_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def load(config):
    return lambda *opts: ovseg.load(config=config, device="cpu", opts=opts)


@pytest.fixture(scope="module")
def results(config, tmp_path_factory) -> Path:
    """Evaluations on three scenes, plain and in all views, on a dataset of YAML, and of OVSeg."""
    root = tmp_path_factory.mktemp("world")
    write_split(root, "val", 3, workers=0)
    own = root / "own.yaml"
    own.write_text(
        f"name: own\nimages: {root}/tinyscapes/val2017\n"
        f"labels: {root}/tinyscapes/stuffthingmaps/val2017\nclasses: tinyscapes\n"
    )
    views = ("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "96", "TEST.AUG.ENABLED")
    oracle = (FILTER, "oracle")
    runs = {
        "method": (config, oracle),
        "views": (config, (*views, "True", *oracle)),
        "yaml": (config, (FILTER, "itm", "DATASETS.TEST", f"['{own}']")),
        "ovseg": ("ovseg_tiny", ()),
    }
    for name, (file, opts) in runs.items():
        words = ("tools/train_net.py", "--config-file", str(file), "--eval-only", *opts)
        words = (*words, "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(root / name))
        run = run_python(*words, DETECTRON2_DATASETS=str(root))
        assert run.returncode == 0, run.stderr
    return root


def picture(height: int = 90, width: int = 120) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_a_picture_is_encoded_once_and_asked_any_words(load):
    predictor = load("MODEL.PNP_OVSS.DROP.ITERS", "1")
    encoded = predictor.set_image(picture())
    predictor.model.matcher.encode_images = None  # not needed any more
    first, second = encoded.segment(WORDS), encoded.segment(["sea", "sky"])
    assert first.labels.shape == (90, 120) and set(np.unique(first.labels)) <= {0, 1, 2}
    assert second.names == ("sea", "sky") and first.proposals is None
    assert 0 < first.scores.max() <= 1


def test_salience_dropout_encodes_the_picture_again_without_what_stood_out(load, monkeypatch):
    predictor = load()
    encoded = predictor.set_image(picture())
    seen = []
    encode = predictor.model.matcher.encode_images
    monkeypatch.setattr(
        predictor.model.matcher, "encode_images", lambda x: seen.append(x) or encode(x)
    )
    encoded.segment(WORDS)
    assert [int((x == 0).all(1).sum()) // 64 for x in seen] == [2, 4, 6]


def test_the_model_that_answers_is_unchanged_and_has_no_gradients(load):
    model = load().model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    encoded = next(iter(model.encode([{"image": torch.rand(3, 40, 60) * 255}])))
    model.decode(encoded, load().vocabulary(WORDS))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_the_rest_of_a_batch_changes_no_score(load):
    predictor = load()
    sizes = [(64, 80), (61, 77)]
    inputs = [{"image": 255 * torch.rand(3, *size)} for size in sizes]
    vocabulary = predictor.vocabulary(WORDS)
    together = [p.sem_seg() for p in predictor.model.predict(inputs, vocabulary)]
    assert [tuple(scores.shape) for scores in together] == [(3, 64, 80), (3, 61, 77)]
    [alone] = predictor.model.predict(inputs[1:], vocabulary)
    torch.testing.assert_close(together[1], alone.sem_seg())


def test_an_encoding_can_be_stored(load):
    [encoding] = load(FILTER, "clip").model.encode([{"image": torch.rand(3, 40, 60) * 255}])
    shapes = {name: tuple(tensor.shape) for name, tensor in encoding.tensors().items()}
    assert shapes == {
        "pixels": (3, 48, 48),
        "features": (37, 32),
        "picture": (40, 60, 3),
        "seen.clip": (64,),
    }


def test_pixels_of_no_class_are_the_backgrounds_or_blank(load):
    predictor = load(
        "MODEL.PNP_OVSS.BACKGROUND.POLICY", "always", "MODEL.PNP_OVSS.POST.MODE", "none"
    )
    named = predictor.segment(picture(), WORDS, background="others").labels
    blank = predictor.segment(picture(), WORDS).labels
    assert (named == 3).any() and (named < 3).any()
    np.testing.assert_array_equal(named == 3, blank == -1)
    np.testing.assert_array_equal(named[named < 3], blank[blank >= 0])


@pytest.mark.parametrize("name", ["all", "itm", "clip"])
def test_filters_choose_among_the_words(load, name):
    predictor = load(FILTER, name, "MODEL.PNP_OVSS.FILTER.TOP", "2")
    found = predictor.segment(picture(), WORDS).labels
    assert len(np.unique(found)) <= (3 if name == "all" else 2)


def test_the_oracle_has_no_answer_for_a_photograph(load):
    with pytest.raises(ValueError, match="oracle: expected a picture of a dataset"):
        load(FILTER, "oracle").segment(picture(), WORDS)


def test_cached_answers_go_by_the_name_of_the_file(load, tmp_path):
    (tmp_path / "answers.json").write_text('{"scene": ["grass"]}')
    write_png(tmp_path / "scene.png", picture())
    path = ("MODEL.PNP_OVSS.FILTER.PATH", str(tmp_path / "answers.json"))
    found = load(FILTER, "cached_json", *path).segment(tmp_path / "scene.png", WORDS)
    assert np.unique(found.labels).tolist() == [1]


def test_tiles_scales_and_flips_wrap_it(load):
    tiled = load("TEST.SLIDING_WINDOW", "True", "TEST.SLIDING_TILE_SIZE", "64")
    assert isinstance(tiled.model, SlidingWindow)
    augmented = load("TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(64, 96)")
    assert isinstance(augmented.model, AugmentedSegmentor)
    plain = load().segment(picture(), WORDS).labels
    for other in (tiled, augmented):
        found = other.segment(picture(), WORDS).labels
        assert found.shape == plain.shape and (found != plain).any()


def test_random_weights_are_not_those_of_the_file(config):
    vocabulary = ovseg.load(config=config, device="cpu").vocabulary(["sky"])
    image = {"image": torch.rand(3, 48, 48) * 255}
    trained = ovseg.load(config=config, device="cpu").model
    fresh = ovseg.load("random", config=config, device="cpu").model
    scores = [next(m.predict([image], vocabulary)).sem_seg() for m in (trained, fresh)]
    assert (scores[0] != scores[1]).any()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (("MODEL.PNP_OVSS.ITM.LAYER", "4"), r"ITM.LAYER: expected 1 to 3 of this matcher, got 4"),
        (("MODEL.PNP_OVSS.ITM.HEAD", "2"), r"ITM.HEAD: expected 0 to 1 of this matcher, got 2"),
        (("MODEL.PNP_OVSS.ITM.IMAGE_SIZE", "50"), r"IMAGE_SIZE: expected a multiple of 8.*got 50"),
        ((FILTER, "gpt"), r"FILTER.NAME: expected one of \['all', 'cached_json', .*got 'gpt'"),
        (("MODEL.WEIGHTS", "''"), r"ITM.NAME: expected a matcher, got ''"),
        (("MODEL.PNP_OVSS.PROMPT.WORDS", "first"), r"PROMPT.WORDS: expected one of .*got 'first'"),
    ],
)
def test_settings_that_do_not_exist_are_answered_with_those_that_do(load, opts, message):
    with pytest.raises(ValueError, match=message):
        load(*opts)


def test_another_models_weights_are_refused(config):
    with pytest.raises(WeightsError, match="expected a matcher with its config and vocabulary"):
        ovseg.load("ovseg_tiny", config=config, device="cpu")


def test_hugging_faces_form_needs_no_further_weights(load, config, tmp_path):
    trained = load().model
    trained.matcher.model.save_pretrained(tmp_path)
    vocabulary = trained.matcher.tokenizer.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.get)
    (tmp_path / "vocab.txt").write_text("\n".join(pieces), encoding="utf-8")
    predictor = load("MODEL.WEIGHTS", "", "MODEL.PNP_OVSS.ITM.NAME", str(tmp_path))
    assert predictor.provenance["weights"]["name"] == "no weights of its own"
    expected, found = load().segment(picture(), WORDS), predictor.segment(picture(), WORDS)
    np.testing.assert_array_equal(expected.labels, found.labels)
    with pytest.raises(ValueError, match="PnPOVSS has no weights of its own"):
        ovseg.load("ovseg_tiny", config=config, opts=["MODEL.PNP_OVSS.ITM.NAME", str(tmp_path)])


def test_the_demo_runs_it_by_its_config(config, tmp_path):
    words = ("--input", "demo/samples/scene_0041.jpg", "--class-names", "sky", "grass", "house")
    words = (*words, "--config-file", str(config), "--output", str(tmp_path))
    run = run_python("demo/demo.py", *words)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "scene_0041.json").read_text())["names"][0] == "sky"


def test_an_evaluation_states_its_protocol_and_leaves_a_report(results):
    folder = results / "method" / "inference" / SET
    manifest = json.loads((folder / "manifest.json").read_text())
    protocol = manifest["protocol"]
    assert protocol["method"] == "PnPOVSS" and len(manifest["weights"]["sha256"]) == 64
    assert protocol["classes_asked_for"] == "present classes" and protocol["layer"] == 2
    assert protocol["salience_dropout"] == "4 x topk" and protocol["crf"] == "none"
    assert "PnPOVSS" in (folder / "report.html").read_text()
    views = json.loads((results / "views" / "inference" / SET / "manifest.json").read_text())
    assert views["protocol"]["sliding_window"]
    assert views["protocol"]["class_filter"] == "oracle"
    own = json.loads((results / "yaml" / "inference" / "own" / "manifest.json").read_text())
    assert own["protocol"]["class_filter"] == "itm"
    assert own["protocol"]["classes_asked_for"] == "all classes"


def test_the_oracle_predicts_no_class_that_is_not_there(results):
    metrics = json.loads((results / "method/inference" / SET / "metrics.json").read_text())
    other = json.loads((results / "yaml/inference/own/metrics.json").read_text())
    assert metrics["images"]["scored"] == other["images"]["scored"] == 3


def test_it_is_compared_with_ovseg_protocol_first(results):
    run = run_python("tools/compare_results.py", str(results / "method"), str(results / "ovseg"))
    assert run.returncode == 0, run.stderr
    assert run.stdout.index("PnPOVSS") < run.stdout.index("mIoU")


@pytest.mark.parametrize("name", CONFIGS)
def test_shipped_configs_are_read(name):
    cfg = load_cfg(name)
    assert cfg.MODEL.META_ARCHITECTURE == "PnPOVSS" and cfg.INPUT.MIN_SIZE_TEST == 0


def test_the_released_settings_are_the_defaults():
    node = load_cfg("pnp_ovss_voc_21").MODEL.PNP_OVSS
    assert (node.ITM.LAYER, node.ITM.HEAD, node.ITM.IMAGE_SIZE) == (8, 9, 336)
    assert (node.DROP.ITERS, node.DROP.TOPK, node.DROP.FIRST_ITER_WEIGHT) == (4, 10, 2.0)
    assert (node.MAP.THRESHOLD, node.POST.BLUR, node.POST.CRF.ITERS) == (0.15, 0.05, 10)
    assert node.FILTER.NAME == "cached_json" and node.FILTER.MIN_PROB == 70
