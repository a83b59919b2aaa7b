"""Ways measured in turns: one round of each, then the next of each.

What disturbs a machine for a while then disturbs all ways, not the one that had its turn.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from ovseg.benchmark.cost import held_bytes, measure, peak_bytes, wait_for
from ovseg.benchmark.stage_times import stopwatch
from ovseg.benchmark.ways import ReadyWay
from ovseg.vocab import TextStore, Vocabulary

__all__ = ["Subject", "Watch", "count_operations", "matmul_peak", "measure_round", "measure_ways"]


@dataclass(frozen=True, eq=False)
class Subject:
    """What every way is asked.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        vocabulary: K classes, whose texts are known after the first picture.
        words: other classes, asked of a picture that is known.
    """

    picture: np.ndarray
    vocabulary: Vocabulary
    words: Vocabulary


class Watch:
    """Seconds and peaks of memory by name.

    Args:
        device: where the work is done.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = {}
        self.peak_bytes: dict[str, int | None] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure a block; its peak is above what was held when it began."""
        before = held_bytes(self.device)
        wait_for(self.device)
        began = time.perf_counter()
        yield
        wait_for(self.device)
        self.seconds[name] = time.perf_counter() - began
        peak = peak_bytes(self.device)
        known = before is not None and peak is not None
        self.peak_bytes[name] = max(peak - before, 0) if known else None  # type: ignore[operator]


@torch.no_grad()
def measure_round(ready: ReadyWay, subject: Subject) -> tuple[dict[str, Any], np.ndarray]:
    """Measure one way once, from an empty bank of texts.

    Args:
        ready: the way.
        subject: what it is asked.

    Returns:
        For JSON: `seconds` and `peak_bytes` of "texts" (the vocabulary's, encoded and kept),
        "picture" (encoded, and labelled with texts that are known), "words" (on that picture),
        and of looking the vocabulary's texts up, "memory" and "disk" (of another program; where
        nothing is kept, they are encoded again); `stages` of the picture in seconds; `kept_bytes`
        of the texts in "memory" and on "disk". And the labels (H, W) of the picture.
    """
    watch = Watch(ready.model.device)
    with tempfile.TemporaryDirectory() as folder, ready.active() as bank:
        file = Path(folder) / "texts.sqlite"
        if ready.keeps_texts:
            bank.keep_in(TextStore(file))
        bank.clear()
        try:
            with watch("texts"):
                features = bank.features(subject.vocabulary)
            with watch("memory"):
                bank.features(subject.vocabulary)
            with stopwatch(ready.model) as stages, watch("picture"):
                picture = ready.predictor.set_image(subject.picture)
                found = picture.segment(subject.vocabulary)
            kept = {"memory": features.nbytes, "disk": _size(file)}
            with watch("words"):
                picture.segment(subject.words)
            bank.clear()
            if kept["disk"]:
                with watch("disk"):
                    bank.features(subject.vocabulary)
            else:
                watch.seconds["disk"] = watch.seconds["texts"]
        finally:
            bank.keep_in(None)
    rest = watch.seconds["picture"] - sum(stages.values())
    record = {
        "seconds": watch.seconds,
        "peak_bytes": watch.peak_bytes,
        "stages": {**stages, "all else": rest},
        "kept_bytes": kept,
    }
    return record, found.labels


@torch.no_grad()
def count_operations(ready: ReadyWay, subject: Subject) -> dict[str, Any]:
    """Count what a way computes in matrix products and convolutions, two for a multiply-add.

    Args:
        ready: the way.
        subject: what it is asked.

    Returns:
        For JSON: operations of "texts", "picture" and "words" as in `measure_round`, and of the
        `stages` of the picture. Products that torch's counter does not know count nothing, such
        as those of integers.
    """
    fast_attention = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # one operation, which the counter cannot open
    try:
        with ready.active() as bank, FlopCounterMode(display=False) as counter:
            bank.clear()
            done = _Difference(counter.get_total_flops)
            bank.features(subject.vocabulary)
            texts = done()
            with stopwatch(ready.model, counter.get_total_flops) as stages:
                picture = ready.predictor.set_image(subject.picture)
                picture.segment(subject.vocabulary)
            whole = done()
            picture.segment(subject.words)
            counted = {"texts": texts, "picture": whole, "words": done()}
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_attention)
    return {**counted, "stages": {**stages, "all else": whole - sum(stages.values())}}


def matmul_peak(device: torch.device, precision: str = "float32") -> float:
    """Measure the machine's fastest product of large square matrices.

    Args:
        device: to compute on.
        precision: "float32" or "bfloat16". Of the latter the matrices are small on a processor,
            where it may take a hundred times as long.

    Returns:
        Operations a second, two for a multiply-add.
    """
    size = 8192 if device.type == "cuda" else {"float32": 2048, "bfloat16": 512}[precision]
    one, other = torch.randn(2, size, size, device=device).to(getattr(torch, precision))
    return 2 * size**3 / measure(lambda: one @ other, device=device).seconds


def measure_ways(
    ways: Sequence[ReadyWay],
    subject: Subject,
    *,
    repeats: int,
    report: Callable[[dict[str, Any]], None],
) -> None:
    """Measure ways in rounds, after one run of each whose operations are counted.

    Args:
        ways: the reference first.
        subject: what they are asked.
        repeats: rounds.
        report: is given after every round what is known so far, for JSON: `matmul`, see
            `matmul_peak`, by precision, and `ways` by title: `opts`, `without`, `operations` of
            `count_operations`, `rounds` of `measure_round`, and `agreement`, the share of the
            picture's pixels that have the reference's label.
    """
    device = ways[0].model.device
    peaks = {name: matmul_peak(device, name) for name in ("float32", "bfloat16")}
    found: dict[str, dict[str, Any]] = {
        ready.way.title: {
            "opts": list(ready.way.opts),
            "without": list(ready.way.without),
            "operations": count_operations(ready, subject),
            "rounds": [],
        }
        for ready in ways
    }
    for _ in range(repeats):
        labels = {}
        for ready in ways:
            title = ready.way.title
            record, labels[title] = measure_round(ready, subject)
            found[title]["rounds"].append(record)
            reference = labels[ways[0].way.title]
            found[title]["agreement"] = float((labels[title] == reference).mean())
        peaks["float32"] = max(peaks["float32"], matmul_peak(device))
        report({"matmul": peaks, "ways": found})


class _Difference:
    """What a reading grew by since it was asked last."""

    def __init__(self, read: Callable[[], float]) -> None:
        self._read = read
        self._last = read()

    def __call__(self) -> float:
        last, self._last = self._last, self._read()
        return self._last - last


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
