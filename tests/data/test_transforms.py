from __future__ import annotations

import cv2
import numpy as np
import pytest

from ovseg.data.transforms import (
    PAD_VALUE,
    ColorAugSSD,
    Labelled,
    TrainTransform,
    flip_horizontally,
    pad_to_multiple,
    random_crop,
    random_resized_box,
)
from ovseg.utils.resizing import resize, resize_shortest_edge, resized_shape


def located(height: int, width: int) -> Labelled:
    """A sample whose colours and labels say where each pixel came from."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)
    return Labelled(image, (rows * 100 + columns).astype(np.int32))


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((480, 640), 640, 2560, (640, 853)),
        ((640, 480), 640, 2560, (853, 640)),
        ((100, 1000), 640, 2560, (256, 2560)),
        ((333, 500), 512, 2048, (512, 769)),
        ((3, 2), 1, 100, (2, 1)),  # 1.5 rounds up
        ((7, 7), 0, 5, (7, 7)),
        ((1, 5000), 1, 100, (1, 100)),
    ],
)
def test_shape_after_resizing(size, short: int, longest: int, expected) -> None:
    assert resized_shape(*size, short, longest) == expected


def test_resizing_keeps_the_direction_of_a_gradient() -> None:
    image = np.tile(np.linspace(0, 255, 40).astype(np.uint8)[None, :, None], (20, 1, 3))
    got = resize_shortest_edge(image, 10, 100)
    assert got.shape == (10, 20, 3)
    np.testing.assert_allclose(got[5, :, 0], np.linspace(3, 252, 20), atol=3)


def test_labels_are_picked_not_mixed_and_stay_wide() -> None:
    labels = np.array([[0, 65535], [300, 7]], np.int32)
    got = resize(labels, (4, 6))
    np.testing.assert_array_equal(got, labels.repeat(2, 0).repeat(3, 1))
    assert got.dtype == np.int32


def test_resizing_other_arrays_is_refused() -> None:
    with pytest.raises(ValueError, match=r"uint8 picture or an \(H, W\) integer.*float32"):
        resize(np.zeros((4, 4, 3), np.float32), (2, 2))


def test_crops_cut_picture_and_labels_alike_and_reach_all_corners() -> None:
    sample = located(6, 8)
    corners = set()
    for seed in range(200):
        window = random_crop(sample, (4, 5), np.random.default_rng(seed))
        assert window.image.shape == (4, 5, 3)
        rows, columns = window.image[..., 0].astype(int), window.image[..., 1].astype(int)
        np.testing.assert_array_equal(window.labels, rows * 100 + columns)
        corners.add((int(rows[0, 0]), int(columns[0, 0])))
    assert corners == {(top, left) for top in range(3) for left in range(4)}


def test_a_crop_larger_than_the_picture_is_the_picture() -> None:
    sample = located(3, 8)
    assert random_crop(sample, (5, 5), np.random.default_rng(0)).labels.shape == (3, 5)


def test_crops_avoid_windows_of_one_class() -> None:
    labels = np.zeros((40, 40), np.int32)
    labels[:, 20:] = 1
    sample = Labelled(np.zeros((40, 40, 3), np.uint8), labels)
    crops = [
        random_crop(sample, (10, 10), np.random.default_rng(seed), max_area=0.75).labels
        for seed in range(50)
    ]
    mixed = sum(0.25 <= window.mean() <= 0.75 for window in crops)
    assert mixed > 40


def test_flip_mirrors_both() -> None:
    sample = flip_horizontally(located(2, 3))
    assert sample.labels.tolist() == [[2, 1, 0], [102, 101, 100]]
    assert sample.image[0, :, 1].tolist() == [2, 1, 0]


def test_padding_goes_to_the_bottom_and_right() -> None:
    sample = pad_to_multiple(located(5, 8), 8, 255)
    assert sample.image.shape == (8, 8, 3)
    np.testing.assert_array_equal(sample.labels[:5], located(5, 8).labels)
    assert (sample.image[5:] == PAD_VALUE).all()
    assert (sample.labels[5:] == 255).all()
    assert pad_to_multiple(located(5, 8), -1, 255).labels.shape == (5, 8)


class Scripted:
    """Stands for a generator: coins and numbers as told."""

    def __init__(self, coins: list[int], uniforms: list[float] = (), integers: list[int] = ()):
        self.coins, self.uniforms, self.turns = iter(coins), iter(uniforms), iter(integers)

    def integers(self, low: int, high: int | None = None) -> int:
        return next(self.coins) if high is None else next(self.turns)

    def uniform(self, low: float, high: float) -> float:
        value = next(self.uniforms)
        assert low <= value <= high
        return value


def test_brightness_and_contrast_are_affine_and_clipped() -> None:
    image = np.array([[[10, 100, 250]]], np.uint8)
    color = ColorAugSSD()
    # coins: brightness, contrast first, contrast, saturation, hue
    assert color(image, Scripted([1, 1, 0, 0, 0], [20.0])).tolist() == [[[30, 120, 255]]]
    assert color(image, Scripted([0, 1, 1, 0, 0], [1.5])).tolist() == [[[15, 150, 255]]]
    assert color(image, Scripted([0, 0, 0, 0, 0])).tolist() == image.tolist()


def test_saturation_and_hue_change_only_their_channel() -> None:
    image = np.array([[[200, 100, 100]]], np.uint8)  # hue 0, saturation 127, value 200
    more = ColorAugSSD()(image, Scripted([0, 1, 0, 1, 0], [1.5]))
    assert cv2.cvtColor(more, cv2.COLOR_RGB2HSV)[0, 0].tolist() == pytest.approx(
        [0, 190, 200], abs=1
    )
    turned = ColorAugSSD()(image, Scripted([0, 1, 0, 0, 1], integers=[-10]))
    assert cv2.cvtColor(turned, cv2.COLOR_RGB2HSV)[0, 0].tolist() == pytest.approx(
        [170, 127, 200], abs=1
    )


def test_contrast_may_come_last() -> None:
    image = np.array([[[200, 100, 100]]], np.uint8)
    first = ColorAugSSD()(image, Scripted([0, 1, 1, 1, 0], [1.5, 0.5]))
    last = ColorAugSSD()(image, Scripted([0, 0, 1, 0, 1], [0.5, 1.5]))
    assert first.tolist() != last.tolist()


def test_colour_changes_leave_the_input_and_repeat_with_the_generator() -> None:
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    before = image.copy()
    got = [ColorAugSSD()(image, np.random.default_rng(seed)) for seed in (3, 3, 4)]
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(got[0], got[1])
    assert (got[0] != got[2]).any()


def test_a_training_sample_has_the_fixed_size_and_matching_labels() -> None:
    labels = np.zeros((30, 50), np.int32)
    labels[:, 25:] = 1
    image = np.where(labels[..., None] == 1, 200, 40).astype(np.uint8).repeat(3, axis=-1)
    transform = TrainTransform(
        short_edges=(20, 60), max_size=200, crop_size=(32, 32), size_divisibility=32
    )
    seen = set()
    for seed in range(20):
        sample = transform(Labelled(image, labels), np.random.default_rng(seed))
        assert sample.image.shape == (32, 32, 3)
        inside = sample.labels != 255
        bright = sample.image[..., 0] > 120
        # Only the blurred border between the two may disagree.
        assert (bright != (sample.labels == 1))[inside].mean() < 0.06
        assert (sample.image[~inside] == PAD_VALUE).all()
        seen.add(int(inside.sum()))
    assert seen == {20 * 32, 32 * 32}


def test_range_sampling_includes_both_ends() -> None:
    transform = TrainTransform(short_edges=(4, 6), max_size=99, sampling="range", flip=False)
    heights = {
        transform(located(8, 9), np.random.default_rng(seed)).labels.shape[0] for seed in range(40)
    }
    assert heights == {4, 5, 6}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"short_edges": (), "sampling": "choice"}, "MIN_SIZE_TRAIN"),
        ({"short_edges": (1, 2, 3), "sampling": "range"}, "two ends"),
        ({"short_edges": (1,), "sampling": "any"}, "'choice' or 'range'"),
    ],
)
def test_wrong_options_name_the_config_key(options, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TrainTransform(max_size=10, **options)


def test_a_random_part_has_the_area_and_the_ratio_asked_for():
    rng = np.random.default_rng(0)
    drawn = [random_resized_box((120, 100), rng, scale=(0.5, 1.0)) for _ in range(200)]
    left, top, right, bottom = np.array(drawn).T
    width, height = right - left, bottom - top
    share = width * height / 12000
    assert (left >= 0).all() and (right <= 100).all() and (top >= 0).all() and (bottom <= 120).all()
    assert 0.49 < share.min() < 0.55 and 0.9 < share.max() <= 1
    assert 0.73 < (width / height).min() < 0.8 and 1.1 < (width / height).max() < 1.35


def test_where_no_part_fits_the_largest_centred_one_is_taken():
    rng = np.random.default_rng(0)
    # A strip: nine tenths of it cannot have a ratio of at most 4:3.
    box = random_resized_box((30, 120), rng, scale=(0.9, 1.0))
    assert box == (40, 0, 80, 30)
    with pytest.raises(ValueError, match="scale"):
        random_resized_box((30, 120), rng, scale=(0.9, 0.5))
