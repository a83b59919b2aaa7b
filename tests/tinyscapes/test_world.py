"""The classes of the miniature world and the pictures drawn of them."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest

from ovseg.tinyscapes import (
    ALL_NAMES,
    CLASSES,
    SEEN_NAMES,
    SPLITS,
    render_pair,
    render_scene,
    scene_groups,
)
from ovseg.tinyscapes.captions import plural, with_article
from ovseg.tinyscapes.scenes import compose, picture_stream
from ovseg.tinyscapes.shapes import Outline, box, fill, part
from ovseg.tinyscapes.textures import TILES_PER_CLASS, texture_tile
from ovseg.tinyscapes.things import thing_outline
from ovseg.tinyscapes.world import CONTEXT_BIAS, STUFF_IDS, THING_IDS
from ovseg.vocab import Vocabulary


def test_world_has_the_promised_number_of_classes_seen_ones_first() -> None:
    groups = scene_groups()
    sizes = {name: len(ids) for name, ids in groups.items()}
    assert sizes == {"seen_things": 24, "unseen_things": 12, "seen_stuff": 7, "unseen_stuff": 7}
    assert sorted(i for ids in groups.values() for i in ids) == list(range(len(CLASSES)))
    assert ALL_NAMES[: len(SEEN_NAMES)] == SEEN_NAMES
    assert max(groups["seen_things"] + groups["seen_stuff"]) == len(SEEN_NAMES) - 1


def test_the_class_list_of_the_world_is_a_vocabulary_like_any_other() -> None:
    assert Vocabulary.benchmark("tinyscapes") == Vocabulary.make(ALL_NAMES)


def test_every_noun_names_one_class_only() -> None:
    nouns = [noun for c in CLASSES for noun in c.nouns]
    assert len(nouns) == len(set(nouns))
    assert 70 <= len(nouns) <= 100


def test_every_thing_has_a_usual_ground_that_is_stuff() -> None:
    stuff = {CLASSES[i].name for i in STUFF_IDS}
    for i in THING_IDS:
        assert CLASSES[i].grounds
        assert set(CLASSES[i].grounds) <= stuff
    assert {g for i in THING_IDS for g in CLASSES[i].grounds} == stuff


@pytest.mark.parametrize("split", SPLITS)
def test_scene_has_consistent_truth(split: str) -> None:
    for index in range(8):
        scene = render_scene(split, index)
        height, width = scene.labels.shape
        assert scene.image.shape == (height, width, 3) and scene.image.dtype == np.uint8
        assert scene.labels.dtype == np.uint8 and scene.labels.max() < len(CLASSES)
        assert len(scene.captions) == 5
        assert 1 <= len(scene.instances) <= 5
        covered = np.zeros((height, width), int)
        for class_id, mask in scene.instances:
            assert CLASSES[class_id].kind == "thing"
            assert (scene.labels[mask] == class_id).all()
            covered += mask
        assert covered.max() == 1  # masks show what is visible, so they never overlap
        grounds = set(np.unique(scene.labels)) & set(STUFF_IDS)
        assert 1 <= len(grounds) <= 3


def test_scene_depends_on_split_and_index_only() -> None:
    first = render_scene("train", 7)
    render_scene("val", 3)
    random.random(), np.random.rand()
    again = render_scene("train", 7)
    assert (first.image == again.image).all() and (first.labels == again.labels).all()
    assert first.captions == again.captions
    other = render_scene("val", 7)
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


def test_pair_is_a_square_picture_with_a_sentence() -> None:
    image, caption = render_pair(5)
    again, same = render_pair(5)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert (image == again).all() and caption == same
    assert render_pair(5, size=48)[0].shape == (48, 48, 3)
    assert render_pair(5, size=48)[1] == caption


def test_unknown_split_and_negative_index_are_refused() -> None:
    with pytest.raises(ValueError, match="train, val, test, got 'trian'"):
        render_scene("trian", 0)
    with pytest.raises(ValueError, match="index >= 0, got -1"):
        render_pair(-1)


def test_all_classes_occur_in_labels_and_captions() -> None:
    labels: set[int] = set()
    words: set[str] = set()
    for index in range(220):
        rng = picture_stream("scene", "train", index)
        labels |= set(np.unique(compose(rng, "train").labels()).tolist())
        words |= set(re.findall("[a-z]+", render_pair(index)[1].lower()))
    assert labels == set(range(len(CLASSES)))
    singular = {c.name for c in CLASSES if words & {*c.nouns, *map(plural, c.nouns)}}
    assert len(singular) >= len(CLASSES) - 3


def test_things_lean_on_their_usual_grounds_but_not_always() -> None:
    things = [
        t for i in range(150) for t in compose(picture_stream("scene", "val", i), "val").things
    ]
    usual = np.mean([CLASSES[t.ground].name in CLASSES[t.class_id].grounds for t in things])
    assert abs(usual - CONTEXT_BIAS) < 0.1


def test_pixels_of_a_class_are_common_enough_to_learn() -> None:
    counts = np.zeros(len(CLASSES))
    for index in range(150):
        labels = compose(picture_stream("scene", "test", index), "test").labels()
        counts += np.bincount(labels.ravel(), minlength=len(CLASSES))
    share = counts / counts.sum()
    assert share[list(THING_IDS)].min() > 0.0004
    assert share[list(STUFF_IDS)].min() > 0.008


def test_splits_share_neither_tiles_nor_outlines() -> None:
    for name in ("sky", "gravel", "carpet"):
        tiles = {texture_tile(s, name, n).tobytes() for s in SPLITS for n in range(TILES_PER_CLASS)}
        assert len(tiles) == len(SPLITS) * TILES_PER_CLASS
    outlines = {thing_outline(s, "car", n).points.tobytes() for s in SPLITS for n in range(4)}
    assert len(outlines) == 12


def test_outline_places_points_and_keeps_holes() -> None:
    frame = Outline([part("main", box(-1, -1, 1, 1), box(-0.5, -0.5, 0.5, 0.5))])
    canvas = np.zeros((21, 21), np.uint8)
    (contours,) = frame.place(np.array([[8, 0], [0, 8]], np.float32), (10, 10))
    fill(canvas, contours, 3, smooth=False)
    assert canvas[10, 10] == 0 and canvas[10, 3] == 3 and canvas[0, 0] == 0
    assert canvas[2, 2] == 3 and canvas[18, 18] == 3


def test_unknown_colour_role_is_refused_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"'mian'; valid: main, shade"):
        part("mian", box(0, 0, 1, 1))


@pytest.mark.parametrize(
    ("noun", "expected"),
    [("car", "cars"), ("bus", "buses"), ("butterfly", "butterflies"), ("fish", "fish"),
     ("cactus", "cacti"), ("snowman", "snowmen"), ("oak", "oaks"), ("coach", "coaches")],
)  # fmt: skip
def test_plurals_are_written_as_people_write_them(noun: str, expected: str) -> None:
    assert plural(noun) == expected


def test_article_follows_the_next_letter() -> None:
    assert with_article("orange bus") == "an orange bus"
    assert with_article("red umbrella") == "a red umbrella"


def test_captions_vary_and_name_what_is_there() -> None:
    nouns = {n: i for i, c in enumerate(CLASSES) for n in (*c.nouns, plural(c.name))}
    nouns |= {plural(n): i for i, c in enumerate(CLASSES) if c.kind == "thing" for n in c.nouns}
    for index in range(40):
        scene = render_scene("train", index)
        assert len(set(scene.captions)) >= 3
        present = set(np.unique(scene.labels).tolist())
        for caption in scene.captions:
            named = {nouns[w] for w in re.findall("[a-z]+", caption.lower()) if w in nouns}
            assert named and named <= present, caption
