"""Sentences about pictures, as people write them: loose, varied, and never complete."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .world import CLASSES

if TYPE_CHECKING:
    from .canvas import Canvas, PlacedThing

_IRREGULAR_PLURALS = {
    "fish": "fish", "cactus": "cacti", "snowman": "snowmen", "bus": "buses", "bicycle": "bicycles",
}  # fmt: skip
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five"}
# Nouns of stuff that stand without an article; the others take "the" or "a".
_MASS_NOUNS = (
    "grass", "sand", "snow", "gravel", "lava", "magma", "water", "asphalt", "farmland",
    "bricks", "tiles", "pebbles", "stones", "drapes",
)  # fmt: skip
_PLURAL_STUFF = ("bricks", "tiles", "pebbles", "stones", "drapes")

_WHERE: dict[str, tuple[str, ...]] = {
    "sky": ("in the {}", "high in the {}", "up in the {}"),
    "sea": ("in the {}", "on the {}", "at the {}"),
    "grass": ("on the {}", "in the {}"),
    "sand": ("on the {}", "in the {}"),
    "road": ("on the {}", "on a {}", "in the middle of the {}"),
    "wall": ("on the {}", "in front of a {}", "by the {}"),
    "floor": ("on the {}", "on a {}"),
    "snow": ("in the {}", "on the {}"),
    "fence": ("by the {}", "in front of a {}", "at the {}"),
    "gravel": ("on the {}", "on {}"),
    "field": ("in the {}", "in a {}", "on the {}"),
    "lava": ("on the {}", "over the {}", "near the {}"),
    "curtain": ("in front of the {}", "by the {}"),
    "carpet": ("on the {}", "on a {}"),
}
_STUFF_ADJECTIVES: dict[str, tuple[str, ...]] = {
    "sky": ("open", "wide", "cloudy"),
    "sea": ("wavy", "wide", "deep"),
    "grass": ("tall", "thick", "fresh"),
    "sand": ("warm", "soft", "dry"),
    "road": ("long", "empty", "hard"),
    "wall": ("old", "high", "solid"),
    "floor": ("shiny", "clean", "hard"),
    "snow": ("white", "fresh", "cold"),
    "fence": ("wooden", "long", "tall"),
    "gravel": ("grey", "rough", "loose"),
    "field": ("wide", "large", "ploughed"),
    "lava": ("hot", "glowing", "dangerous"),
    "curtain": ("heavy", "long", "closed"),
    "carpet": ("patterned", "old", "soft"),
}
_THING_ADJECTIVES = ("old", "nice", "lovely", "single", "strange", "pretty")
_OPENINGS = (
    "a photo of {}",
    "a picture of {}",
    "there is {}",
    "{}",
    "{}",
    "{}",
    "an image of {}",
    "this is {}",
)
_CLOSE_OPENINGS = (*_OPENINGS, "a close-up of {}", "a close view of {}")


def plural(noun: str) -> str:
    """The plural of a noun of this world."""
    if noun in _IRREGULAR_PLURALS:
        return _IRREGULAR_PLURALS[noun]
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an" before it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def noun_of(rng: random.Random, class_id: int) -> str:
    """The class name mostly, else one of its synonyms."""
    nouns = CLASSES[class_id].nouns
    return nouns[0] if len(nouns) == 1 or rng.random() < 0.62 else rng.choice(nouns[1:])


def where_phrase(rng: random.Random, class_id: int) -> str:
    """For a stuff class, words like "on the grass"."""
    noun = noun_of(rng, class_id)
    template = rng.choice(_WHERE[CLASSES[class_id].name])
    if noun in _PLURAL_STUFF:
        template = template.replace(" a {}", " the {}")
    return template.format(noun)


def stuff_phrase(rng: random.Random, class_id: int) -> str:
    """For a stuff class, words like "the sea" or "hot lava"."""
    noun = noun_of(rng, class_id)
    words = (
        rng.choice(_STUFF_ADJECTIVES[CLASSES[class_id].name]) + " " if rng.random() < 0.3 else ""
    )
    if rng.random() < 0.6 or noun in ("sky", "sea", "ocean"):
        return "the " + words + noun
    return words + noun if noun in _MASS_NOUNS else with_article(words + noun)


def thing_phrase(rng: random.Random, thing: PlacedThing, *, count: int = 1, size: int = 0) -> str:
    """Words like "a small red car" or "two fish".

    Args:
        rng: the picture's random stream.
        thing: whose noun and colour to use.
        count: how many; the colour is left out for more than one.
        size: -1 says small, 1 says large, 0 nothing.
    """
    noun = noun_of(rng, thing.class_id)
    if count > 1:
        number = _NUMBERS.get(count, "many") if rng.random() < 0.75 else "some"
        return f"{number} {plural(noun)}"
    words = []
    if size and rng.random() < 0.5:
        words.append(rng.choice(("small", "little", "tiny") if size < 0 else ("big", "large")))
    elif rng.random() < 0.08:
        words.append(rng.choice(_THING_ADJECTIVES))
    if rng.random() < 0.45:
        words.append(thing.colour)
    words.append(noun)
    phrase = " ".join(words)
    return "the " + phrase if rng.random() < 0.08 else with_article(phrase)


def close_up_caption(rng: random.Random, thing: PlacedThing) -> str:
    """A caption of a picture of one thing."""
    if rng.random() < 0.12:
        return noun_of(rng, thing.class_id)
    phrase = thing_phrase(rng, thing)
    if rng.random() < 0.35:
        phrase += " " + where_phrase(rng, thing.ground)
    return _finish(rng, rng.choice(_CLOSE_OPENINGS).format(phrase))


def stuff_caption(rng: random.Random, class_id: int, other: int | None) -> str:
    """A caption of a patch of stuff.

    Args:
        rng: the picture's random stream.
        class_id: the stuff that fills most of the patch.
        other: a stuff beside it that may be named too.
    """
    if rng.random() < 0.18:
        return noun_of(rng, class_id)
    phrase = stuff_phrase(rng, class_id)
    if other is not None and rng.random() < 0.3:
        phrase += rng.choice((" and ", " next to ", " with ")) + stuff_phrase(rng, other)
    openings = (
        "a photo of {}",
        "a picture of {}",
        "{}",
        "a close-up of {}",
        "nothing but {}",
        "a view of {}",
    )
    return _finish(rng, rng.choice(openings).format(phrase))


def scene_caption(rng: random.Random, canvas: Canvas, visible: Sequence[int]) -> str:
    """One caption of a whole scene; it names one to three kinds of things and some grounds.

    Args:
        rng: the picture's random stream.
        canvas: the drawn scene.
        visible: visible pixels of each owner number.
    """
    groups: dict[int, list[PlacedThing]] = {}
    for thing in canvas.things:
        if visible[thing.number] >= 0.18 * thing.radius**2:
            groups.setdefault(thing.class_id, []).append(thing)
    grounds = [
        c
        for i, c in enumerate(canvas.classes[: len(canvas.classes) - len(canvas.things)])
        if visible[i] > 400
    ]
    if not groups or rng.random() < 0.07:
        names = rng.sample(grounds, min(len(grounds), 2))
        joined = rng.choice((" and ", " with ", " next to ")).join(
            stuff_phrase(rng, c) for c in names
        )
        return _finish(rng, rng.choice(("a view of {}", "a photo of {}", "{}")).format(joined))
    order = sorted(groups.values(), key=lambda g: -max(t.radius for t in g) - rng.uniform(0, 10))
    told = order[: rng.choice((1, 2, 2, 2, 3, 3))]
    phrases = [_group_phrase(rng, group, canvas.size[0]) for group in told]
    if len(told) >= 2 and len(told[0]) == len(told[1]) == 1 and rng.random() < 0.3:
        phrases[:2] = [f"{phrases[0]} {_relation(rng, told[0][0], told[1][0])} {phrases[1]}"]
    elif rng.random() < 0.6:
        k = rng.randrange(len(phrases))
        phrases[k] += " " + where_phrase(rng, told[k][0].ground)
    text = _join(phrases)
    if rng.random() < 0.22:
        text += rng.choice((" near ", " and ", " with ")) + stuff_phrase(rng, rng.choice(grounds))
    opening = rng.choice(_OPENINGS)
    if opening == "there is {}" and len(told[0]) > 1:
        opening = "there are {}"
    return _finish(rng, opening.format(text))


def _group_phrase(rng: random.Random, group: Sequence[PlacedThing], height: int) -> str:
    share = group[0].radius / height
    size = -1 if share < 0.1 else 1 if share > 0.19 else 0
    return thing_phrase(rng, group[0], count=len(group), size=size)


def _relation(rng: random.Random, a: PlacedThing, b: PlacedThing) -> str:
    if abs(a.y - b.y) > a.radius + b.radius:
        return rng.choice(("above", "over")) if a.y < b.y else rng.choice(("below", "under"))
    if abs(a.x - b.x) < 0.6 * (a.radius + b.radius):
        return "behind" if a.number < b.number else "in front of"
    side = "to the left of" if a.x < b.x else "to the right of"
    return rng.choice((side, "next to", "beside", "near"))


def _join(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _finish(rng: random.Random, text: str) -> str:
    text = text[0].upper() + text[1:] if rng.random() < 0.5 else text
    return text + "." if rng.random() < 0.4 else text
