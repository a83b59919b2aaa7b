from __future__ import annotations

import pytest

from ovseg.vocab import Vocabulary, are_trained, class_list, trained_names


@pytest.mark.parametrize(
    ("list_name", "asked", "trained"),
    [
        ("tinyscapes", "tree", True),
        ("tinyscapes", "Tree", True),
        ("tinyscapes", "balloon", False),  # in the list, but not in the training labels
        ("tinyscapes", "palm tree", False),
        ("coco_stuff_171", "traffic  light", True),
        ("coco_stuff_171", "traffic_light", True),
        ("coco_stuff_171", "wall", True),  # wall-brick and others
        ("coco_stuff_171", "wall brick", True),
        ("coco_stuff_171", "brick", False),
        ("coco_stuff_171", "route, road", True),
        ("coco_stuff_171", "moon", False),
    ],
)
def test_names_are_compared_by_their_words(list_name, asked, trained):
    found = are_trained(Vocabulary.make(["zebra crossing", asked]), trained_names(list_name))

    assert found == (False, trained)


def test_a_string_that_stands_for_a_class_counts_too():
    vocabulary = Vocabulary.from_classes(["vehicle", "animal"], listed=[["bus", "car"], ["animal"]])

    assert are_trained(vocabulary, trained_names("coco_stuff_171")) == (True, False)


def test_of_the_miniature_world_the_seen_classes_were_trained():
    found = are_trained(Vocabulary.benchmark("tinyscapes"), trained_names("tinyscapes"))

    assert [index for index, seen in enumerate(found) if seen] == [*class_list("tinyscapes").seen]


def test_an_unknown_list_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"got 'coco'.*coco_stuff_171"):
        trained_names("coco")
