from __future__ import annotations

import logging
import unicodedata

import pytest

from ovseg.vocab import Vocabulary

COMPOSED = "caf\u00e9"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


def test_both_forms_of_a_letter_with_an_accent_are_one_name():
    assert DECOMPOSED != COMPOSED
    given = ([DECOMPOSED], [[DECOMPOSED, "bar"]], {DECOMPOSED: DECOMPOSED})
    for names in given:
        assert Vocabulary.make(names).names == (COMPOSED,)
        assert Vocabulary.make(names).prompts[0][0] == COMPOSED
    assert Vocabulary.from_classes([DECOMPOSED]).names == (COMPOSED,)
    assert Vocabulary.make([DECOMPOSED]).key == Vocabulary.make([COMPOSED]).key
    with pytest.raises(ValueError, match=r"unique class names, got 'café' at positions 0 and 1"):
        Vocabulary.make([COMPOSED, DECOMPOSED])


def test_the_background_is_found_in_either_form():
    assert Vocabulary.make(["sky", COMPOSED], background=DECOMPOSED).background == 1


def test_names_that_differ_in_case_alone_are_told(caplog):
    caplog.set_level(logging.WARNING)
    assert Vocabulary.make(["Sky", "sky"]).names == ("Sky", "sky")
    assert "'Sky' and 'sky' differ in upper and lower case only" in caplog.text
    caplog.clear()
    Vocabulary.make(["sky", "Tree"])
    assert caplog.text == ""
