from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ovseg.modeling.views.dense_crf import (
    CRFSettings,
    DenseCRF,
    has_dense_crf,
    refine_by_mean_field,
    refine_scores,
)
from ovseg.modeling.views.mean_field import PermutohedralLattice
from ovseg.utils.images import write_png
from tests.modeling.tiny import FixedScores, vocabulary


@pytest.fixture
def scene():
    """A picture, red left and blue right of column 20, and scores that turn at column 16."""
    image = np.zeros((24, 40, 3), np.uint8)
    image[:, :20, 0] = image[:, 20:, 2] = 230
    scores = torch.zeros(3, 24, 40)
    scores[0, :, :16] = 1.0
    scores[1, :, 16:] = 1.0
    return image, scores


@pytest.fixture
def crf():
    return pytest.importorskip("pydensecrf.densecrf", reason="needs the extra crf")


def mean_field(image, scores):
    """The same inference with every pair of pixels written out."""
    classes, height, width = scores.shape
    rows, columns = np.mgrid[:height, :width].reshape(2, -1).astype(np.float64)
    place = np.stack([rows, columns], 1)
    colour = image.reshape(-1, 3).astype(np.float64)

    def kernel(features):
        distance = ((features[:, None] - features[None]) ** 2).sum(-1)
        values = np.exp(-distance / 2)
        np.fill_diagonal(values, 1.0)
        norm = 1 / np.sqrt(values.sum(1) + 1e-20)
        return norm[:, None] * values * norm[None]

    near = kernel(place / 3)
    alike = kernel(np.concatenate([place / 80, colour / 13], 1))
    unary = torch.log_softmax(scores, 0).reshape(classes, -1).numpy()
    belief = np.exp(unary - unary.max(0))
    belief /= belief.sum(0)
    for _ in range(5):
        energy = unary + 3 * belief @ near + 10 * belief @ alike
        belief = np.exp(energy - energy.max(0))
        belief /= belief.sum(0)
    return belief.reshape(scores.shape)


def test_labels_move_to_the_edge_in_the_picture(crf, scene):
    image, scores = scene
    refined = refine_scores(image, scores)
    assert refined.shape == scores.shape and refined.dtype == torch.float32
    torch.testing.assert_close(refined.sum(0), torch.ones(24, 40))
    labels = refined.argmax(0)
    assert (labels[:, :20] == 0).all() and (labels[:, 20:] == 1).all()


def test_it_agrees_with_mean_field_inference_over_all_pairs(crf, scene):
    image, scores = scene
    noise = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))
    scores = 0.1 * scores + 0.3 * noise
    image = image.copy()
    image[:, :10, 1] = 60
    found, expected = refine_scores(image, scores).numpy(), mean_field(image, scores)
    # The lattice that makes it fast is an approximation.
    assert np.abs(found - expected).mean() < 0.05
    assert (found.argmax(0) == expected.argmax(0)).mean() > 0.95


@pytest.fixture
def noisy(scene):
    image, scores = scene
    noise = torch.rand(scores.shape, generator=torch.Generator().manual_seed(0))
    image = image.copy()
    image[:, :10, 1] = 60
    return image, 0.1 * scores + 0.3 * noise


def test_without_the_package_the_inference_is_the_same(crf, noisy):
    for settings in (CRFSettings(), CRFSettings(10, 3, 7, 50, 5, 10)):
        found, expected = refine_by_mean_field(*noisy, settings), refine_scores(*noisy, settings)
        assert found.shape == expected.shape and found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)


def test_our_own_inference_agrees_with_all_pairs(noisy):
    found, expected = refine_by_mean_field(*noisy).numpy(), mean_field(*noisy)
    np.testing.assert_allclose(found.sum(0), 1, rtol=1e-5)
    assert np.abs(found - expected).mean() < 0.05
    assert (found.argmax(0) == expected.argmax(0)).mean() > 0.95


def test_without_pairwise_terms_our_own_inference_leaves_the_scores(noisy):
    settings = CRFSettings(smooth_weight=0, colour_weight=0)
    torch.testing.assert_close(
        refine_by_mean_field(*noisy, settings), noisy[1].softmax(0), rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize("dimensions", [1, 2, 5])
def test_the_lattice_filters_like_a_gaussian(dimensions):
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 3, (400, dimensions))
    values = rng.uniform(0, 1, (400, 2)).astype(np.float32)
    lattice = PermutohedralLattice(points)
    found = lattice(values) / lattice(np.ones((400, 1), np.float32))
    weights = np.exp(-((points[:, None] - points[None]) ** 2).sum(-1) / 2)
    expected = weights @ values / weights.sum(1, keepdims=True)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.95
    assert np.abs(found - expected).max() < 0.1


def test_whether_the_package_is_there_can_be_asked(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    assert not has_dense_crf()


def test_scores_of_another_size_are_refused(scene):
    image, scores = scene
    for refine in (refine_scores, refine_by_mean_field):
        with pytest.raises(ValueError, match=r"\(24, 40\), got \(24, 39\)"):
            refine(image, scores[..., 1:])


@pytest.mark.parametrize("output", ["labels", "sem_seg"])
def test_the_view_refines_on_the_file(crf, scene, tmp_path, output):
    image, scores = scene
    write_png(tmp_path / "scene.png", image)
    refined = DenseCRF(FixedScores(scores, output=output))
    inputs = {"image": torch.zeros(3, 12, 20), "height": 24, "width": 40}
    [result] = refined([inputs | {"file_name": str(tmp_path / "scene.png")}], vocabulary("a", "b"))
    expected = refine_scores(image, scores)
    torch.testing.assert_close(
        result[output], expected.argmax(0) if output == "labels" else expected
    )


def test_pixels_that_the_model_leaves_blank_stay_blank(monkeypatch, scene):
    image, scores = scene
    monkeypatch.setattr("ovseg.modeling.views.dense_crf.require_dense_crf", lambda: None)
    monkeypatch.setattr("ovseg.modeling.views.dense_crf.refine_scores", lambda _, scores: scores)
    blank = torch.zeros(24, 40, dtype=torch.bool)
    blank[3:7] = True
    refined = DenseCRF(FixedScores(scores, blank=blank))
    picture = torch.from_numpy(image).permute(2, 0, 1)
    [prediction] = refined.predict([{"image": picture}], vocabulary("a", "b"))
    assert torch.equal(prediction.labels(blank=-1) == -1, blank)


def test_without_the_package_the_error_names_the_extra(monkeypatch, scene):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(ImportError, match=r"ovseg\[crf\].*C\+\+ compiler"):
        DenseCRF(FixedScores(scene[1]))
