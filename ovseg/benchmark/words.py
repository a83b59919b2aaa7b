"""One picture, many questions: what the first answer costs and what each further one."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ovseg.benchmark.cost import held_bytes, peak_bytes, wait_for
from ovseg.predictor import Predictor
from ovseg.vocab import Vocabulary


@dataclass(frozen=True)
class Words:
    """One picture asked one vocabulary after the other.

    Attributes:
        encode: seconds of `Predictor.set_image`.
        answers: seconds of `segment` per vocabulary, the encoding of its texts included.
        repeated: the same vocabularies once more, whose texts are known by then.
        peak_bytes: most memory held at a time on top of what was held before; None where the
            system does not tell.
    """

    encode: float
    answers: list[float]
    repeated: list[float]
    peak_bytes: int | None

    @property
    def first(self) -> float:
        """Seconds from the picture to the first answer."""
        return self.encode + self.answers[0]

    @property
    def further(self) -> float:
        """Median seconds of each further answer to new words."""
        return statistics.median(self.answers[1:])

    @property
    def known(self) -> float:
        """Median seconds of an answer to words that were asked before."""
        return statistics.median(self.repeated)

    def text(self) -> str:
        """Times, their ratios and memory in a few lines."""
        lines = [f"first answer {self.first * 1e3:.1f} ms"]
        for what, seconds in (("new words", self.further), ("known words", self.known)):
            ratio = self.first / seconds
            lines.append(f"each further one, {what}: {seconds * 1e3:.1f} ms ({ratio:.0f}x less)")
        if self.peak_bytes is not None:
            lines.append(f"peak memory {self.peak_bytes / 2**20:.0f} MiB")
        return "\n  ".join(lines)

    def record(self) -> dict[str, Any]:
        """The figures for JSON."""
        return {
            "encode_seconds": self.encode,
            "answer_seconds": self.answers,
            "repeated_seconds": self.repeated,
            "first_seconds": self.first,
            "further_seconds": self.further,
            "peak_bytes": self.peak_bytes,
        }


def draw_words(names: Sequence[str], count: int) -> list[list[str]]:
    """Draw ten of some names, then ten others; they come round again when all were drawn."""
    order = list(names)
    random.Random(0).shuffle(order)
    ten = min(10, len(order))
    starts = (ten * turn % len(order) for turn in range(count))
    return [(order + order)[start : start + ten] for start in starts]


def measure_words(
    predictor: Predictor, image: np.ndarray, questions: Sequence[Sequence[str] | Vocabulary]
) -> Words:
    """Ask one picture many questions.

    Args:
        predictor: any.
        image: (H, W, 3) uint8 RGB.
        questions: at least two lists of names, or vocabularies.

    Returns:
        What each of them cost.
    """
    device = predictor.model.device
    before = held_bytes(device)
    began = time.perf_counter()
    picture = predictor.set_image(image)
    wait_for(device)
    encode = time.perf_counter() - began
    times = []
    for names in [*questions, *questions]:
        began = time.perf_counter()
        picture.segment(names)  # returns when the labels are in main memory
        times.append(time.perf_counter() - began)
    peak = peak_bytes(device)
    held = None if before is None or peak is None else max(peak - before, 0)
    return Words(encode, times[: len(questions)], times[len(questions) :], held)
