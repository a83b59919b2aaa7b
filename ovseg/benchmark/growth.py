"""How time and memory grow with names, pixels, proposals and pictures at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.benchmark.rounds import Subject, Watch
from ovseg.benchmark.ways import ReadyWay
from ovseg.encoded_picture import EncodedPicture
from ovseg.modeling.encoding import MaskEncoding
from ovseg.utils.resizing import resize, resize_shortest_edge
from ovseg.vocab import Vocabulary, class_list, class_list_names

__all__ = [
    "GROWING",
    "fit_exponent",
    "made_up_names",
    "measure_growth",
    "parse_growth",
    "repeat_masks",
]

GROWING: Mapping[str, tuple[float, ...]] = {
    "names": (20, 200, 2000, 20_000),
    "pixels": (0.3, 1, 3, 10, 30, 100),
    "proposals": (10, 30, 100, 300),
    "batch": (1, 2, 4, 8),
}
"""What can grow, and its usual sizes; pixels are millions of them."""

_PREFIXES = (
    *("old", "new", "small", "large", "red", "blue", "green", "white", "black", "wooden"),
    *("broken", "painted", "distant", "wet", "striped", "folded", "rusty", "empty"),
)


def fit_exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Fit values = factor * size ** exponent: least squares of their logarithms.

    Args:
        sizes: at least two that differ, above 0.
        values: one each, above 0.

    Returns:
        The exponent; NaN where it cannot be told.
    """
    if len({*sizes}) < 2 or min(values) <= 0:
        return math.nan
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def parse_growth(words: Sequence[str]) -> dict[str, tuple[float, ...]]:
    """Read what is to grow.

    Args:
        words: keys of `GROWING`, each with sizes of its own if wanted: names=20,200.

    Returns:
        The sizes by key, ascending.

    Raises:
        ValueError: something else.
    """
    found = {}
    for word in words:
        kind, given, listed = word.partition("=")
        try:
            sizes = [float(size) for size in listed.split(",")] if given else list(GROWING[kind])
            whole = kind == "pixels" or all(size == int(size) >= 1 for size in sizes)
            if kind not in GROWING or not whole or not 0 < min(sizes) < math.inf:
                raise ValueError(word)
        except (KeyError, ValueError, OverflowError) as error:
            raise ValueError(
                f"--grow: expected {', '.join(GROWING)}, each alone or with sizes above 0 as in "
                f"names=20,200, got {word!r}"
            ) from error
        found[kind] = tuple(sorted({*sizes}))
    return found


def made_up_names(count: int) -> list[str]:
    """Make names that differ: those of all class lists, then each with a word in front, and so on.

    Args:
        count: how many.
    """
    listed = [text for name in class_list_names() for text in class_list(name).names]
    known = list(dict.fromkeys(text.strip() for text in listed))
    names, fronts = list(known), [""]
    while len(names) < count:
        fronts = [f"{word} {front}" for front in fronts for word in _PREFIXES]
        names += [f"{front.strip()} {name}" for front in fronts for name in known]
        names = list(dict.fromkeys(names))
    return names[:count]


@torch.no_grad()
def measure_growth(
    ways: Sequence[ReadyWay],
    kind: str,
    sizes: Sequence[float],
    subject: Subject,
    *,
    repeats: int,
) -> dict[str, Any]:
    """Measure ways on growing sizes, in rounds: all ways on one size, then once more.

    Args:
        ways: of plain inference, without tiles or flips.
        kind: a key of `GROWING`.
        sizes: ascending.
        subject: the picture, and the classes that names do not replace.
        repeats: rounds.

    Returns:
        For JSON: `sizes`, and under `ways` by title the `seconds` of each part and the
        `peak_bytes` in the order of the sizes, medians and the most, and the `spread` of the
        seconds, pairs of least and most.

    Raises:
        ValueError: a way puts views around its model, or none of the masks is valid.
    """
    grow = _GROW[kind]
    known = {}
    for ready in ways:
        with ready.active():
            known[ready.way.title] = _encode(ready, subject)
            grow(ready, known[ready.way.title], sizes[0], subject)  # the first run does not count
    watches: dict[str, list[list[Watch]]] = {ready.way.title: [] for ready in ways}
    for size in sizes:
        for title in watches:
            watches[title].append([])
        for _ in range(repeats):
            for ready in ways:
                title = ready.way.title
                with ready.active():
                    watches[title][-1].append(grow(ready, known[title], size, subject))
    return {
        "sizes": list(sizes),
        "ways": {title: _medians(found) for title, found in watches.items()},
    }


def _medians(found: Sequence[Sequence[Watch]]) -> dict[str, Any]:
    parts = list(found[0][0].seconds)
    seconds = {part: [[one.seconds[part] for one in runs] for runs in found] for part in parts}
    peaks = [
        [peak for one in runs for peak in one.peak_bytes.values() if peak is not None]
        for runs in found
    ]
    return {
        "seconds": {part: list(map(statistics.median, runs)) for part, runs in seconds.items()},
        "spread": {part: [[min(r), max(r)] for r in runs] for part, runs in seconds.items()},
        "peak_bytes": [max(runs, default=None) for runs in peaks],
    }


