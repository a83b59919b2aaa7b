"""How the things look that training labels never show (see `things_seen`)."""

from __future__ import annotations

import random
from collections.abc import Callable

from .shapes import Part, arc, box, ellipse, mirror, part, radial, stroke


def _balloon(v: random.Random) -> list[Part]:
    w = v.uniform(0.55, 0.65)
    string = [(0, 0.35), (0.1, 0.55), (-0.08, 0.75), (0.05, 1.0)]
    return [
        part("black", stroke(string, 0.05)),
        part("shade", [(0, 0.2), (0.13, 0.4), (-0.13, 0.4)]),
        part("main", [*arc(0, -0.4, w, 0.6, 150, 390, n=18), (0.0, 0.28)]),
        part("tint", ellipse(-0.22, -0.6, 0.12, 0.2, turn=20)),
    ]


def _bicycle(v: random.Random) -> list[Part]:
    r = v.uniform(0.4, 0.46)
    wheels = [
        part("black", ellipse(x, 0.5, r, r), ellipse(x, 0.5, r - 0.1, r - 0.1))
        for x in (-0.56, 0.56)
    ]
    bars = [
        [(-0.56, 0.5), (-0.25, -0.15)],
        [(-0.25, -0.15), (0.05, 0.5)],
        [(-0.56, 0.5), (0.05, 0.5)],
        [(0.05, 0.5), (0.42, -0.15)],
        [(-0.25, -0.12), (0.42, -0.12)],
        [(0.56, 0.5), (0.36, -0.4)],
    ]
    return [
        *wheels,
        *[part("main", stroke(bar, 0.12)) for bar in bars],
        part("black", box(-0.45, -0.3, -0.1, -0.18)),
        part("black", stroke([(0.36, -0.4), (0.55, -0.5), (0.68, -0.4)], 0.1)),
        part("second", ellipse(0.05, 0.5, 0.12, 0.12)),
    ]


def _rocket(v: random.Random) -> list[Part]:
    w = v.uniform(0.28, 0.36)
    body = [
        (0, -1.0),
        (w * 0.7, -0.65),
        (w, -0.2),
        (w * 0.9, 0.5),
        (-w * 0.9, 0.5),
        (-w, -0.2),
        (-w * 0.7, -0.65),
    ]
    fin = [(w * 0.8, 0.05), (w + 0.34, 0.5), (w + 0.3, 0.75), (w * 0.8, 0.5)]
    return [
        part("flame", [(-0.2, 0.5), (0.2, 0.5), (0.1, 0.8), (0, 1.05), (-0.1, 0.8)]),
        part("second", fin),
        part("second", mirror(fin)),
        part("main", body),
        part("second", [(0, -1.0), (w * 0.7, -0.65), (-w * 0.7, -0.65)]),
        part("white", ellipse(0, -0.25, 0.19, 0.19)),
        part("glass", ellipse(0, -0.25, 0.13, 0.13)),
        part("shade", box(-w * 0.88, 0.4, w * 0.88, 0.5)),
    ]


def _duck(v: random.Random) -> list[Part]:
    r = v.uniform(0.33, 0.38)
    return [
        part("main", [(0.3, 0.3), (1.0, -0.1), (0.9, 0.6), (0.4, 0.8)]),
        part("main", ellipse(0.1, 0.55, 0.78, 0.45)),
        part("main", [(-0.65, 0.5), (-0.55, -0.2), (-0.1, -0.2), (0.1, 0.4)]),
        part("main", ellipse(-0.35, -0.45, r, r)),
        part("beak", [(-0.62, -0.5), (-1.05, -0.4), (-1.0, -0.25), (-0.6, -0.27)]),
        part("black", ellipse(-0.47, -0.54, 0.07, 0.07)),
        part("shade", ellipse(0.25, 0.5, 0.42, 0.22, turn=-15)),
    ]


