from __future__ import annotations

import numpy as np
import pytest
import torch

from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.evaluation.confusion import confusion_matrix
from ovseg.modeling import EnsembleSettings
from ovseg.tuning.sweep import (
    CLIP_ONLY,
    MASK_CLASSIFIER_ONLY,
    encode_all,
    grouped_scores,
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
    ("setting", "ensemble"),
    [
        (0.7, EnsembleSettings(weight=0.7)),
        (0.4, EnsembleSettings(weight=0.4)),
        (CLIP_ONLY, EnsembleSettings(weight=0.0)),
        (MASK_CLASSIFIER_ONLY, EnsembleSettings(use_clip=False)),
    ],
)
def test_a_swept_setting_counts_what_the_model_set_so_predicts(
    model, loader, monkeypatch, setting, ensemble
):
    pictures = list(encode_all(model, loader))
    swept = [sweep(model, picture, VOCABULARY, [0.9, setting]) for picture in pictures]
    monkeypatch.setattr(model, "ensemble", ensemble)
    for counts, batch, picture in zip(swept, loader, pictures, strict=True):
        [prediction] = model.predict(batch, VOCABULARY)
        labels = prediction.labels().numpy()
        expected = confusion_matrix(labels, picture.labels, 3, 255)
        assert expected.sum() == labels.size
        np.testing.assert_array_equal(counts[setting], expected)


def test_regions_are_encoded_once_for_all_settings_of_a_threshold(model, loader, monkeypatch):
    picture = next(encode_all(model, loader))
    assert not picture.encoding.regions  # nothing is encoded before it is asked for
    calls = []
    visual = model.clip_adapter.clip_model.visual
    forward = visual.forward
    monkeypatch.setattr(
        visual, "forward", lambda *args: calls.append(len(args[0])) or forward(*args)
    )
    sweep(model, picture, VOCABULARY, [0.3, 0.7, CLIP_ONLY, MASK_CLASSIFIER_ONLY])
    valid = int(picture.encoding.regions[model.ensemble.mask_threshold].valid.sum())
    assert sum(calls) == valid > 0
    sweep(model, picture, VOCABULARY, [0.7], threshold=0.6)
    assert sum(calls) > valid and set(picture.encoding.regions) == {0.4, 0.6}


def test_scores_are_reported_per_group():
    matrix = np.array([[8, 2, 0], [0, 6, 0], [0, 0, 0]])
    found = grouped_scores(matrix, ["a", "b"], {"seen": [0], "unseen": [1]})
    assert found == pytest.approx({"mIoU": 77.5, "mIoU-seen": 80.0, "mIoU-unseen": 75.0})
