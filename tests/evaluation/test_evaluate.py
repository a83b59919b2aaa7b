from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.evaluation.evaluate import evaluate
from ovseg.modeling import DenseCRF, DensePrediction, build_views
from ovseg.modeling.views.augmentation import AugmentedSegmentor
from ovseg.modeling.views.tiles import SlidingWindow
from ovseg.training.weights import load_for_evaluation, load_for_training
from ovseg.utils.images import write_png
from ovseg.weights.load import WeightsError, write_safetensors
from tests.modeling.tiny import NAMES, FixedScores, tiny_cfg, tiny_model, vocabulary

NAME = "engine_test_val"


@pytest.fixture(scope="module", autouse=True)
def scenes(tmp_path_factory):
    """Two pictures whose red channel says which of three classes a pixel is."""
    folder = tmp_path_factory.mktemp("scenes")
    records = []
    for index in range(2):
        labels = np.random.default_rng(index).integers(0, 3, (6, 8)).repeat(8, 0).repeat(8, 1)
        image = np.stack([labels * 100, labels * 0 + 50, labels * 0], -1).astype(np.uint8)
        labels[:4] = 255
        write_png(folder / f"{index}.png", image)
        write_png(folder / f"{index}_labels.png", labels.astype(np.uint8))
        records.append(
            {
                "file_name": str(folder / f"{index}.png"),
                "sem_seg_file_name": str(folder / f"{index}_labels.png"),
            }
        )
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(stuff_classes=list(NAMES), ignore_label=255)
    yield
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


class RedReader(FixedScores):
    """Scores class k by how close a pixel's red is to 100 k."""

    def __init__(self):
        super().__init__(torch.empty(0))
        self.sizes = []

    def decode(self, encoding, vocabulary):
        red = encoding.inputs["image"][0].float()  # (h, w)
        self.sizes.append(tuple(red.shape))
        wanted = torch.arange(3)[:, None, None] * 100.0
        scores = -(red - wanted).abs()[None]  # (1, 3, h, w)
        scores = nn.functional.interpolate(scores, size=encoding.output_size, mode="nearest")[0]
        return DensePrediction(scores, encoding.output_size)


def eval_cfg(output, **overrides):
    settings = {
        "OUTPUT_DIR": str(output),
        "DATASETS.TEST": (NAME,),
        "DATALOADER.NUM_WORKERS": 0,
        "INPUT.MIN_SIZE_TEST": 48,
        "TEST.OUTPUT": "labels",
    }
    settings |= {key.replace("__", "."): value for key, value in overrides.items()}
    return tiny_cfg(**{key.replace(".", "__"): value for key, value in settings.items()})


def test_a_right_model_scores_100_and_the_record_lies_beside_the_result(tmp_path):
    cfg = eval_cfg(tmp_path)
    loaded = {"name": "red", "path": "", "sha256": "0"}
    results = evaluate(cfg, RedReader(), weights=loaded)
    assert results[NAME]["sem_seg"]["mIoU"] == pytest.approx(100.0)
    folder = tmp_path / "inference" / NAME
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["weights"] == loaded and manifest["dataset"] == NAME
    assert manifest["backend"] in ("lite", "real") and "MIN_SIZE_TEST: 48" in manifest["config"]
    assert (folder / "metrics.json").is_file() and (folder / "per_class.csv").is_file()


def test_expected_results_are_held_against_the_measured_ones(tmp_path):
    met = [["sem_seg", "mIoU", 100.0, 0.1]]
    evaluate(eval_cfg(tmp_path, TEST__EXPECTED_RESULTS=met), RedReader())
    missed = [["sem_seg", "mIoU", 50.0, 0.1]]
    with pytest.raises(SystemExit):
        evaluate(eval_cfg(tmp_path, TEST__EXPECTED_RESULTS=missed), RedReader())


def test_no_test_set_is_an_error(tmp_path):
    with pytest.raises(ValueError, match=r"DATASETS.TEST: .*tinyscapes_val_sem_seg"):
        evaluate(eval_cfg(tmp_path, DATASETS__TEST=()), RedReader())


def test_augmentation_sees_every_scale_and_its_mirror_image_and_undoes_the_flip(tmp_path):
    reader = RedReader()
    cfg = eval_cfg(
        tmp_path, TEST__AUG__ENABLED=True, TEST__AUG__MIN_SIZES=(48, 96), TEST__AUG__MAX_SIZE=200
    )
    results = evaluate(cfg, build_views(cfg, reader))
    assert reader.sizes == 2 * [(48, 64), (48, 64), (96, 128), (96, 128)]
    # Bilinear enlarging blends colours along borders; a flip not undone would cost most pixels.
    assert results[NAME]["sem_seg"]["pACC"] > 90.0


