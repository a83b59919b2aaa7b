from __future__ import annotations

import math

import numpy as np
import pytest

from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.evaluation.counts import (
    ImageCounts,
    add_up,
    class_counts,
    hash_labels,
    mean_ious,
    read_counts,
    write_counts,
)
from ovseg.evaluation.report import image_rows

K = 6
NAMES = [f"c{k}" for k in range(K)]


def random_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A prediction and a truth over random parts of the classes; one truth in four is ignored."""
    size = tuple(rng.integers(1, 8, 2))
    there = rng.choice(K, rng.integers(1, K), replace=False).tolist()
    truth = rng.choice([255] if rng.random() < 0.25 else [*there, 255], size=size)
    found = rng.choice(K, rng.integers(1, K), replace=False)
    return rng.choice(found, size=size), truth


def pixel_by_pixel(prediction: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """mIoU under both conventions and pixel accuracy, counted one pixel after the other."""
    pixels = [
        (p, t)
        for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True)
        if t != 255
    ]
    ious, mentioned = [], 0
    for k in range(K):
        either = sum(k in pixel for pixel in pixels)
        mentioned += either > 0
        if any(t == k for _, t in pixels):
            ious.append(100 * sum(pixel == (k, k) for pixel in pixels) / either)
    if not pixels:
        return math.nan, math.nan, math.nan
    right = 100 * sum(p == t for p, t in pixels) / len(pixels)
    return sum(ious) / mentioned, sum(ious) / len(ious), right


@pytest.fixture(scope="module")
def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(3)
    return [random_pair(rng) for _ in range(60)]


@pytest.fixture(scope="module")
def images(pairs) -> list[ImageCounts]:
    return [
        ImageCounts.of_matrix(confusion_matrix(p, t, K, 255), labels_hash=hash_labels(t))
        for p, t in pairs
    ]


def test_the_scores_of_each_image_are_those_of_a_pixel_by_pixel_count(pairs, images) -> None:
    rows = image_rows([str(i) for i in range(len(images))], images, NAMES)
    assert sum(math.isnan(row.miou) for row in rows) > 5  # all ignored
    assert any(row.miou < row.miou_gt for row in rows)
    for row, (prediction, truth) in zip(rows, pairs, strict=True):
        got = (row.miou, row.miou_gt, row.accuracy)
        assert got == pytest.approx(pixel_by_pixel(prediction, truth), nan_ok=True)
        assert row.ignored == (truth == 255).sum() and row.pixels == (truth != 255).sum()
        assert row.classes == len(set(truth.ravel().tolist()) - {255})


def test_the_sum_of_sparse_counts_is_the_matrix_of_all_pixels(pairs, images) -> None:
    together = [np.concatenate([pair[i].ravel() for pair in pairs]) for i in (0, 1)]
    expected = confusion_matrix(*together, K, 255)
    np.testing.assert_array_equal(add_up(images, K), expected)
    one = class_counts(images, K)
    np.testing.assert_array_equal(one.true.sum(0), expected[:-1, :-1].sum(0))
    np.testing.assert_array_equal(one.predicted.sum(0), expected[:-1, :-1].sum(1))
    np.testing.assert_array_equal(one.hits.sum(0), expected.diagonal()[:-1])


def test_means_over_chosen_classes_are_those_of_the_scores(images) -> None:
    seen = [0, 2, 5]
    matrix = add_up(images, K)
    expected = scores(matrix, NAMES, class_groups={"seen": seen})
    whole = class_counts([ImageCounts.of_matrix(matrix)], K)
    ours, others = mean_ious(whole, np.isin(np.arange(K), seen))
    assert (ours[0], others[0]) == pytest.approx((expected["mIoU-seen"], expected["mIoU-gt-seen"]))


def test_the_largest_error_is_named_truth_first() -> None:
    truth, prediction = np.array([[0, 0, 0, 1, 255]]), np.array([[2, 2, 0, 0, 4]])
    image = ImageCounts.of_matrix(confusion_matrix(prediction, truth, K, 255))
    assert image_rows(["a"], [image], NAMES)[0].largest_error == "c0 > c2"
    right = ImageCounts.of_matrix(confusion_matrix(truth[:, :4], truth[:, :4], K, 255))
    assert image_rows(["a"], [right], NAMES)[0].largest_error == ""


def test_counts_come_back_from_their_file(images, tmp_path) -> None:
    names = [f"{index} ä.jpg" for index in range(len(images))]
    write_counts(tmp_path / "counts.npz", names, images, K)
    found, num_classes = read_counts(tmp_path / "counts.npz")
    assert num_classes == K and list(found) == names
    for image, back in zip(images, found.values(), strict=True):
        np.testing.assert_array_equal(image.cells, back.cells)
        np.testing.assert_array_equal(image.pixels, back.pixels)


def test_label_hashes_depend_on_content_and_shape_only() -> None:
    labels = np.arange(6).reshape(2, 3)
    assert hash_labels(labels) == hash_labels(np.asfortranarray(labels.astype(np.uint8)))
    assert hash_labels(labels) != hash_labels(labels.reshape(3, 2))
    assert hash_labels(labels) != hash_labels(labels + 256)


def test_no_image_at_all_gives_empty_counts() -> None:
    assert class_counts([], K).hits.shape == (0, K)
    assert add_up([], K).sum() == 0