def _penguin(v: random.Random) -> list[Part]:
    w = v.uniform(0.44, 0.52)
    flipper = [(w * 0.7, -0.3), (w + 0.28, 0.35), (w + 0.1, 0.4), (w * 0.8, 0.1)]
    return [
        part("beak", ellipse(-0.24, 0.93, 0.22, 0.1), ellipse(0.24, 0.93, 0.22, 0.1)),
        part("shade", flipper),
        part("shade", mirror(flipper)),
        part("main", ellipse(0, 0.2, w, 0.75)),
        part("main", ellipse(0, -0.6, 0.35, 0.38)),
        part("white", ellipse(0, 0.3, w * 0.68, 0.55)),
        part("white", ellipse(-0.13, -0.62, 0.13, 0.16), ellipse(0.13, -0.62, 0.13, 0.16)),
        part("black", ellipse(-0.11, -0.62, 0.06, 0.07), ellipse(0.11, -0.62, 0.06, 0.07)),
        part("beak", [(-0.13, -0.5), (0.13, -0.5), (0, -0.28)]),
    ]


def _guitar(v: random.Random) -> list[Part]:
    low = v.uniform(0.46, 0.54)
    return [
        part("wood", box(-0.09, -0.85, 0.09, 0.1)),
        part("second", [(-0.15, -1.05), (0.15, -1.05), (0.12, -0.78), (-0.12, -0.78)]),
        part("main", ellipse(0, 0.1, 0.38, 0.3)),
        part("main", ellipse(0, 0.6, low, 0.42)),
        part("black", ellipse(0, 0.3, 0.17, 0.15)),
        part("wood", box(-0.22, 0.68, 0.22, 0.78)),
        part("white", *[box(x, -0.85, x + 0.025, 0.7) for x in (-0.06, 0.04)]),
    ]


def _windmill(v: random.Random) -> list[Part]:
    spin = v.uniform(15, 75)
    blades = []
    for tip in (spin, spin + 90, spin + 180, spin + 270):
        x, y = radial(0, 0, [0.72], start=tip)[0]
        nx, ny = -y * 0.28, x * 0.28
        cx, cy = 0.22 * x, -0.35 + 0.22 * y
        blades.append([(cx, cy), (x, y - 0.35), (x + nx, y + ny - 0.35), (cx + nx, cy + ny)])
    arms = [stroke([(0, -0.35), (b[1][0], b[1][1])], 0.06) for b in blades]
    return [
        part("main", [(-0.26, -0.35), (0.26, -0.35), (0.45, 1.0), (-0.45, 1.0)]),
        part("shade", arc(0, -0.35, 0.3, 0.28, 180, 360, n=10)),
        part("wood", [*arc(0, 0.72, 0.14, 0.14, 180, 360, n=8), (0.14, 1.0), (-0.14, 1.0)]),
        part("glass", box(-0.09, 0.15, 0.09, 0.36)),
        *[part("second", blade) for blade in blades],
        *[part("black", arm) for arm in arms],
        part("black", ellipse(0, -0.35, 0.09, 0.09, n=10)),
    ]


def _butterfly(v: random.Random) -> list[Part]:
    up, low = v.uniform(0.46, 0.54), v.uniform(0.34, 0.42)
    upper, lower = ellipse(0.5, -0.35, up, 0.4, turn=-35), ellipse(0.42, 0.4, low, 0.34, turn=30)
    dot, dot2 = ellipse(0.55, -0.4, 0.2, 0.16), ellipse(0.45, 0.42, 0.15, 0.13)
    feeler = stroke([(0.03, -0.5), (0.12, -0.8), (0.28, -1.0)], 0.06)
    return [
        part("main", upper),
        part("main", mirror(upper)),
        part("shade", lower),
        part("shade", mirror(lower)),
        part("second", dot, mirror(dot), dot2, mirror(dot2)),
        part("black", feeler, mirror(feeler)),
        part("black", ellipse(0, 0.05, 0.1, 0.62)),
    ]


def _battlement(x0: float, x1: float, y: float, n: int) -> list[tuple[float, float]]:
    step = (x1 - x0) / (2 * n - 1)
    points = []
    for i in range(2 * n - 1):
        level = y - 0.16 if i % 2 == 0 else y
        points += [(x0 + i * step, level), (x0 + (i + 1) * step, level)]
    return points


