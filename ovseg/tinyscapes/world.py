"""What exists in tinyscapes: the classes, their names, their usual grounds and the colour words."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TinyClass:
    """One nameable class of the miniature world.

    Args:
        name: the class name, an everyday noun.
        synonyms: other nouns that captions use for the same class.
        kind: "thing" (a countable object) or "stuff" (ground, an uncountable region).
        seen: whether training labels show it; unseen classes occur in pictures and captions only.
        grounds: for things, the names of the stuff they usually stand on or in.
        floats: for things, whether the middle (not the foot) lies on the ground region.
    """

    name: str
    synonyms: tuple[str, ...]
    kind: str
    seen: bool
    grounds: tuple[str, ...] = ()
    floats: bool = False

    @property
    def nouns(self) -> tuple[str, ...]:
        """All nouns that mean this class, the class name first."""
        return (self.name, *self.synonyms)


def _thing(
    name: str, grounds: str, synonyms: str = "", *, seen: bool, floats: bool = False
) -> TinyClass:
    return TinyClass(name, tuple(synonyms.split()), "thing", seen, tuple(grounds.split()), floats)


def _stuff(name: str, synonyms: str = "", *, seen: bool) -> TinyClass:
    return TinyClass(name, tuple(synonyms.split()), "stuff", seen)


# Seen classes come first, so that the contiguous ids of training are a prefix of all ids.
CLASSES: tuple[TinyClass, ...] = (
    _thing("tree", "grass field", "oak", seen=True),
    _thing("house", "grass snow", "cottage home", seen=True),
    _thing("car", "road", "automobile", seen=True),
    _thing("boat", "sea", "ship sailboat", seen=True),
    _thing("fish", "sea", seen=True, floats=True),
    _thing("bird", "sky", "gull", seen=True, floats=True),
    _thing("cactus", "sand", seen=True),
    _thing("umbrella", "sand", "parasol", seen=True),
    _thing("flower", "grass field", "blossom", seen=True),
    _thing("mushroom", "grass", "toadstool", seen=True),
    _thing("star", "sky", seen=True, floats=True),
    _thing("kite", "sky", seen=True, floats=True),
    _thing("chair", "floor carpet", "seat", seen=True),
    _thing("cup", "floor carpet", "mug", seen=True),
    _thing("lamp", "carpet floor", seen=True),
    _thing("clock", "wall curtain", seen=True, floats=True),
    _thing("snowman", "snow", seen=True),
    _thing("bus", "road", "coach", seen=True),
    _thing("tent", "grass gravel", seen=True),
    _thing("crab", "sand", seen=True),
    _thing("plane", "sky", "airplane jet", seen=True, floats=True),
    _thing("ladder", "wall fence", seen=True),
    _thing("bottle", "floor gravel", seen=True),
    _thing("snail", "gravel fence", seen=True),
    _stuff("sky", seen=True),
    _stuff("sea", "ocean water", seen=True),
    _stuff("grass", "lawn meadow", seen=True),
    _stuff("sand", "beach desert", seen=True),
    _stuff("road", "street asphalt", seen=True),
    _stuff("wall", "bricks", seen=True),
    _stuff("floor", "tiles", seen=True),
    _thing("balloon", "sky curtain", seen=False, floats=True),
    _thing("bicycle", "road fence", "bike", seen=False),
    _thing("rocket", "sky lava", "spaceship", seen=False, floats=True),
    _thing("duck", "sea field", "duckling", seen=False),
    _thing("penguin", "snow", seen=False),
    _thing("guitar", "carpet wall", seen=False),
    _thing("windmill", "field", "mill", seen=False),
    _thing("butterfly", "field curtain", "moth", seen=False, floats=True),
    _thing("castle", "gravel lava", "fortress", seen=False),
    _thing("moon", "sky", "crescent", seen=False, floats=True),
    _thing("candle", "floor curtain", seen=False),
    _thing("carrot", "field fence", seen=False),
    _stuff("snow", seen=False),
    _stuff("fence", seen=False),
    _stuff("gravel", "pebbles stones", seen=False),
    _stuff("field", "farmland", seen=False),
    _stuff("lava", "magma", seen=False),
    _stuff("curtain", "drapes", seen=False),
    _stuff("carpet", "rug", seen=False),
)

ALL_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES)
SEEN_NAMES: tuple[str, ...] = tuple(c.name for c in CLASSES if c.seen)
CLASS_ID: dict[str, int] = {name: i for i, name in enumerate(ALL_NAMES)}
THING_IDS: tuple[int, ...] = tuple(i for i, c in enumerate(CLASSES) if c.kind == "thing")
STUFF_IDS: tuple[int, ...] = tuple(i for i, c in enumerate(CLASSES) if c.kind == "stuff")
IGNORE_LABEL = 255
SPLITS: tuple[str, ...] = ("train", "val", "test")

# How often an object stands on one of its usual grounds.
CONTEXT_BIAS = 0.72

THINGS_OF_GROUND: dict[str, tuple[int, ...]] = {
    CLASSES[s].name: tuple(t for t in THING_IDS if CLASSES[s].name in CLASSES[t].grounds)
    for s in STUFF_IDS
}

# Rows of regions from the top of the picture to its bottom; straight ones are indoors.
OUTDOOR_TOPS: tuple[str, ...] = ("sky",)
OUTDOOR_MIDDLES: tuple[str, ...] = (
    "sea", "fence", "field", "grass", "sand", "snow", "gravel", "lava", "wall", "road",
)  # fmt: skip
OUTDOOR_BOTTOMS: tuple[str, ...] = (
    "grass", "sand", "road", "snow", "gravel", "field", "lava", "sea",
)  # fmt: skip
INDOOR_TOPS: tuple[str, ...] = ("wall", "curtain")
INDOOR_BOTTOMS: tuple[str, ...] = ("floor", "carpet")

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (206, 38, 36),
    "orange": (238, 130, 28),
    "yellow": (242, 212, 44),
    "green": (52, 150, 58),
    "blue": (40, 84, 204),
    "purple": (126, 52, 160),
    "pink": (240, 132, 176),
    "brown": (122, 76, 42),
    "white": (240, 240, 238),
    "black": (34, 34, 38),
    "grey": (136, 138, 142),
    "turquoise": (42, 182, 182),
}


def scene_groups() -> dict[str, list[int]]:
    """Class ids of the four groups that evaluation reports apart.

    Returns:
        "seen_things", "unseen_things", "seen_stuff", "unseen_stuff" -> ids in ascending order.
    """
    return {
        f"{word}_{plural}": [
            i for i, c in enumerate(CLASSES) if c.kind == kind and c.seen == (word == "seen")
        ]
        for kind, plural in (("thing", "things"), ("stuff", "stuff"))
        for word in ("seen", "unseen")
    }
