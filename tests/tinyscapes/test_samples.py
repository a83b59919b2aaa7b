"""The scenes that are shown: drawn by lot, whatever a model makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ovseg.readers.pictures import read_image
from ovseg.tinyscapes import mentioned_classes, render_scene, sample_scenes, write_samples


def test_the_lot_is_that_of_the_seed() -> None:
    assert sample_scenes() == [41, 394, 430, 776, 864, 911]
    ten = sample_scenes(10, seed=1)
    assert len(set(ten)) == 10 and ten == sorted(ten) and max(ten) < 1000
    assert sample_scenes(10, seed=1) == ten != sample_scenes(10, seed=2)


@pytest.mark.parametrize(
    ("captions", "classes"),
    [
        (["Two Parasols by the ocean."], ["umbrella", "sea"]),
        (["a snowman in the snow", "the snow"], ["snowman", "snow"]),
        (["three fish, a red coach and some cacti"], ["fish", "bus", "cactus"]),
        (["a bluebird house", "nothing"], ["house"]),
    ],
)
def test_classes_are_mentioned_by_any_of_their_nouns(
    captions: list[str], classes: list[str]
) -> None:
    assert mentioned_classes(captions) == classes


def test_samples_are_written_and_others_removed(tmp_path: Path) -> None:
    (tmp_path / "scene_0001.jpg").write_bytes(b"of another lot")
    (tmp_path / "mine.jpg").write_bytes(b"not a scene")
    [file] = write_samples(tmp_path, [7])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.jpg", "scene_0007.jpg"]
    difference = np.abs(read_image(file).astype(int) - render_scene("test", 7).image)
    assert difference.mean() < 12
