from __future__ import annotations

import random
from pathlib import Path

import pytest

from ovseg.mining.inflection import singular
from ovseg.mining.nouns import (
    DEFAULT_STOP_WORDS,
    CaptionError,
    NounConfig,
    NounExtractor,
    merge_nouns,
)
from ovseg.mining.taggers import make_tagger, tag_tokens, tokenize

# Sentences as COCO's annotators write them, with the nouns that a person finds in them.
SENTENCES = {
    "A man riding a wave on top of a surfboard.": "man wave surfboard",
    "Two dogs playing with a frisbee in the grass.": "dog frisbee grass",
    "A woman is holding an umbrella while walking down the street.": "woman umbrella street",
    "A cat laying on top of a laptop computer.": "cat laptop computer",
    "A bathroom with a toilet, sink and bathtub.": "bathroom toilet sink bathtub",
    "Three giraffes standing next to each other in a field.": "giraffe field",
    "A baseball player swinging a bat at a ball.": "baseball player bat ball",
    "A young boy brushing his teeth in front of a mirror.": "boy tooth mirror",
    "A plate of food with broccoli and carrots on it.": "plate food broccoli carrot",
    "Several zebras grazing in a grassy meadow.": "zebra meadow",
    "A teddy bear sitting on a wooden chair.": "teddy bear chair",
    "A black and white photo of a clock tower.": "clock tower",
    "A bunch of bananas hanging from a tree.": "banana tree",
    "An airplane parked on the runway at an airport.": "airplane runway airport",
    "A person on skis going down a snowy slope.": "person ski slope",
    "A bowl of oranges sits on the kitchen counter.": "bowl orange kitchen counter",
    "A vase filled with flowers on a windowsill.": "vase flower windowsill",
    "A fire hydrant on the side of the road.": "fire hydrant road",
    "The motorcycle is parked beside the curb.": "motorcycle curb",
    "Men playing a video game in the living room.": "man video game room",
    "A stop sign at the corner of an intersection.": "stop sign intersection",
    "A desk with a keyboard, mouse, and monitor.": "desk keyboard mouse monitor",
    "A horse pulling a carriage with tourists.": "horse carriage tourist",
    "Children flying kites on a sandy beach.": "child kite beach",
    "A sheep standing in the snow near a fence.": "sheep snow fence",
    "A bed with white sheets and pillows.": "bed sheet pillow",
    "A boat floating on a lake with mountains in the background.": "boat lake mountain",
    "A man wearing a tie and glasses looking at his phone.": "man tie glasses phone",
    "A pair of scissors sitting on a table.": "scissors table",
    "Surfers wait for waves in the ocean.": "surfer wave ocean",
    "The woman cuts a sandwich with a knife.": "woman sandwich knife",
    "Cows graze near a barn under a cloudy sky.": "cow barn sky",
    "Some sheep and a goose are by the pond.": "sheep goose pond",
    "People are skiing down the mountain.": "person mountain",
    "A close up of a bird perched on a branch.": "bird branch",
    "Traffic lights hang over the busy street.": "traffic light street",
    "A MAN STANDING NEXT TO A HORSE": "man horse",
    "A Street Sign On A Pole": "street sign pole",
    "an oak, a blossom and a duck.": "oak blossom duck",
    "cacti and snowmen by the bus": "cactus snowman bus",
    "It's a man's dog; they don't run. A goat sleeps.": "man dog goat",
}


@pytest.fixture(scope="module")
def singulars() -> NounExtractor:
    return NounExtractor(NounConfig(tagger="textblob", lemma=True))


def texts(caption: str, **settings) -> list[str]:
    nouns = NounExtractor(NounConfig(tagger="textblob", **settings)).extract(caption)
    return [noun.text for noun in nouns]


@pytest.mark.parametrize("caption", SENTENCES)
def test_nouns_of_captions_as_people_write_them(singulars, caption):
    assert [noun.text for noun in singulars.extract(caption)] == SENTENCES[caption].split()


def test_spans_point_at_the_words_in_the_caption(singulars):
    caption = "  Two Geese, and\ta T-shirt near 3 geese."

    nouns = singulars.extract(caption)

    assert [(noun.lemma, caption[noun.start : noun.end]) for noun in nouns] == [
        ("goose", "Geese"),
        ("t-shirt", "T-shirt"),
    ]