def test_augmented_scores_are_the_mean_over_views():
    class Ramp(FixedScores):
        def decode(self, encoding, vocabulary):
            height, width = encoding.output_size
            ramp = torch.linspace(0, 1, width).expand(2, height, width)
            return DensePrediction(ramp * encoding.inputs["image"].shape[1], encoding.output_size)

    image = torch.zeros(3, 10, 20, dtype=torch.uint8)
    inner = Ramp(torch.empty(0), output="sem_seg")
    model = AugmentedSegmentor(inner, short_sides=(10, 20), max_size=100, flip=True)
    [found] = model([{"image": image, "height": 4, "width": 5}], vocabulary("a", "b"))
    # ramp + its mirror image = 1 everywhere; heights 10 and 20 average to 15.
    torch.testing.assert_close(found["sem_seg"], torch.full((2, 4, 5), 7.5))


def test_augmented_views_abstain_together_and_their_flips_are_undone():
    blank = torch.zeros(4, 6, dtype=torch.bool)
    blank[:, :2] = True
    model = FixedScores(torch.rand(2, 4, 6), blank=blank)
    views = AugmentedSegmentor(model, short_sides=(4,), max_size=10, flip=True)
    inputs = [{"image": torch.zeros(3, 4, 6)}]
    [prediction] = views.predict(inputs, vocabulary("a", "b"))
    assert not (prediction.labels(blank=-1) == -1).any()  # a view and its mirror image disagree
    blank[:, -2:] = True
    [prediction] = views.predict(inputs, vocabulary("a", "b"))
    assert torch.equal(prediction.labels(blank=-1) == -1, blank)


def test_views_are_built_from_the_config_tiles_inside_the_crf_outside(tmp_path, monkeypatch):
    monkeypatch.setattr("ovseg.modeling.views.dense_crf.require_dense_crf", lambda: None)
    model = tiny_model()
    assert build_views(eval_cfg(tmp_path), model) is model
    window = build_views(eval_cfg(tmp_path, TEST__SLIDING_WINDOW=True), model)
    assert isinstance(window, SlidingWindow)
    every = ("TEST__SLIDING_WINDOW", "TEST__AUG__ENABLED", "TEST__DENSE_CRF")
    refined = build_views(eval_cfg(tmp_path, **dict.fromkeys(every, True)), model)
    assert isinstance(refined, DenseCRF) and isinstance(refined.model, AugmentedSegmentor)
    assert isinstance(refined.model.model, SlidingWindow) and refined.model.model.model is model


def test_the_crf_takes_scores_from_whatever_the_model_is_wrapped_in(tmp_path, monkeypatch):
    seen = []

    def refine(image, scores):
        seen.append((image.shape, tuple(scores.shape)))
        return scores.flip(0)

    monkeypatch.setattr("ovseg.modeling.views.dense_crf.require_dense_crf", lambda: None)
    monkeypatch.setattr("ovseg.modeling.views.dense_crf.refine_scores", refine)
    model = RedReader()
    cfg = eval_cfg(tmp_path / "plain", TEST__DENSE_CRF=True)
    plain = evaluate(cfg, build_views(cfg, model))
    both = {"TEST__DENSE_CRF": True, "TEST__AUG__ENABLED": True, "TEST__AUG__MIN_SIZES": [48, 96]}
    cfg = eval_cfg(tmp_path / "augmented", **both)
    augmented = evaluate(cfg, build_views(cfg, model))
    assert seen == [((48, 64, 3), (3, 48, 64))] * 4
    # Classes 0 and 2 are swapped, class 1 is right: the refined scores are what counts.
    for results in (plain, augmented):
        assert results[NAME]["sem_seg"]["IoU-sky"] == pytest.approx(100.0)
        assert results[NAME]["sem_seg"]["IoU-cat"] == pytest.approx(0.0)
    manifest = json.loads((tmp_path / "plain" / "inference" / NAME / "manifest.json").read_text())
    protocol = manifest["protocol"]
    assert protocol["dense_crf"] and not protocol["sliding_window"]


def test_weights_are_loaded_strictly_and_described(tmp_path):
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        other.sem_seg_head.predictor.query_embed.weight.fill_(3.0)
    path = tmp_path / "some.safetensors"
    write_safetensors(path, other.state_dict())
    loaded = load_for_evaluation(model, str(path))
    assert bool((model.sem_seg_head.predictor.query_embed.weight == 3.0).all())
    assert loaded["path"] == str(path) and len(loaded["sha256"]) == 64
    write_safetensors(path, {"stray": torch.ones(1)})
    with pytest.raises(WeightsError):
        load_for_evaluation(model, str(path))


def test_evaluation_needs_weights_and_training_does_not():
    model = tiny_model()
    with pytest.raises(ValueError, match=r"MODEL.WEIGHTS: .*ovseg_tiny"):
        load_for_evaluation(model, "")
    assert load_for_evaluation(model, "random")["name"] == "random"
    load_for_training(model, "")