def _castle(v: random.Random) -> list[Part]:
    top = v.uniform(-0.6, -0.45)
    flag = [(0, -1.0), (0.35, -0.87), (0, -0.75)]
    return [
        part("black", box(-0.03, -1.0, 0.03, -0.2)),
        part("second", flag),
        part("main", [*_battlement(-0.25, 0.25, -0.25, 3), (0.25, 0.4), (-0.25, 0.4)]),
        part("main", [*_battlement(-0.6, 0.6, 0.15, 5), (0.6, 1.0), (-0.6, 1.0)]),
        part("shade", [*_battlement(-1.0, -0.5, top, 3), (-0.5, 1.0), (-1.0, 1.0)]),
        part("shade", [*_battlement(0.5, 1.0, top, 3), (1.0, 1.0), (0.5, 1.0)]),
        part("wood", [*arc(0, 0.65, 0.23, 0.23, 180, 360, n=8), (0.23, 1.0), (-0.23, 1.0)]),
        part("black", box(-0.8, -0.2, -0.7, 0.15), box(0.7, -0.2, 0.8, 0.15)),
    ]


def _moon(v: random.Random) -> list[Part]:
    bite = v.uniform(0.25, 0.45)
    outer = arc(0, 0, 0.95, 0.95, 60, 300, n=22)
    inner = arc(bite + 0.08, 0, 0.84, 0.83, 277, 83, n=18)
    spots = [ellipse(-0.72, -0.1, 0.1, 0.1, n=10), ellipse(-0.55, 0.45, 0.08, 0.08, n=10)]
    return [part("main", [*outer, *inner]), part("shade", *spots)]


def _candle(v: random.Random) -> list[Part]:
    w, top = v.uniform(0.2, 0.28), v.uniform(-0.35, -0.2)
    drip = [
        (-w, top),
        (w, top),
        (w, top + 0.4),
        (w * 0.5, top + 0.22),
        (0, top + 0.34),
        (-w * 0.4, top + 0.15),
        (-w, top + 0.5),
    ]
    return [
        part("metal", [*arc(0, 0.85, 0.62, 0.15, 180, 360, n=10), (0.45, 1.0), (-0.45, 1.0)]),
        part("metal", ellipse(0.68, 0.78, 0.2, 0.17, n=12), ellipse(0.68, 0.78, 0.1, 0.08, n=12)),
        part("main", box(-w, top, w, 0.85)),
        part("tint", drip),
        part("black", box(-0.03, top - 0.15, 0.03, top)),
        part(
            "flame",
            [
                (0, -1.0),
                (0.17, top - 0.25),
                (0.1, top - 0.08),
                (-0.1, top - 0.08),
                (-0.17, top - 0.25),
            ],
        ),
        part("white", ellipse(0, top - 0.2, 0.06, 0.1, n=10)),
    ]


def _carrot(v: random.Random) -> list[Part]:
    w = v.uniform(0.32, 0.4)
    leaves = [
        part("leaf", ellipse(x, -0.72, 0.1, 0.32, turn=turn))
        for x, turn in ((-0.22, -30), (0.22, 30), (0, 0))
    ]
    rings = [
        box(-w * k, y, w * 0.1, y + 0.05) for y, k in ((-0.15, 0.85), (0.15, 0.62), (0.45, 0.4))
    ]
    return [
        *leaves,
        part(
            "main",
            [(-w, -0.3), (-w * 0.7, -0.46), (w * 0.7, -0.46), (w, -0.3), (0.05, 1.0), (-0.05, 1.0)],
        ),
        part("shade", *rings),
    ]


PAINTERS: dict[str, Callable[[random.Random], list[Part]]] = {
    "balloon": _balloon, "bicycle": _bicycle, "rocket": _rocket, "duck": _duck,
    "penguin": _penguin, "guitar": _guitar, "windmill": _windmill, "butterfly": _butterfly,
    "castle": _castle, "moon": _moon, "candle": _candle, "carrot": _carrot,
}  # fmt: skip
