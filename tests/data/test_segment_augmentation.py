"""Segments that get another look: their masks stay, their classes go."""

from __future__ import annotations

import numpy as np
import pytest

from ovseg.data.mappers import semantic_instances
from ovseg.data.segment_augmentation import (
    FREE_LABEL,
    SegmentAugmentation,
    random_shape,
    random_texture,
)
from ovseg.data.transforms import Labelled


def sample():
    labels = np.zeros((40, 60), dtype=np.int32)
    labels[:, 20:40], labels[:, 40:] = 3, 255
    image = np.full((40, 60, 3), 90, dtype=np.uint8)
    image[::2] += 40
    return Labelled(image, labels)


def test_a_changed_segment_keeps_its_mask_and_loses_its_class():
    before = sample()
    after = SegmentAugmentation(changed=1.0, pasted=0)(before, np.random.default_rng(0))
    for label, new in ((0, FREE_LABEL), (3, FREE_LABEL + 1)):
        segment = before.labels == label
        assert (after.labels[segment] == new).all()
        assert (after.image[segment] != before.image[segment]).any()
    ignored = before.labels == 255
    assert (after.labels[ignored] == 255).all()
    assert (after.image[ignored] == before.image[ignored]).all()
    instances = semantic_instances(after.labels, 255)
    assert instances.gt_classes.tolist() == [-1, -1]
    assert instances.gt_masks.sum((1, 2)).tolist() == [800, 800]


def test_pasted_shapes_cover_what_was_there_and_have_no_class():
    before = sample()
    for seed in range(20):
        after = SegmentAugmentation(changed=0.0, pasted=3)(before, np.random.default_rng(seed))
        pasted = after.labels >= FREE_LABEL
        assert (after.labels[~pasted] == before.labels[~pasted]).all()
        assert (after.image[~pasted] == before.image[~pasted]).all()
        numbers = np.unique(after.labels[pasted]) - FREE_LABEL
        assert len(numbers) <= 3 and (numbers < 3).all()
    classes = semantic_instances(after.labels, 255).gt_classes.tolist()
    assert classes == [0, 3, *[-1] * len(numbers)]


def test_a_sample_follows_from_its_generator_and_the_input_stays():
    before, kept = sample(), sample()
    changed = [SegmentAugmentation()(before, np.random.default_rng(7)) for _ in range(2)]
    assert all((a == b).all() for a, b in zip(*changed, strict=True))
    assert (before.image == kept.image).all() and (before.labels == kept.labels).all()


def test_shapes_and_textures_differ_and_shapes_are_never_empty():
    rng = np.random.default_rng(0)
    shapes = [random_shape((32, 48), rng) for _ in range(50)]
    assert all(shape.any() for shape in shapes)
    assert len({shape.tobytes() for shape in shapes}) > 45
    textures = [random_texture((32, 48), rng) for _ in range(20)]
    assert all(texture.shape == (32, 48, 3) for texture in textures)
    assert len({texture.tobytes() for texture in textures}) == 20


@pytest.mark.parametrize("wrong", [{"changed": 1.5}, {"changed": -0.1}, {"pasted": -1}], ids=str)
def test_numbers_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=r"SEGMENT_AUG"):
        SegmentAugmentation(**wrong)
