"""`make soak`: thousands of pictures through one model; memory, handles and threads stay flat.

Each picture has a size and words of its own. Every sixteenth goes through a file and the loader of
evaluations, with a worker process, every fourth is encoded once and asked twice.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import ovseg
from ovseg.config import load_cfg
from ovseg.data.loaders import TestLoader
from ovseg.data.mappers import TestMapper
from ovseg.predictor import Predictor
from ovseg.tinyscapes import render_scene
from ovseg.tinyscapes.world import ALL_NAMES

EVERY = 20
PER = 2000
MOST_BYTES = 50 * 2**20
"""What may be added by `PER` pictures."""
_SCENES = 16
_MIB = 2**20


@dataclass(frozen=True)
class Sample:
    """What the process holds after so many pictures."""

    picture: int
    resident: int
    handles: int
    processes: int
    threads: int

    @classmethod
    def take(cls, picture: int) -> Sample:
        """Look at this process."""
        status = dict(
            line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
        )
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        handles = len(list(Path("/proc/self/fd").iterdir()))
        resident = int(status["VmRSS"].split()[0]) * 1024
        return cls(picture, resident, handles, len(children), int(status["Threads"]))

    def __str__(self) -> str:
        return (
            f"picture {self.picture}: {self.resident / _MIB:.1f} MiB resident, "
            f"{self.handles} handles, {self.processes} processes, {self.threads} threads"
        )


class Walk:
    """Pictures of changing size and words, the same for one seed."""

    def __init__(self, predictor: Predictor, folder: Path, *, seed: int, longest: int) -> None:
        self._rng = random.Random(seed)
        self._scenes = [render_scene("val", number).image for number in range(_SCENES)]
        self._predictor, self._folder, self._longest = predictor, folder, longest
        self._mapper = TestMapper(load_cfg("ovseg_tiny"))

    def step(self, number: int) -> None:
        """Segment one picture."""
        picture, words = self._picture(), self._words(number)
        if number % 16 == 0:
            picture = self._through_a_loader(picture)
        if number % 4:
            results = [self._predictor.segment(picture, words, min_region_area=number % 3)]
        else:
            asked = self._predictor.set_image(picture)
            results = [asked.segment(words), asked.segment(words[::-1])]
        for result in results:
            assert result.labels.shape == picture.shape[:2]
            assert result.labels.min() >= 0 and result.labels.max() < len(words)

    def _picture(self) -> np.ndarray:
        scene = Image.fromarray(self._rng.choice(self._scenes))
        size = [self._rng.randint(24, self._longest) for _ in range(2)]
        return np.asarray(scene.resize(size))

    def _words(self, number: int) -> list[str]:
        known = self._rng.sample(ALL_NAMES, self._rng.randint(1, 6))
        return [*known, f"{self._rng.choice(ALL_NAMES)} of kind {number}"]

    def _through_a_loader(self, picture: np.ndarray) -> np.ndarray:
        file = self._folder / "picture.png"
        Image.fromarray(picture).save(file)
        record = {"file_name": str(file), "image_id": "picture"}
        loader = TestLoader(records=[record], mapper=self._mapper, num_workers=1)
        [[inputs]] = loader
        assert (inputs["height"], inputs["width"]) == picture.shape[:2]
        return picture


def soak(pictures: int, *, seed: int = 0, every: int = EVERY, longest: int = 320) -> list[Sample]:
    """Segment pictures and look at the process every so often.

    Args:
        pictures: how many.
        seed: of sizes and words.
        every: pictures between two samples.
        longest: side of the pictures, in pixels.

    Returns:
        The samples, the first before any picture.
    """
    predictor = ovseg.load("ovseg_tiny", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        walk = Walk(predictor, Path(folder), seed=seed, longest=longest)
        samples = [Sample.take(0)]
        for number in range(1, pictures + 1):
            walk.step(number)
            if number % every == 0:
                gc.collect()
                samples.append(Sample.take(number))
    return samples


def slope(samples: Sequence[Sample]) -> float:
    """Bytes that a picture adds, by the straight line of least squares."""
    return float(np.polyfit([s.picture for s in samples], [s.resident for s in samples], 1)[0])


def judge(samples: Sequence[Sample], *, after: int, most: int = MOST_BYTES) -> list[str]:
    """Say what grows.

    Args:
        samples: of a run.
        after: pictures that are left to fill caches.
        most: bytes that `PER` pictures may add.

    Returns:
        A line for each thing that grows.
    """
    settled = [sample for sample in samples if sample.picture >= after]
    first, last = settled[0], settled[-1]
    wrong = []
    if (grown := slope(settled) * PER) > most:
        wrong.append(f"resident memory grows by {grown / _MIB:.1f} MiB in {PER} pictures")
    for before, now, what in zip(
        astuple(first)[2:], astuple(last)[2:], ("handles", "processes", "threads"), strict=True
    ):
        if now > before:
            wrong.append(f"{what} grow from {before} to {now}")
    return wrong


def main(words: Sequence[str] | None = None) -> int:
    """Soak and print; the status is 1 where something grows."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--pictures", type=int, default=PER)
    parser.add_argument("--after", type=int, default=200, help="pictures that may fill caches")
    parser.add_argument("--every", type=int, default=EVERY, help="pictures between two samples")
    parser.add_argument("--longest", type=int, default=320, help="side of the pictures")
    parser.add_argument("--most", type=float, default=MOST_BYTES / _MIB, help=f"MiB in {PER}")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    if not 0 <= args.after <= args.pictures - 2 * args.every:
        parser.error("expected --after to leave two samples or more")
    samples = soak(args.pictures, seed=args.seed, every=args.every, longest=args.longest)
    settled = [sample for sample in samples if sample.picture >= args.after]
    print(samples[0], settled[0], settled[-1], sep="\n")
    grown, most = slope(settled), max(sample.resident for sample in settled)
    print(
        f"slope: {grown:.0f} bytes a picture, {grown * PER / _MIB:.1f} MiB in {PER} pictures; "
        f"at most {most / _MIB:.1f} MiB"
    )
    wrong = judge(samples, after=args.after, most=round(args.most * _MIB))
    print(*wrong or ["nothing grows"], sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
