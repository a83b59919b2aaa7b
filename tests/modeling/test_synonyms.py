from __future__ import annotations

import pytest

from ovseg.d2.data import MetadataCatalog
from tests.modeling.tiny import tiny_model

NAME = "synonyms_test_set"
INPUTS = [{"meta": {"dataset_name": NAME}}]
NAMES = ["background", "building, edifice", "sky"]


@pytest.fixture
def model(request):
    MetadataCatalog.get(NAME).set(
        stuff_classes=NAMES,
        background_class=0,
        class_synonyms=[["wall ", "tree"], ["building, edifice"], ["sky"]],
    )
    yield tiny_model(MODEL__CLIP_ADAPTER__SYNONYMS=request.param)
    MetadataCatalog.remove(NAME)


@pytest.mark.parametrize(
    ("model", "prompts"),
    [
        ("list", (("wall", "tree"), ("building, edifice",), ("sky",))),
        ("none", (("background",), ("building, edifice",), ("sky",))),
        (",", (("background",), ("building", "edifice"), ("sky",))),
    ],
    indirect=["model"],
)
def test_the_rule_decides_what_stands_for_a_class(model, prompts):
    vocabulary = model.find_vocabulary(INPUTS)
    assert vocabulary.prompts == prompts
    assert vocabulary.names == tuple(NAMES) and vocabulary.background == 0


def test_a_word_that_is_no_rule_is_not_taken_for_a_separator():
    with pytest.raises(ValueError, match=r"SYNONYMS: expected one of .* got 'lists'"):
        tiny_model(MODEL__CLIP_ADAPTER__SYNONYMS="lists")
