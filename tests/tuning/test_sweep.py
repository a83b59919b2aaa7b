from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.evaluation.confusion import confusion_matrix
from ovseg.tuning.sweep import (
    CLIP_ONLY,
    MASK_CLASSIFIER_ONLY,
    class_scores,
    grouped_scores,
    name_masks,
    propose,
    sweep,
)
from ovseg.utils.images import write_png
from ovseg.vocab import Vocabulary

VOCABULARY = Vocabulary.make(["sky", "tree", "car"])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(load_cfg("ovseg_tiny")).eval()


@pytest.fixture
def loader(tmp_path):
    rng = np.random.default_rng(0)
    batches = []
    for index, size in enumerate([(40, 56), (64, 32)]):
        file = tmp_path / f"{index}.png"
        labels = rng.integers(0, 3, size).astype(np.uint8)
        labels[:4] = 255
        write_png(file, labels)
        image = torch.from_numpy(rng.integers(0, 256, (3, *size), dtype=np.uint8))
        batches.append([{"image": image, "sem_seg_file_name": str(file)}])
    return batches


@pytest.mark.parametrize(
    ("setting", "ensemble", "weight"),
    [(0.7, True, 0.7), (0.4, True, 0.4), (CLIP_ONLY, True, 0.0), (MASK_CLASSIFIER_ONLY, False, 1)],
)
def test_a_swept_setting_counts_what_the_model_set_so_predicts(
    model, loader, setting, ensemble, weight
):
    pictures = list(propose(model, loader, VOCABULARY))
    swept = sweep(name_masks(model, pictures, VOCABULARY), 3, [0.9, setting])
    model.clip_ensemble, model.clip_ensemble_weight = ensemble, float(weight)
    try:
        expected = np.zeros((4, 4), dtype=np.int64)
        for batch, picture in zip(loader, propose(model, loader, VOCABULARY), strict=True):
            labels = model.predict_masks(batch, VOCABULARY)[0].labels().numpy()
            expected += confusion_matrix(labels, picture.labels, 3, 255)
    finally:
        model.clip_ensemble, model.clip_ensemble_weight = True, 0.7
    assert expected.sum() == 40 * 56 + 64 * 32
    np.testing.assert_array_equal(swept[setting], expected)


def test_proposing_leaves_the_model_as_it_was_and_naming_needs_its_clip(model, loader):
    pictures = list(propose(model, loader, VOCABULARY))
    assert model.clip_ensemble
    [(_, prediction), _] = name_masks(model, pictures, VOCABULARY)
    assert prediction.clip_scores is not None
    torch.testing.assert_close(class_scores(prediction, 0.7), prediction.class_scores)
    blind = replace(prediction, clip_scores=None)
    torch.testing.assert_close(class_scores(blind, 0.7), prediction.proposal_scores)
    model.clip_ensemble = False
    try:
        with pytest.raises(ValueError, match="CLIP_ENSEMBLE True"):
            next(name_masks(model, pictures, VOCABULARY))
    finally:
        model.clip_ensemble = True


def test_scores_are_reported_per_group():
    matrix = np.array([[8, 2, 0], [0, 6, 0], [0, 0, 0]])
    found = grouped_scores(matrix, ["a", "b"], {"seen": [0], "unseen": [1]})
    assert found == pytest.approx({"mIoU": 77.5, "mIoU-seen": 80.0, "mIoU-unseen": 75.0})