def test_by_default_nouns_stay_as_they_are_written_and_carry_their_lemma():
    nouns = NounExtractor(NounConfig(tagger="textblob")).extract("Buses and a bus")

    assert [(noun.text, noun.lemma) for noun in nouns] == [("buses", "bus"), ("bus", "bus")]


def test_case_is_kept_on_request():
    caption = "a photo of the blue Cars and a HORSE by the wall of my house"

    assert texts(caption, lower=False, lemma=True, proper=True)[:2] == ["Car", "HORSE"]
    assert texts(caption, lemma=True, proper=True)[:2] == ["car", "horse"]


def test_proper_nouns_are_left_out_unless_asked_for():
    caption = "a man named Obama at the gate of the old town"

    assert "obama" not in texts(caption)
    assert "obama" in texts(caption, proper=True)


def test_phrases_take_adjectives_and_compounds_but_not_counts():
    caption = "Several big zebras near a closed wooden  fence in the living room, a stop sign"

    nouns = NounExtractor(NounConfig(tagger="textblob", phrases=True)).extract(caption)

    assert [(noun.text, noun.lemma) for noun in nouns] == [
        ("big zebras", "big zebra"),
        ("closed wooden fence", "closed wooden fence"),
        ("living room", "living room"),
        ("stop sign", "stop sign"),
    ]
    assert caption[nouns[1].start : nouns[1].end] == "closed wooden  fence"
    assert texts("cats " * 30, phrases=True) == ["cats cats cats cats cats cats"]


def test_generic_words_are_left_out_unless_the_list_is_emptied():
    caption = "a photo of the front of a castle in the background"

    assert texts(caption) == ["castle"]
    assert texts(caption, stop_words=()) == ["photo", "front", "castle", "background"]
    assert texts(caption, stop_words=(*DEFAULT_STOP_WORDS, "castle")) == []
    assert texts("images of cars") == ["cars"]


def test_a_table_of_concreteness_filters_and_names_itself(tmp_path: Path):
    table = tmp_path / "ratings.tsv"
    table.write_text("Word\tBigram\tConc.M\nfreedom\t0\t1.5\ncar\t0\t4.9\n", encoding="utf-8")
    settings = NounConfig(tagger="textblob", concreteness=str(table), min_concreteness=3.0)
    extractor = NounExtractor(settings)

    assert [n.text for n in extractor.extract("the freedom of cars and zorbs")] == ["cars", "zorbs"]
    assert extractor.name.endswith("+ratings.tsv@" + extractor.name[-8:])

    table.write_text("Word,Conc.M\ncar,high\n", encoding="utf-8")
    with pytest.raises(ValueError, match="line 2: expected a word and a number"):
        NounExtractor(settings)


@pytest.mark.parametrize(
    ("caption", "text"),
    [
        (None, "is null"),
        (float("nan"), "is null"),
        ("", "is empty"),
        (" \n\t", "is empty"),
        ("a cat \ud83d", "half a character"),
        ("word " * 10_000, "has 50000 characters, the limit is 2000"),
    ],
)
def test_captions_that_cannot_be_used_say_why(singulars, caption, text):
    with pytest.raises(CaptionError, match=text):
        singulars.extract(caption)


@pytest.mark.parametrize(
    "caption",
    [
        "🐶🐶 🎉",
        "123 747 x",
        "一只猫在草地上",
        "....",
        "http://cats.org/dog.jpg",
        "and or but",
        "'s",
    ],
)
def test_captions_without_english_nouns_give_none(singulars, caption):
    assert singulars.extract(caption) == []


def test_pictograms_and_odd_characters_do_not_shift_the_spans(singulars):
    caption = "🐶 a dog\u200d \x00 and 👩\u200d👩 a\u00a0cat."

    assert [caption[n.start : n.end] for n in singulars.extract(caption)] == ["dog", "cat"]


def test_nouns_of_several_captions_are_joined_at_their_first_mention(singulars):
    captions = ["a car", "two cars and a bus", "a bus"]

    merged = merge_nouns((i, singulars.extract(text)) for i, text in enumerate(captions))

    assert [(index, noun.text, noun.start) for index, noun in merged] == [
        (0, "car", 2),
        (1, "bus", 15),
    ]


