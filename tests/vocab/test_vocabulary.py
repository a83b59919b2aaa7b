from __future__ import annotations

import dataclasses

import pytest

from ovseg.vocab import Vocabulary, templates_by_name


def test_names_are_stripped_and_inserted_whole_by_default():
    vocabulary = Vocabulary.make([" window ", "building, edifice"])
    assert vocabulary.names == ("window", "building, edifice")
    assert vocabulary.prompts == (("window",), ("building, edifice",))
    assert len(vocabulary) == 2
    assert vocabulary.background is None


def test_synonyms_are_split_only_on_request():
    vocabulary = Vocabulary.make(["building, edifice,, building", "sky"], synonyms=",")
    assert vocabulary.names == ("building, edifice,, building", "sky")
    assert vocabulary.prompts == (("building", "edifice"), ("sky",))


def test_background_is_appended_or_marks_the_class_that_is_there():
    assert Vocabulary.make(["cat"], background="others").names == ("cat", "others")
    assert Vocabulary.make(["cat"], background="others").background == 1
    vocabulary = Vocabulary.make(["others", "cat"], background="others")
    assert vocabulary.names == ("others", "cat")
    assert vocabulary.background == 0


def test_the_callers_list_is_not_changed():
    names = ["cat"]
    Vocabulary.make(names, background="others")
    assert names == ["cat"]


def test_the_key_depends_on_everything_and_nothing_else():
    base = Vocabulary.make(["a", "b"])
    assert base.key == Vocabulary.make([" a", "b "]).key
    assert base == Vocabulary.make(["a", "b"])
    others = [
        Vocabulary.make(["b", "a"]),
        Vocabulary.make(["a", "b"], templates="imagenet"),
        Vocabulary.make(["a", "b"], templates=["a {}"]),
        Vocabulary.make(["a"], background="b"),
        dataclasses.replace(base, prompts=(("a", "aa"), ("b",))),
        Vocabulary.make(["a b"]),
    ]
    assert len({vocabulary.key for vocabulary in [base, *others]}) == 1 + len(others)


def test_the_key_is_the_same_in_every_process():
    assert Vocabulary.make(["a"], templates=["{}"]).key.startswith("cf81dc9977")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "at least one class name"),
        (["cat", " "], "non-empty class name .* at position 1"),
        (["cat", "\x1b[31mdog"], r"without control characters, got '\\x1b\[31mdog' at position 1"),
        (["cat", "dog", "cat "], r"unique class names, got 'cat' at positions 0 and 2"),
    ],
)
def test_bad_names_are_refused(names, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.make(names)


def test_a_single_string_is_not_a_list_of_names():
    with pytest.raises(TypeError, match="list of class names, got the single string 'cat'"):
        Vocabulary.make("cat")


def test_inconsistent_parts_are_refused():
    vocabulary = Vocabulary.make(["cat", "dog"])
    with pytest.raises(ValueError, match=r"one tuple of prompts per class \(2\), got 1"):
        dataclasses.replace(vocabulary, prompts=(("cat",),))
    with pytest.raises(ValueError, match="non-empty strings for the class 'dog'"):
        dataclasses.replace(vocabulary, prompts=(("cat",), ()))
    with pytest.raises(ValueError, match=r"background index in 0\.\.1 or None, got 2"):
        dataclasses.replace(vocabulary, background=2)


def test_vild_templates_have_their_exact_punctuation():
    vild = templates_by_name("vild")
    assert len(vild) == 14
    assert vild[0] == "a photo of a {}."
    assert [t for t in vild if not t.endswith(".")] == list(vild[1:5])
    assert vild[3] == "There is the {} in the scene"
    assert vild[6] == "a photo of a medium {}."
    assert vild[13] == "There is a large {} in the scene."
    assert len(set(vild)) == 14


def test_imagenet_templates_are_the_eighty_of_clip():
    imagenet = templates_by_name("imagenet")
    assert len(imagenet) == 80
    assert (imagenet[0], imagenet[-1]) == ("a bad photo of a {}.", "a tattoo of the {}.")
    assert all(template.count("{}") == 1 for template in imagenet)


def test_pacls_templates_are_seven_of_clips_eighty():
    pacl7 = templates_by_name("pacl7")
    assert len(set(pacl7)) == 7 and set(pacl7) < set(templates_by_name("imagenet"))
    assert pacl7[4] == "a {} in a video game."


@pytest.mark.parametrize("templates", [["no place"], ["{} and {}"], []])
def test_templates_need_exactly_one_place(templates):
    with pytest.raises(ValueError, match=r"template"):
        Vocabulary.make(["cat"], templates=templates)


def test_unknown_template_lists_are_refused_with_the_choices():
    with pytest.raises(ValueError, match="valid: vild, imagenet, predefined"):
        Vocabulary.make(["cat"], templates="vidl")


def test_a_mapping_gives_each_name_its_strings_once_each():
    made = Vocabulary.make({" sky ": ["heaven ", "heaven", "sky"], "road": "street"})
    assert made.names == ("sky", "road")
    assert made.prompts == (("heaven", "sky"), ("street",))


def test_a_class_in_a_list_is_named_by_its_first_string():
    made = Vocabulary.make([("sky", "heaven"), "a, b"], synonyms=",", background="others")
    assert made.names == ("sky", "a, b", "others") and made.background == 2
    assert made.prompts == (("sky", "heaven"), ("a", "b"), ("others",))


@pytest.mark.parametrize("rule", ["list", "none"])
def test_a_rule_of_class_lists_is_no_separator(rule):
    assert Vocabulary.make([f"play{rule}"], synonyms=rule).prompts == ((f"play{rule}",),)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"sky", "tree"}, "names in an order.*got a set; write a list"),
        ({"sky": []}, r"a list of strings that stand for it, got \[\] for the class 'sky'"),
        ({"sky": ["heaven", " "]}, "got .* for the class 'sky'"),
        ({"sky": None}, "got None for the class 'sky'"),
        ([["sky", 3]], r"expected a class name or a list of strings .*, got \['sky', 3\]$"),
        ([3], "expected a class name or a list of strings .*, got 3$"),
        ([[]], r"expected a class name or a list of strings .*, got \[\]$"),
    ],
)
def test_what_names_no_class_is_refused(names, message):
    with pytest.raises(TypeError, match=message):
        Vocabulary.make(names)


def test_templates_and_background_of_a_made_vocabulary_can_be_replaced():
    made = Vocabulary.make(["sky", "tree"])
    assert made.with_templates(["{}"]).templates == ("{}",)
    assert made.with_background("others").names == ("sky", "tree", "others")
    assert made.with_background("tree").background == 1
    assert made.with_background("others").with_background("x").names[-1] == "others"
