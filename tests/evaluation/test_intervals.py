from __future__ import annotations

import numpy as np
import pytest

from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.evaluation.counts import ImageCounts, class_counts
from ovseg.evaluation.intervals import Bootstrap, percentile_interval, resampled_scores

K = 4
NAMES = list("abcd")


@pytest.fixture(scope="module")
def matrices() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = []
    for index in range(7):
        truth = rng.choice([0, 1, 255] if index else [2, 255], size=(5, 6))  # 3 is never true
        found.append(confusion_matrix(rng.integers(0, K, (5, 6)), truth, K, 255))
    return found


def counts(matrices):
    return class_counts([ImageCounts.of_matrix(m) for m in matrices], K)


def test_every_resample_has_the_scores_of_its_summed_matrices(matrices) -> None:
    bootstrap = Bootstrap(resamples=130, seed=5)  # two chunks
    groups = {"some": [0, 3]}
    got, ious = resampled_scores(counts(matrices), bootstrap, groups)
    rng = np.random.default_rng(5)
    draws = np.concatenate([rng.integers(0, 7, (100, 7)), rng.integers(0, 7, (30, 7))])
    for index in (0, 1, 99, 100, 129):
        expected = scores(
            sum(matrices[i] for i in draws[index]), NAMES, class_groups={"some": [0, 3]}
        )
        for key in ("mIoU", "mIoU-gt", "pACC", "mACC", "fwIoU", "mIoU-some", "mIoU-gt-some"):
            assert got[key][index] == pytest.approx(expected[key], nan_ok=True), key
        for k, name in enumerate(NAMES):
            assert ious[index, k] == pytest.approx(expected[f"IoU-{name}"], nan_ok=True)
    assert np.isnan(ious[:, 3]).all()  # never true
    assert 0 < np.isnan(ious[:, 2]).sum() < 130  # true in one image, which is not always drawn


def test_the_seed_decides_the_draws(matrices) -> None:
    def run(seed):
        return resampled_scores(counts(matrices), Bootstrap(resamples=20, seed=seed))[0]["mIoU"]

    np.testing.assert_array_equal(run(1), run(1))
    assert not np.array_equal(run(1), run(2))


def test_equal_images_leave_no_room_for_chance(matrices) -> None:
    got, _ = resampled_scores(counts([matrices[1]] * 5), Bootstrap(resamples=50))
    low, high = percentile_interval(got["mIoU"])
    assert low == pytest.approx(high) == pytest.approx(scores(matrices[1], NAMES)["mIoU"])


def test_the_interval_narrows_with_more_images(matrices) -> None:
    def width(times):
        got, _ = resampled_scores(counts(matrices * times), Bootstrap(resamples=300))
        low, high = percentile_interval(got["pACC"])
        return high - low

    # Sixteen times the images: a quarter of the width, up to the noise of 300 draws.
    assert width(1) / width(16) == pytest.approx(4, rel=0.35)


def test_percentiles_leave_out_the_same_share_at_both_ends_and_undefined_values() -> None:
    values = np.concatenate([np.arange(101.0), [np.nan]])
    assert percentile_interval(values, 90) == pytest.approx((5.0, 95.0))
    assert percentile_interval(np.array([np.nan])) is None


def test_the_method_is_stated() -> None:
    stated = Bootstrap(resamples=10, seed=3).describe()
    assert stated["resamples"] == 10 and stated["seed"] == 3 and stated["level"] == 95.0
    assert "percentile" in stated["method"] and "images" in stated["method"]
