from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from ovseg.config import load_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.modeling import build_model
from ovseg.data.catalog import register_builtin
from ovseg.data.loaders import get_records
from ovseg.data.splits import SplitError
from ovseg.evaluation.evaluate import evaluate
from ovseg.tinyscapes import write_split
from ovseg.training.weights import load_for_evaluation
from ovseg.tuning.cache import EncodingCache
from ovseg.tuning.sweep import CLIP_ONLY, MASK_CLASSIFIER_ONLY
from ovseg.tuning.tune import Grid, TunedSetting, tune
from ovseg.utils.files import sha256_of

VAL, TEST = "tinyscapes_val_sem_seg", "tinyscapes_test_sem_seg"
WEIGHTS = (MASK_CLASSIFIER_ONLY, 0.3, (0.3, 0.7), CLIP_ONLY)
GRID = Grid(WEIGHTS, (0.35, 0.6), ("vild", "predefined"))
ONE = Grid((0.7,), (0.35,), ("predefined",))


def config(*options):
    # Another resolution than the pictures', so that masks are resized on their way.
    fixed = ("INPUT.MIN_SIZE_TEST", 112, "DATALOADER.NUM_WORKERS", 0)
    return load_cfg("ovseg_tiny", [*fixed, *options])


def bundled(*options):
    model = build_model(config(*options)).eval()
    load_for_evaluation(model, "ovseg_tiny")
    return model


@pytest.fixture(scope="module", autouse=True)
def world(tmp_path_factory):
    before, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    root = tmp_path_factory.mktemp("world")
    for split, count in (("val", 3), ("test", 1)):
        write_split(root, split, count, workers=0)
    register_builtin(root)
    yield root
    for catalogue, old in ((DatasetCatalog, before), (MetadataCatalog, metadata)):
        catalogue.data.clear()
        catalogue.data.update(old)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def model():
    return bundled()


@pytest.fixture(scope="module")
def cache(world, model, folder):
    return EncodingCache.from_config(config(), model, folder)


@pytest.fixture(scope="module")
def tuning(model, cache):
    return tune(config(), model, VAL, cache=cache, grid=GRID)


@pytest.mark.parametrize(
    ("templates", "threshold", "weight"),
    [
        ("vild", 0.35, 0.3),
        ("vild", 0.6, 0.3),
        ("predefined", 0.6, (0.3, 0.7)),
        ("predefined", 0.35, CLIP_ONLY),
        ("vild", 0.6, MASK_CLASSIFIER_ONLY),
    ],
)
def test_a_setting_scores_what_a_full_evaluation_with_its_options_scores(
    tuning, tmp_path, templates, threshold, weight
):
    [result] = [
        r
        for r in tuning.results
        if (r.templates, r.threshold, r.weight) == (templates, threshold, weight)
    ]
    options = (*result.options(), "OUTPUT_DIR", str(tmp_path), "DATASETS.TEST", (VAL,))
    options = (*options, "TEST.TUNED_ON", tuning.origin)
    full = evaluate(config(*options), bundled(*options))[VAL]["sem_seg"]
    assert set(result.scores) == {k for k in full if not k.startswith(("IoU-", "ACC-"))}
    for name, value in result.scores.items():
        assert value == full[name] or (math.isnan(value) and math.isnan(full[name])), name
    manifest = json.loads((tmp_path / "inference" / VAL / "manifest.json").read_text())
    assert manifest["remarks"] == [tuning.origin]


def test_settings_differ_and_the_best_is_the_first_of_the_highest(tuning):
    assert len(tuning.results) == len(GRID) == 16
    values = [r.scores["mIoU"] for r in tuning.results]
    assert len(set(values)) > 5
    assert tuning.best is tuning.results[values.index(max(values))]
    assert tuning.images == 3 and not tuning.skipped
    assert tuning.origin == f"ensemble settings tuned for mIoU on 3 images of {VAL}"
    total = tuning.seconds["filling the cache"] + tuning.seconds["sweep"]
    assert total == pytest.approx(tuning.seconds["total"])


def test_the_second_sweep_runs_no_network_and_finds_the_same(tuning, model, folder, monkeypatch):
    def fail(*_args, **_kwargs):
        raise AssertionError("the network ran")

    cache = EncodingCache.from_config(config(), model, folder)
    for part in (model.backbone, model.sem_seg_head, model.clip_adapter.clip_model.visual):
        monkeypatch.setattr(part, "forward", fail)
    monkeypatch.setattr(model.clip_adapter.clip_model, "encode_text", fail)
    again = tune(config(), model, VAL, cache=cache, grid=GRID, metric="mIoU-unseen")
    for found, known in zip(again.results, tuning.results, strict=True):
        assert found.scores == pytest.approx(known.scores, nan_ok=True, abs=0)
    # First stage and two thresholds of three pictures, texts of two lists.
    assert (cache.computed, cache.read) == (0, 3 * 3 + 2)
    assert again.seconds["filling the cache"] == 0
    best = max(r.scores["mIoU-unseen"] for r in again.results)
    assert again.best.scores["mIoU-unseen"] == best


