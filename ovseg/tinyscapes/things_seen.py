"""How the seen things look: one function per class, from a random variation to parts.

Shapes tell the classes apart; the two colours of an object ("main", "second") are random.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .shapes import Part, arc, box, ellipse, mirror, part, radial, stroke


def _tree(v: random.Random) -> list[Part]:
    trunk = part("wood", box(-0.13, 0.2, 0.13, 1.0))
    if v.random() < 0.5:
        w = v.uniform(0.55, 0.75)
        tiers = [
            part(role, [(0, top), (w * k, top + 0.75), (-w * k, top + 0.75)])
            for role, top, k in (("shade", -0.15, 1.0), ("main", -0.55, 0.82), ("tint", -1.0, 0.62))
        ]
        return [trunk, *tiers]
    r = v.uniform(0.4, 0.5)
    return [
        trunk,
        part("shade", ellipse(-0.4, -0.05, r, r * 0.9)),
        part("shade", ellipse(0.4, -0.05, r, r * 0.9)),
        part("main", ellipse(0, -0.45, r * 1.2, r * 1.15)),
        part("tint", ellipse(-0.12, -0.6, r * 0.5, r * 0.4)),
    ]


def _house(v: random.Random) -> list[Part]:
    w, eave = v.uniform(0.62, 0.8), v.uniform(-0.25, -0.05)
    door = v.choice((-0.15, 0.15))
    return [
        part("shade", box(0.3, -0.85, 0.5, -0.2)),
        part("main", box(-w, eave, w, 1.0)),
        part("second", [(-w - 0.18, eave), (0, -1.0), (w + 0.18, eave)]),
        part("wood", box(door - 0.15, 0.45, door + 0.15, 1.0)),
        part("glass", box(-w + 0.12, 0.15, -w + 0.38, 0.42)),
        part("glass", box(w - 0.38, 0.15, w - 0.12, 0.42)),
    ]


def _wheel(x: float, y: float, r: float) -> list[Part]:
    return [part("black", ellipse(x, y, r, r)), part("metal", ellipse(x, y, r * 0.45, r * 0.45))]


def _car(v: random.Random) -> list[Part]:
    roof, nose = v.uniform(-0.42, -0.3), v.uniform(0.4, 0.6)
    cabin = [(-0.72, 0.12), (-0.45, roof), (0.25, roof), (nose, 0.12)]
    glass = [(-0.55, 0.1), (-0.38, roof + 0.1), (-0.1, roof + 0.1), (-0.1, 0.1)]
    glass2 = [(0.0, 0.1), (0.0, roof + 0.1), (0.2, roof + 0.1), (nose - 0.12, 0.1)]
    body = [(-1, 0.2), (-0.9, 0.08), (0.75, 0.08), (0.98, 0.25), (1, 0.62), (-1, 0.62)]
    return [
        part("main", cabin),
        part("glass", glass, glass2),
        part("main", body),
        part("shade", box(-1.0, 0.5, 1.0, 0.62)),
        part("flame", ellipse(0.9, 0.3, 0.09, 0.09)),
        *_wheel(-0.52, 0.64, 0.25),
        *_wheel(0.55, 0.64, 0.25),
    ]


def _boat(v: random.Random) -> list[Part]:
    tip = v.uniform(-1.0, -0.85)
    parts = [
        part("wood", box(-0.06, tip, 0.02, 0.45)),
        part("white", [(0.06, tip + 0.05), (0.75, 0.3), (0.06, 0.3)]),
        part("main", [(-0.95, 0.42), (1.0, 0.42), (0.62, 0.95), (-0.6, 0.95)]),
        part("second", [(-0.95, 0.42), (1.0, 0.42), (0.94, 0.54), (-0.87, 0.54)]),
    ]
    if v.random() < 0.7:
        parts.insert(2, part("tint", [(-0.1, tip + 0.25), (-0.1, 0.3), (-0.65, 0.3)]))
    return parts


def _fish(v: random.Random) -> list[Part]:
    h = v.uniform(0.4, 0.55)
    return [
        part("second", [(0.45, 0), (1.0, -0.5), (0.85, 0), (1.0, 0.5)]),
        part("second", [(-0.25, -h * 0.8), (0.15, -h - 0.35), (0.35, -h * 0.6)]),
        part("main", ellipse(-0.2, 0, 0.78, h)),
        part("shade", arc(-0.2, 0, 0.78, h, 20, 160)),
        part("second", [(-0.1, 0.05), (0.25, 0.28), (0.2, -0.05)]),
        part("white", ellipse(-0.65, -0.12, 0.14, 0.14)),
        part("black", ellipse(-0.67, -0.12, 0.07, 0.07)),
    ]


def _bird(v: random.Random) -> list[Part]:
    lift = v.uniform(-1.0, -0.7)
    return [
        part("shade", [(0.05, 0.0), (0.55, lift + 0.1), (0.75, lift), (0.5, 0.1)]),
        part("main", [(0.55, 0.05), (1.0, 0.1), (1.0, 0.4), (0.5, 0.3)]),
        part("main", ellipse(0.05, 0.2, 0.62, 0.27)),
        part("main", ellipse(-0.6, 0.05, 0.24, 0.22)),
        part("tint", [(-0.25, 0.15), (-0.15, lift + 0.2), (0.1, lift), (0.35, 0.2)]),
        part("beak", [(-0.8, 0.0), (-1.05, 0.1), (-0.8, 0.15)]),
        part("black", ellipse(-0.66, 0.0, 0.06, 0.06)),
    ]


def _capsule(x: float, top: float, bottom: float, r: float) -> list[tuple[float, float]]:
    return [*arc(x, top + r, r, r, 180, 360, n=8), (x + r, bottom), (x - r, bottom)]


def _cactus(v: random.Random) -> list[Part]:
    left, right = v.uniform(0.0, 0.3), v.uniform(-0.2, 0.2)
    lines = [stroke([(x, -0.75), (x, 0.9)], 0.05) for x in (-0.1, 0.1)]
    return [
        part("main", _capsule(-0.6, left - 0.5, left + 0.1, 0.16)),
        part("main", box(-0.76, left, -0.1, left + 0.28)),
        part("main", _capsule(0.6, right - 0.5, right + 0.1, 0.16)),
        part("main", box(0.1, right, 0.76, right + 0.28)),
        part("main", _capsule(0, -1.0, 1.0, 0.27)),
        part("tint", *lines),
    ]


def _umbrella(v: random.Random) -> list[Part]:
    dip = v.uniform(0.08, 0.16)
    hook = [(0, -0.2), (0, 0.75), *arc(-0.16, 0.78, 0.16, 0.18, 0, 180, n=8)]
    top = arc(0, 0, 1.0, 0.9, 180, 360, n=20)
    panel = [(0, -0.9), *arc(0, 0, 0.55, 0.8, 290, 350, n=6), (0.5, 0.0), (0.25, 0.0)]
    hem = [
        (x, dip * (1 if i % 2 else -0.4))
        for i, x in enumerate((0.75, 0.5, 0.25, 0, -0.25, -0.5, -0.75))
    ]
    return [
        part("black", stroke(hook, 0.09)),
        part("main", [*top, *hem]),
        part("second", panel),
        part("second", mirror(panel)),
        part("black", box(-0.04, -1.0, 0.04, -0.85)),
    ]


def _flower(v: random.Random) -> list[Part]:
    n = v.choice((5, 6, 7))
    petals = [part("main", ellipse(x, y, 0.27, 0.27)) for x, y in radial(0, -0.4, [0.36] * n)]
    return [
        part("leaf", stroke([(0, -0.3), (0.04, 0.4), (0, 1.0)], 0.1)),
        part("leaf", ellipse(0.27, 0.5, 0.28, 0.11, turn=-30)),
        part("leaf", ellipse(-0.25, 0.65, 0.26, 0.1, turn=30)),
        *petals,
        part("second", ellipse(0, -0.4, 0.22, 0.22)),
    ]


def _mushroom(v: random.Random) -> list[Part]:
    h, w = v.uniform(0.85, 1.0), v.uniform(0.8, 0.98)
    spots = [(-0.45, -0.35, 0.14), (0.05, -0.6, 0.16), (0.48, -0.3, 0.13)]
    return [
        part("white", [(-0.22, 0.0), (0.22, 0.0), (0.32, 1.0), (-0.32, 1.0)]),
        part("main", [*arc(0, 0.1, w, h, 180, 360, n=18), (w * 0.6, 0.25), (-w * 0.6, 0.25)]),
        part("shade", [(-w, 0.1), (w, 0.1), (w * 0.6, 0.25), (-w * 0.6, 0.25)]),
        part("white", *[ellipse(x, y, r, r * 0.85, n=12) for x, y, r in spots]),
    ]


def _star(v: random.Random) -> list[Part]:
    inner = v.uniform(0.36, 0.5)
    return [
        part("main", radial(0, 0.05, [1.0, inner] * 5)),
        part("tint", radial(0, 0.05, [0.6, inner * 0.6] * 5)),
    ]


def _kite(v: random.Random) -> list[Part]:
    mid = v.uniform(-0.5, -0.35)
    tail = [(0.0, 0.3), (0.12, 0.5), (-0.1, 0.7), (0.1, 0.9), (-0.02, 1.05)]
    bows = [
        part(
            "second",
            [
                (x - 0.16, y - 0.09),
                (x + 0.16, y + 0.09),
                (x + 0.16, y - 0.09),
                (x - 0.16, y + 0.09),
            ],
        )
        for x, y in tail[1:4]
    ]
    return [
        part("black", stroke(tail, 0.05)),
        *bows,
        part("main", [(0, -1.0), (0.6, mid), (0, 0.35), (-0.6, mid)]),
        part("second", [(0, -1.0), (0.6, mid), (0, mid)], [(0, 0.35), (-0.6, mid), (0, mid)]),
    ]


def _chair(v: random.Random) -> list[Part]:
    slats = [box(-0.5, y, 0.5, y + 0.16) for y in (-0.85, -0.55, -0.25)[: v.choice((2, 3))]]
    return [
        part("shade", box(-0.6, -1.0, -0.45, 0.2), box(0.45, -1.0, 0.6, 0.2)),
        part("main", *slats),
        part("shade", box(-0.5, 0.2, -0.38, 0.8), box(0.38, 0.2, 0.5, 0.8)),
        part("main", [(-0.6, 0.05), (0.6, 0.05), (0.78, 0.32), (-0.78, 0.32)]),
        part("second", [(-0.78, 0.32), (0.78, 0.32), (0.78, 0.42), (-0.78, 0.42)]),
        part("shade", box(-0.76, 0.42, -0.6, 1.0), box(0.6, 0.42, 0.76, 1.0)),
    ]


def _cup(v: random.Random) -> list[Part]:
    foot = v.uniform(0.42, 0.58)
    parts = [
        part("main", ellipse(0.62, 0.25, 0.36, 0.38), ellipse(0.62, 0.25, 0.2, 0.22)),
        part("main", [(-0.68, -0.3), (0.64, -0.3), (foot, 1.0), (-foot, 1.0)]),
        part("second", [(-0.65, 0.2), (0.6, 0.2), (0.56, 0.5), (-0.6, 0.5)]),
        part("tint", ellipse(-0.02, -0.3, 0.66, 0.18)),
        part("wood", ellipse(-0.02, -0.28, 0.54, 0.12)),
    ]
    if v.random() < 0.6:
        parts += [
            part(
                "white",
                stroke([(x, -0.5), (x + 0.1, -0.65), (x - 0.05, -0.8), (x + 0.06, -0.98)], 0.07),
            )
            for x in (-0.25, 0.15)
        ]
    return parts


def _lamp(v: random.Random) -> list[Part]:
    top, low = v.uniform(0.25, 0.38), v.uniform(0.62, 0.8)
    return [
        part("metal", box(-0.06, -0.2, 0.06, 0.9)),
        part("metal", [*arc(0, 1.0, 0.48, 0.25, 180, 360, n=10)]),
        part("flame", ellipse(0, -0.16, 0.2, 0.16)),
        part("main", [(-top, -1.0), (top, -1.0), (low, -0.15), (-low, -0.15)]),
        part("second", [(-low + 0.04, -0.3), (low - 0.04, -0.3), (low, -0.15), (-low, -0.15)]),
    ]


def _clock(v: random.Random) -> list[Part]:
    hour, minute = v.uniform(0, 360), v.uniform(0, 360)
    ticks = [ellipse(x, y, 0.07, 0.07, n=8) for x, y in radial(0, 0, [0.62] * 12)]
    long_hand = radial(0, 0, [0.58], start=minute)[0]
    short_hand = radial(0, 0, [0.38], start=hour)[0]
    return [
        part("main", ellipse(0, 0, 1.0, 1.0, n=28)),
        part("white", ellipse(0, 0, 0.8, 0.8, n=24)),
        part("black", *ticks),
        part("black", stroke([(0, 0), long_hand], 0.09)),
        part("black", stroke([(0, 0), short_hand], 0.13)),
    ]


def _snowman(v: random.Random) -> list[Part]:
    r = v.uniform(0.48, 0.56)
    return [
        part("wood", stroke([(-0.3, 0.0), (-0.85, -0.3)], 0.07)),
        part("wood", stroke([(0.3, 0.0), (0.85, -0.3)], 0.07)),
        part("white", ellipse(0, 1.0 - r, r, r)),
        part("white", ellipse(0, 0.0, 0.38, 0.36)),
        part("white", ellipse(0, -0.48, 0.29, 0.28)),
        part("main", box(-0.34, -0.26, 0.34, -0.12), box(0.1, -0.14, 0.26, 0.22)),
        part("second", box(-0.42, -0.74, 0.42, -0.64), box(-0.24, -1.05, 0.24, -0.7)),
        part("black", *[ellipse(x, -0.54, 0.045, 0.05, n=8) for x in (-0.1, 0.1)]),
        part("beak", [(0, -0.48), (0.28, -0.42), (0, -0.38)]),
        part("black", *[ellipse(0, y, 0.05, 0.05, n=8) for y in (0.3, 0.5)]),
    ]


def _bus(v: random.Random) -> list[Part]:
    n = v.choice((4, 5))
    step = 1.7 / n
    windows = [box(-0.88 + i * step, -0.42, -0.88 + (i + 0.78) * step, 0.02) for i in range(n)]
    return [
        part("main", [(-1, -0.55), (-0.9, -0.65), (0.9, -0.65), (1, -0.5), (1, 0.62), (-1, 0.62)]),
        part("glass", *windows),
        part("second", box(-1.0, 0.14, 1.0, 0.28)),
        part("flame", ellipse(0.9, 0.45, 0.09, 0.08)),
        *_wheel(-0.55, 0.64, 0.22),
        *_wheel(0.55, 0.64, 0.22),
    ]


def _tent(v: random.Random) -> list[Part]:
    tip, lean = v.uniform(-0.85, -0.65), v.uniform(-0.15, 0.15)
    return [
        part("wood", stroke([(lean - 0.1, tip - 0.15), (lean + 0.08, tip + 0.1)], 0.07)),
        part("main", [(lean, tip), (1.0, 0.9), (-1.0, 0.9)]),
        part("second", [(lean, tip), (-1.0, 0.9), (-0.6, 0.9)]),
        part("second", [(lean, tip), (1.0, 0.9), (0.6, 0.9)]),
        part("black", [(lean * 0.8, tip + 0.45), (0.3, 0.9), (-0.3, 0.9)]),
        part("tint", [(lean * 0.8, tip + 0.45), (0.3, 0.9), (0.42, 0.9)]),
    ]


def _crab(v: random.Random) -> list[Part]:
    h = v.uniform(0.36, 0.44)
    legs = [
        stroke([(0.4, 0.3 + 0.1 * i), (0.75, 0.25 + 0.2 * i), (0.85 - 0.1 * i, 0.6 + 0.2 * i)], 0.1)
        for i in range(3)
    ]
    arm = stroke([(0.5, 0.2), (0.8, 0.0), (0.72, -0.3)], 0.13)
    claw = [
        (0.6, -0.25), (0.5, -0.6), (0.62, -0.85), (0.72, -0.55), (0.9, -0.85), (0.98, -0.5),
        (0.82, -0.22),
    ]  # fmt: skip
    eye = [ellipse(x, -0.2, 0.1, 0.1, n=10) for x in (-0.2, 0.2)]
    pupil = [ellipse(x, -0.2, 0.05, 0.05, n=8) for x in (-0.2, 0.2)]
    parts = [part("shade", limb) for leg in legs for limb in (leg, mirror(leg))]
    parts += [part("shade", arm), part("shade", mirror(arm))]
    parts += [
        part("main", claw),
        part("main", mirror(claw)),
        part("main", ellipse(0, 0.35, 0.6, h)),
    ]
    parts += [part("shade", box(-0.24, -0.2, -0.16, 0.1), box(0.16, -0.2, 0.24, 0.1))]
    return [
        *parts,
        part("white", *eye),
        part("black", *pupil),
        part("second", arc(0, 0.45, 0.3, 0.12, 0, 180)),
    ]


def _plane(v: random.Random) -> list[Part]:
    sweep = v.uniform(0.25, 0.5)
    wing = [(0.12, -0.25), (1.0, -0.25 + sweep), (1.0, -0.05 + sweep), (0.12, 0.2)]
    tail = [(0.08, 0.65), (0.42, 0.85), (0.42, 0.98), (0.08, 0.88)]
    return [
        part("second", wing),
        part("second", mirror(wing)),
        part("second", tail),
        part("second", mirror(tail)),
        part("main", [*arc(0, -0.7, 0.17, 0.35, 180, 360, n=10), (0.1, 0.95), (-0.1, 0.95)]),
        part("glass", arc(0, -0.72, 0.11, 0.2, 180, 360, n=8)),
        part("shade", box(-0.03, 0.5, 0.03, 1.0)),
        part("shade", box(0.45, 0.0, 0.57, 0.32), box(-0.57, 0.0, -0.45, 0.32)),
    ]


def _ladder(v: random.Random) -> list[Part]:
    n, w = v.choice((5, 6)), v.uniform(0.34, 0.46)
    rungs = [
        box(-w, -0.85 + 1.7 * i / (n - 1) - 0.06, w, -0.85 + 1.7 * i / (n - 1) + 0.06)
        for i in range(n)
    ]
    rails = [stroke([(s * w * 0.9, -1.0), (s * w * 1.1, 1.0)], 0.13) for s in (-1, 1)]
    return [part("shade", *rungs), part("main", rails[0]), part("main", rails[1])]


def _bottle(v: random.Random) -> list[Part]:
    w, neck = v.uniform(0.34, 0.44), v.uniform(0.11, 0.16)
    body = [
        (-neck, -0.75),
        (neck, -0.75),
        (neck, -0.4),
        (w, -0.05),
        (w, 1.0),
        (-w, 1.0),
        (-w, -0.05),
        (-neck, -0.4),
    ]
    return [
        part("main", body),
        part("tint", box(-w + 0.06, 0.0, -w + 0.15, 0.95)),
        part("white", box(-w, 0.2, w, 0.65)),
        part("second", box(-w, 0.32, w, 0.5)),
        part("wood", box(-neck - 0.04, -1.0, neck + 0.04, -0.72)),
    ]


def _snail(v: random.Random) -> list[Part]:
    r = v.uniform(0.55, 0.66)
    foot = [
        (-1.0, 0.9),
        (-0.95, 0.0),
        (-0.62, 0.0),
        (-0.5, 0.55),
        (1.0, 0.8),
        (1.0, 0.95),
        (-0.8, 0.98),
    ]
    feelers = [
        stroke([(-0.85, 0.05), (-1.0, -0.4)], 0.07),
        stroke([(-0.72, 0.05), (-0.66, -0.42)], 0.07),
    ]
    rings = (("main", 1.0), ("shade", 0.74), ("main", 0.58), ("shade", 0.34), ("main", 0.2))
    shell = [
        part(role, ellipse(0.15 - k * 0.04, 0.2 + k * 0.06, r * f, r * f))
        for k, (role, f) in enumerate(rings)
    ]
    tips = [ellipse(-1.0, -0.42, 0.08, 0.08, n=8), ellipse(-0.66, -0.44, 0.08, 0.08, n=8)]
    return [part("second", foot), part("second", *feelers), part("black", *tips), *shell]


PAINTERS: dict[str, Callable[[random.Random], list[Part]]] = {
    "tree": _tree, "house": _house, "car": _car, "boat": _boat, "fish": _fish, "bird": _bird,
    "cactus": _cactus, "umbrella": _umbrella, "flower": _flower, "mushroom": _mushroom,
    "star": _star, "kite": _kite, "chair": _chair, "cup": _cup, "lamp": _lamp, "clock": _clock,
    "snowman": _snowman, "bus": _bus, "tent": _tent, "crab": _crab, "plane": _plane,
    "ladder": _ladder, "bottle": _bottle, "snail": _snail,
}  # fmt: skip