def _encode(ready: ReadyWay, subject: Subject) -> EncodedPicture:
    picture = ready.predictor.set_image(subject.picture)
    if not isinstance(picture.encoding, MaskEncoding):
        raise ValueError(
            f"{ready.way.title}: expected plain inference to grow, got a config with views "
            "(TEST.AUG or TEST.SLIDING_WINDOW); switch them off"
        )
    return picture


def _grow_names(ready: ReadyWay, known: EncodedPicture, size: float, _: Subject) -> Watch:
    """Texts of so many names, encoded anew, and their answer on a known picture."""
    watch = Watch(ready.model.device)
    words = Vocabulary.make(made_up_names(int(size)), templates=ready.model.templates)
    bank = ready.model.clip_adapter.text_bank
    bank.clear()
    with watch("texts"):
        bank.features(words)
    with watch("answer"):
        known.segment(words)
    return watch


def _grow_pixels(ready: ReadyWay, known: EncodedPicture, size: float, subject: Subject) -> Watch:
    """A picture of so many megapixels: brought to the network's size, and answered at its own."""
    watch = Watch(ready.model.device)
    height, width = subject.picture.shape[:2]
    scale = math.sqrt(size * 1e6 / (height * width))
    shape = (max(1, round(scale * height)), max(1, round(scale * width)))
    picture = resize(subject.picture, shape)
    predictor = ready.predictor
    encoding = replace(known.encoding, output_size=shape)  # type: ignore[type-var]
    ready.model.clip_adapter.text_bank.features(subject.vocabulary)
    with watch("resizing"):
        resize_shortest_edge(picture, predictor.short_side, predictor.max_side)
    with watch("answer"):
        EncodedPicture(predictor, picture, encoding, {}).segment(subject.vocabulary)
    return watch


def _grow_proposals(ready: ReadyWay, known: EncodedPicture, size: float, subject: Subject) -> Watch:
    """So many masks named by CLIP, and merged."""
    watch = Watch(ready.model.device)
    model = ready.model
    assert isinstance(known.encoding, MaskEncoding)
    valid = model.region_features(known.encoding).valid
    encoding = repeat_masks(known.encoding, int(size), valid)
    model.clip_adapter.text_bank.features(subject.vocabulary)
    with watch("CLIP"):
        model.region_features(encoding)
    with watch("answer"):
        model.decode(encoding, subject.vocabulary).labels()
    return watch


def _grow_batch(ready: ReadyWay, _: EncodedPicture, size: float, subject: Subject) -> Watch:
    """So many pictures in one batch, from their pixels to their labels."""
    watch = Watch(ready.model.device)
    predictor = ready.predictor
    height, width = subject.picture.shape[:2]
    small = resize_shortest_edge(subject.picture, predictor.short_side, predictor.max_side)
    image = torch.from_numpy(small.transpose(2, 0, 1).copy())  # (3, h, w)
    inputs = [
        {"image": image.roll(16 * turn, 2), "height": height, "width": width}
        for turn in range(int(size))
    ]
    ready.model.clip_adapter.text_bank.features(subject.vocabulary)
    with watch("batch"):
        for prediction in predictor.model.predict(inputs, subject.vocabulary):
            prediction.labels()
    return watch


_GROW: Mapping[str, Callable[[ReadyWay, EncodedPicture, float, Subject], Watch]] = {
    "names": _grow_names,
    "pixels": _grow_pixels,
    "proposals": _grow_proposals,
    "batch": _grow_batch,
}


def repeat_masks(encoding: MaskEncoding, count: int, valid: Tensor) -> MaskEncoding:
    """Make an encoding of so many masks, which differ: the valid ones, and these moved around.

    Args:
        encoding: of Q masks.
        count: of the result's masks; what leaves the picture on one side comes in on the other.
        valid: (Q,) bool, at least one.

    Returns:
        The encoding, without features of regions.

    Raises:
        ValueError: no mask is valid.
    """
    chosen = valid.nonzero()[:, 0]
    if not len(chosen):
        raise ValueError("proposals: expected a picture with a mask to repeat, got none")
    index = chosen[torch.arange(count, device=chosen.device) % len(chosen)]
    height, width = encoding.mask_logits.shape[1:]
    moved = [
        encoding.mask_logits[q].roll((turn * height // 7, turn * width // 5), (0, 1))
        for turn, q in ((n // len(chosen), q) for n, q in enumerate(index.tolist()))
    ]
    return replace(
        encoding,
        mask_logits=torch.stack(moved),
        class_embeddings=encoding.class_embeddings[index],
        quality=None if encoding.quality is None else encoding.quality[index],
        regions={},
    )