def test_a_few_pictures_are_spread_evenly_and_unreadable_ones_are_named(
    model, cache, tmp_path, monkeypatch
):
    records = get_records(VAL)
    assert tune(config(), model, VAL, cache=cache, grid=ONE, images=2).images == 2
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    damaged = [{**records[0], "file_name": str(broken)}, *records[1:]]
    monkeypatch.setattr("ovseg.tuning.tune.get_records", lambda name: damaged)
    found = tune(config(), model, VAL, cache=cache, grid=ONE)
    assert found.images == 2 and list(found.skipped) == [str(broken)]


def test_a_test_split_takes_words_that_stay_with_the_result(model, cache):
    with pytest.raises(SplitError, match=r"a test split.*--i-know-this-is-the-test-split"):
        tune(config(), model, TEST, cache=cache, grid=ONE)
    found = tune(config(), model, TEST, cache=cache, grid=ONE, known_as_test=True)
    assert found.role == "test"
    assert found.origin.endswith("which is a test split (--i-know-this-is-the-test-split)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": (1.2,)}, r"weights in \(0, 1\]"),
        ({"weights": (0.0,)}, "CLIP only"),
        ({"weights": ((0.4, 1.5),)}, r"or pairs.*got \(0.4, 1.5\)"),
        ({"thresholds": (1.0,)}, r"thresholds in \(0, 1\)"),
        ({"templates": ()}, "at least one"),
    ],
)
def test_a_grid_out_of_range_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Grid(**change)


def test_what_the_sweep_would_not_reproduce_is_refused(model, cache, monkeypatch):
    for key in ("TEST.SLIDING_WINDOW", "TEST.AUG.ENABLED", "TEST.DENSE_CRF"):
        with pytest.raises(ValueError, match=f"{key}: expected False"):
            tune(config(key, True), model, VAL, cache=cache)
    with pytest.raises(ValueError, match=r"metric: expected one of \['mIoU', .*got 'miou'"):
        tune(config(), model, VAL, cache=cache, grid=ONE, metric="miou")
    monkeypatch.setattr(model, "inference_mode", "demo")
    with pytest.raises(ValueError, match="semantic mode, got OVSeg in mode 'demo'"):
        tune(config(), model, VAL, cache=cache)


def test_clip_alone_is_written_as_configs_write_it():
    words = TunedSetting("vild", 0.4, CLIP_ONLY, {}).options()
    assert words[:4] == (
        *("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE", "True"),
        *("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", "0.0"),
    )
    assert TunedSetting("vild", 0.4, MASK_CLASSIFIER_ONLY, {}).options()[1] == "False"
    unseen = "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN"
    assert words[6:8] == (unseen, "-1.0")  # whatever the config had
    words = TunedSetting("vild", 0.4, (0.4, 0.9), {}).options()
    assert words[3] == "0.4" and words[6:8] == (unseen, "0.9")


def test_weights_settings_and_pictures_key_the_cache(model, folder, tuning, cache):
    def place(*options):
        return EncodingCache.from_config(config(*options), model, folder).folder

    adapter = "MODEL.CLIP_ADAPTER."
    assert place() == place(f"{adapter}MASK_THR", 0.2, "TEST.OUTPUT", "sem_seg") == cache.folder
    different = {
        place(),
        place("INPUT.MIN_SIZE_TEST", 113),
        place(f"{adapter}MASK_FILL", "zero"),
        place(f"{adapter}MASK_EXPAND_RATIO", 1.5),
    }
    entry = model.sem_seg_head.predictor.query_embed[0].weight.data[0]
    entry[0] += 1e-3
    different.add(place())
    entry[0] -= 1e-3
    assert len(different) == 5
    names = {sha256_of(record["file_name"])[:24] for record in get_records(VAL)}
    assert len(names) == 3 and all((cache.folder / f"{n}.safetensors").is_file() for n in names)


def test_a_damaged_file_of_the_cache_is_made_anew(model, tuning, folder):
    cache = EncodingCache.from_config(config(), model, folder)
    record = get_records(VAL)[0]
    expected = cache.encoding(record, (0.35,)).regions[0.35].features
    path = cache.folder / f"{sha256_of(record['file_name'])[:24]}.thr-0.35.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    for _ in range(2):
        found = cache.encoding(record, (0.35,)).regions[0.35].features
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        assert cache.computed == 1
