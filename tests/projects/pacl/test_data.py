from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg.config import load_cfg
from ovseg.data.mappers import build_train_mapper
from ovseg.projects.pacl.data import PACLMapper, text_number
from ovseg.readers.pictures import ImageError
from ovseg.vocab import templates_by_name

CAPTIONS = ("A red bus beside a tree.", "two dogs run")


@pytest.fixture
def mapper(tmp_path):
    """Makes a mapper whose training set is one picture with two captions."""
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    (tmp_path / "p.txt").write_text("\n".join(CAPTIONS))

    def make(*opts) -> PACLMapper:
        words = ["DATASETS.TRAIN", f"('{tmp_path}',)", "INPUT.PACL.SIZE", "32", *map(str, opts)]
        return build_train_mapper(load_cfg("pacl_tiny", words))

    return make


@pytest.fixture
def record(mapper):
    [whole] = mapper().records
    return whole | {"captions": CAPTIONS[:1]}


def draw(made, record, position=0):
    return made(record, np.random.default_rng(position))


def test_a_caption_and_a_prompt_of_one_of_its_nouns_go_with_the_picture(mapper, record):
    samples = [draw(mapper(), record, i) for i in range(20)]
    assert {sample["texts"][0] for sample in samples} == {CAPTIONS[0]}
    prompts = {t.replace("{}", n) for t in templates_by_name("pacl7") for n in ("bus", "tree")}
    drawn = {sample["texts"][1] for sample in samples}
    assert drawn < prompts and len(drawn) > 5
    assert {tuple(sample["text_nouns"]) for sample in samples} == {("", "bus"), ("", "tree")}
    assert samples[0]["mentioned"] == ["bus", "tree"]
    assert samples[0]["image"].shape == (3, 32, 32) and samples[0]["image"].dtype == torch.uint8
    assert "image" not in record


def test_the_caption_is_drawn_and_nouns_of_all_captions_are_known(mapper, record):
    sample = [draw(mapper(), record | {"captions": CAPTIONS}, i) for i in range(10)]
    assert {s["texts"][0] for s in sample} == set(CAPTIONS)
    assert sample[0]["mentioned"] == ["bus", "dog", "tree"]
    plural = draw(mapper("INPUT.PACL.LEMMA", False), record | {"captions": CAPTIONS[1:]})
    assert plural["mentioned"] == ["dogs"]


def test_there_are_as_many_texts_whatever_the_caption(mapper, record):
    made = mapper("INPUT.PACL.NOUN_PROMPTS", 3)
    few, none = draw(made, record), draw(made, record | {"captions": ("it is so very",)})
    assert len(few["texts"]) == len(none["texts"]) == 4
    assert set(few["text_nouns"][1:]) == {"bus", "tree"}
    assert none["texts"] == ["it is so very"] * 4 and none["text_nouns"] == [""] * 4
    only = draw(mapper("INPUT.PACL.CAPTION", False), record)
    assert len(only["texts"]) == 1 and only["text_nouns"] != [""]


def test_a_sample_follows_from_its_generator(mapper, record):
    first, again, other = (draw(mapper(), record, i) for i in (1, 1, 2))
    assert first["texts"] == again["texts"] and torch.equal(first["image"], again["image"])
    assert not torch.equal(first["image"], other["image"])


def test_what_cannot_be_used_is_refused(mapper, record):
    with pytest.raises(ValueError, match=r"INPUT.PACL: .*no text"):
        mapper("INPUT.PACL.CAPTION", False, "INPUT.PACL.NOUN_PROMPTS", 0)
    with pytest.raises(ImageError, match="no such file"):
        draw(mapper(), record | {"file_name": "gone.png"})


def test_numbers_of_texts_are_positive_and_do_not_depend_on_the_process():
    assert text_number("bus") == text_number("bus") != text_number("tree")
    assert 0 < text_number("bus") < 2**63
    assert text_number("bus") == 3338079723948553753