def test_every_noun_of_the_miniature_world_is_found_and_nothing_else(singulars):
    from ovseg.tinyscapes.captions import stuff_caption
    from ovseg.tinyscapes.world import CLASSES

    names = {noun for entry in CLASSES for noun in entry.nouns}
    rng = random.Random(0)
    captions = [f"a small red {noun} and two big {noun}" for noun in sorted(names)]
    captions += [
        stuff_caption(rng, i, None)
        for i, entry in enumerate(CLASSES)
        if entry.kind == "stuff"
        for _ in range(20)
    ]

    extractor = NounExtractor(NounConfig(tagger="textblob"))

    assert {noun.text for text in captions for noun in extractor.extract(text)} == names


@pytest.mark.parametrize(
    ("plural", "expected"),
    [
        *(("buses", "bus"), ("glasses", "glasses"), ("grass", "grass"), ("bus", "bus")),
        *(("cacti", "cactus"), ("cactus", "cactus"), ("fish", "fish"), ("men", "man")),
        *(("snowmen", "snowman"), ("police", "police"), ("shelves", "shelf"), ("pies", "pie")),
        *(("olives", "olive"), ("cherries", "cherry"), ("brownies", "brownie"), ("skis", "ski")),
        *(("tomatoes", "tomato"), ("shoes", "shoe"), ("houses", "house"), ("wolves", "wolf")),
        *(("tennis", "tennis"), ("octopus", "octopus"), ("scissors", "scissors")),
        *(("giraffes", "giraffe"), ("t-shirts", "t-shirt"), ("people", "person")),
        *(("benches", "bench"), ("horses", "horse"), ("boxes", "box"), ("gas", "gas")),
        *(("gloves", "glove"), ("curves", "curve"), ("flies", "fly"), ("ties", "tie")),
    ],
)
def test_singulars(plural, expected):
    assert singular(plural) == expected


def test_words_are_cut_at_apostrophes_and_held_by_hyphens():
    words = [token.text for token in tokenize("The dog's t-shirt isn’t it? 3D, a_b")]

    assert words == [
        "The",
        "dog",
        "'s",
        "t-shirt",
        "is",
        "n’t",
        "it",
        "?",
        "3D",
        ",",
        "a",
        "_",
        "b",
    ]


def test_an_unknown_tagger_lists_the_known_ones():
    with pytest.raises(ValueError, match="'nltk', 'textblob'"):
        NounConfig(tagger="spacy")
    with pytest.raises(ValueError, match="must be a tuple of words"):
        NounConfig(stop_words="photo")


def test_without_nltks_data_textblob_serves_and_says_so(monkeypatch, tmp_path):
    import nltk

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])

    assert make_tagger("auto").name.startswith("textblob-")
    with pytest.raises(LookupError, match="averaged_perceptron_tagger_eng"):
        make_tagger("nltk")


def test_nltks_tagger_is_taken_when_its_data_is_installed(monkeypatch, tmp_path):
    import nltk
    from nltk.tag.perceptron import PerceptronTagger

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    tagged = [("a", "DT"), ("glorp", "NN"), ("sees", "VBZ"), ("blue", "JJ"), ("fleems", "NNS")]
    trained = PerceptronTagger(load=False)
    trained.train([tagged] * 5)
    folder = tmp_path / "taggers" / "averaged_perceptron_tagger_eng"
    folder.parent.mkdir()
    trained.save_to_json(lang="eng", loc=str(folder))

    extractor = NounExtractor(NounConfig(lemma=True))

    assert extractor.name.startswith("nltk-")
    assert [n.text for n in extractor.extract("A glorp sees blue fleems")] == ["glorp", "fleem"]


def test_a_caption_gives_the_same_tags_whatever_came_before():
    tagger = make_tagger("textblob")
    tokens = tokenize("A bear and a sink. Stop signs!")

    first = tag_tokens(tagger, tokens)
    for caption in SENTENCES:
        tag_tokens(tagger, tokenize(caption))

    assert tag_tokens(tagger, tokens) == first
    assert len(first) == len(tokens)
    assert tag_tokens(tagger, []) == []
