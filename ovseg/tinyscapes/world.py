"""What exists in tinyscapes: its classes, their usual grounds, their nouns and the colour words.

Which classes there are, what they are called and which of them training shows is said by the class
list `tinyscapes`; here is what drawing and captions need besides.
"""

from __future__ import annotations

from dataclasses import dataclass

from ovseg.vocab import class_list


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


_CLASSES = class_list("tinyscapes")

# The stuff that things usually stand on or in.
_GROUNDS = {
    "tree": "grass field",
    "house": "grass snow",
    "car": "road",
    "boat": "sea",
    "fish": "sea",
    "bird": "sky",
    "cactus": "sand",
    "umbrella": "sand",
    "flower": "grass field",
    "mushroom": "grass",
    "star": "sky",
    "kite": "sky",
    "chair": "floor carpet",
    "cup": "floor carpet",
    "lamp": "carpet floor",
    "clock": "wall curtain",
    "snowman": "snow",
    "bus": "road",
    "tent": "grass gravel",
    "crab": "sand",
    "plane": "sky",
    "ladder": "wall fence",
    "bottle": "floor gravel",
    "snail": "gravel fence",
    "balloon": "sky curtain",
    "bicycle": "road fence",
    "rocket": "sky lava",
    "duck": "sea field",
    "penguin": "snow",
    "guitar": "carpet wall",
    "windmill": "field",
    "butterfly": "field curtain",
    "castle": "gravel lava",
    "moon": "sky",
    "candle": "floor curtain",
    "carrot": "field fence",
}

# For these the middle, not the foot, lies on the ground region.
_FLOATING = frozenset(
    ("fish", "bird", "star", "kite", "clock", "plane", "balloon", "rocket", "butterfly", "moon")
)

# Other nouns that captions use.
_SYNONYMS = {
    "tree": "oak",
    "house": "cottage home",
    "car": "automobile",
    "boat": "ship sailboat",
    "bird": "gull",
    "umbrella": "parasol",
    "flower": "blossom",
    "mushroom": "toadstool",
    "chair": "seat",
    "cup": "mug",
    "bus": "coach",
    "plane": "airplane jet",
    "bicycle": "bike",
    "rocket": "spaceship",
    "duck": "duckling",
    "windmill": "mill",
    "butterfly": "moth",
    "castle": "fortress",
    "moon": "crescent",
    "sea": "ocean water",
    "grass": "lawn meadow",
    "sand": "beach desert",
    "road": "street asphalt",
    "wall": "bricks",
    "floor": "tiles",
    "gravel": "pebbles stones",
    "field": "farmland",
    "lava": "magma",
    "curtain": "drapes",
    "carpet": "rug",
}

CLASSES: tuple[TinyClass, ...] = tuple(
    TinyClass(
        name=name,
        synonyms=tuple(_SYNONYMS.get(name, "").split()),
        kind="stuff" if index in (_CLASSES.stuff or ()) else "thing",
        seen=index not in _CLASSES.unseen,
        grounds=tuple(_GROUNDS.get(name, "").split()),
        floats=name in _FLOATING,
    )
    for index, name in enumerate(_CLASSES.names)
)

ALL_NAMES: tuple[str, ...] = _CLASSES.names
SEEN_NAMES: tuple[str, ...] = tuple(ALL_NAMES[i] for i in _CLASSES.seen)
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
    return {name: list(ids) for name, ids in _CLASSES.groups.items()}
