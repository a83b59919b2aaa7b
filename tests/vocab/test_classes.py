from __future__ import annotations

import hashlib

import pytest

from ovseg.vocab import Vocabulary, class_list, class_list_names

# Number of classes, and the sha256 of the names joined by "|" (first digits): exact strings and
# order decide over parity.
LISTS = {
    "ade20k_150": (150, "fa44c03b3b61"),
    "ade20k_847": (847, "07b58ec905db"),
    "cityscapes_19": (19, "701092ce9cfa"),
    "coco_object_81": (81, "8571f610124d"),
    "coco_stuff_171": (171, "780b0c96a969"),
    "loveda": (7, "c321b9b573a7"),
    "pascal_context_459": (459, "c8ca0280d6d1"),
    "pascal_context_59": (59, "dca557683f28"),
    "pascal_context_60": (60, "a6d933eb23de"),
    "pascal_voc_20": (20, "960213e4b03a"),
    "pascal_voc_21": (21, "2e52d3eb8da9"),
    "tinyscapes": (50, "35662e72159d"),
    "vaihingen": (6, "598eaa8c9ed3"),
}


@pytest.mark.parametrize("name", LISTS)
def test_lists_have_exactly_the_released_strings(name):
    count, digest = LISTS[name]
    classes = class_list(name)
    assert len(classes) == count
    assert hashlib.sha256("|".join(classes.names).encode()).hexdigest()[:12] == digest
    assert classes.train_ids == tuple(range(count))
    assert classes.ids is None or len(set(classes.ids)) == count


def test_every_shipped_list_is_tested():
    assert class_list_names() == tuple(LISTS)


def test_known_facts_hold():
    assert class_list("ade20k_150").names[8] == "window "
    assert sum("," in n for n in class_list("ade20k_150").names) == 41
    assert sum("," in n for n in class_list("ade20k_847").names) == 217
    assert class_list("pascal_context_459").names[430] == "unknown"
    coco = class_list("coco_stuff_171")
    assert (min(coco.ids), max(coco.ids)) == (1, 182)
    # 182 ids, of which 11 are not used.
    unused = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91}
    assert set(coco.ids) == set(range(1, 183)) - unused
    assert "wall-concrete" in coco.names
    assert class_list("ade20k_847").ids[:2] == (2978, 312)


def test_a_list_that_says_what_training_does_not_show_tells_four_groups_apart():
    tiny = class_list("tinyscapes")
    assert tiny.seen == tuple(range(31)) and tiny.unseen == tuple(range(31, 50))
    assert {name: len(ids) for name, ids in tiny.groups.items()} == {
        "seen_things": 24,
        "unseen_things": 12,
        "seen_stuff": 7,
        "unseen_stuff": 7,
    }
    assert [tiny.names[i] for i in tiny.groups["unseen_stuff"][:2]] == ["snow", "fence"]
    others = class_list("vaihingen")
    assert others.seen == others.train_ids and others.groups == {} and others.stuff is None


def test_benchmarks_become_vocabularies():
    ade = Vocabulary.benchmark("ade20k_150")
    assert ade.names[8] == "window"
    assert ade.prompts[6] == ("road, route",)
    assert Vocabulary.benchmark("ade20k_150", synonyms=",").prompts[6] == ("road", "route")
    voc = Vocabulary.benchmark("pascal_voc_21", templates="imagenet")
    assert voc.background == 0
    assert voc.names[:2] == ("background", "aeroplane")
    assert len(voc.prompts[0]) == 26
    assert len(voc.templates) == 80
    assert Vocabulary.benchmark("pascal_voc_20").background is None


def test_all_lists_become_vocabularies():
    for name in class_list_names():
        assert len(Vocabulary.benchmark(name)) == len(class_list(name))


def test_unknown_lists_are_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"got 'ade20k'; valid: ade20k_150, ade20k_847"):
        class_list("ade20k")
