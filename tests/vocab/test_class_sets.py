from __future__ import annotations

import pytest

from ovseg.vocab.class_sets import ClassSets


@pytest.mark.parametrize(
    ("given", "compared", "pairs"),
    [
        ({"seen": [1, 0]}, {"seen": (0, 1), "unseen": (2,)}, [("seen", "unseen")]),
        ({"unseen": [2]}, {"unseen": (2,), "seen": (0, 1)}, [("unseen", "seen")]),
        # Said by name, though a class is in neither.
        ({"seen": [0], "unseen": [2]}, {"seen": (0,), "unseen": (2,)}, [("seen", "unseen")]),
        ({"base": [0, 1], "novel": [2]}, {"base": (0, 1), "novel": (2,)}, [("base", "novel")]),
        ({"green": [0, 1]}, {"green": (0, 1), "not-green": (2,)}, [("green", "not-green")]),
        (
            {"base": [0], "novel": [1]},
            {"base": (0,), "not-base": (1, 2), "novel": (1,), "not-novel": (0, 2)},
            [("base", "not-base"), ("novel", "not-novel")],
        ),
        ({"all": [0, 1, 2]}, {"all": (0, 1, 2), "not-all": ()}, [("all", "not-all")]),
        ({}, {}, []),
        (None, {}, []),
    ],
)
def test_every_set_has_one_counterpart_which_is_given_or_made(given, compared, pairs):
    sets = ClassSets.make(given, {"odd": [1]}, 3)

    assert sets.compared == compared and list(sets.compared) == list(compared)
    assert sets.pairs == pairs
    assert sets.groups == {"odd": (1,)} and list(sets.all) == [*compared, "odd"]


def test_one_name_for_two_sets_is_refused():
    assert ClassSets.make({"seen": [0]}, {"unseen": [2, 1]}, 3).all["unseen"] == (1, 2)
    with pytest.raises(ValueError, match=r"got 'unseen' for \(1, 2\) and, in class_groups, for"):
        ClassSets.make({"seen": [0]}, {"unseen": [1]}, 3)


def test_ids_that_are_no_classes_are_refused():
    with pytest.raises(ValueError, match=r"0\.\.2 in the set 'seen', got 3"):
        ClassSets.make({"seen": [0, 3]}, None, 3)
