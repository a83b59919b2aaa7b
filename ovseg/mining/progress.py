"""How far a run is, how fast it goes, and when it will be done."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from ovseg.data.captions.sources import Shard

__all__ = ["Progress"]

logger = logging.getLogger(__name__)

_SECONDS_BETWEEN = 10.0


class Progress:
    """Counts finished shards and logs a line every few seconds.

    Args:
        shards: all shards of the run.
        pending: those that are not finished yet.
    """

    def __init__(self, shards: Sequence[Shard], pending: Sequence[Shard]) -> None:
        self._shards = len(shards)
        self._images = sum(len(shard.rows) for shard in shards)
        self._shards_before = len(shards) - len(pending)
        self._images_before = self._images - sum(len(shard.rows) for shard in pending)
        self._counts: Counter[str] = Counter()
        self._mining_seconds = 0.0  # of all workers
        self._done = 0
        self._began = self._said = time.monotonic()
        if self._shards_before:
            logger.info(
                "%d of %d shards are finished already and stay as they are",
                self._shards_before,
                self._shards,
            )

    def add(self, counts: Mapping[str, float]) -> None:
        """Take note of a finished shard.

        Args:
            counts: its counts, and the seconds that it took.
        """
        self._done += 1
        self._mining_seconds += counts.get("seconds", 0.0)
        self._counts.update({k: int(v) for k, v in counts.items() if k != "seconds"})
        now = time.monotonic()
        if now - self._said >= _SECONDS_BETWEEN or self._shards_before + self._done == self._shards:
            self._said = now
            logger.info("%s", self.line())

    def line(self) -> str:
        """Say in one line how far the run is."""
        images = self._images_before + self._counts["images_in"]
        rate = self._counts["images_in"] / max(time.monotonic() - self._began, 1e-9)
        left = (self._images - images) / rate if rate else float("inf")
        return (
            f"shard {self._shards_before + self._done:,}/{self._shards:,}  "
            f"{images:,}/{self._images:,} images ({images / max(self._images, 1):.1%})  "
            f"{rate:.2f} images/s  {self._counts['pairs']:,} pairs  "
            f"{self._counts['images_quarantined']:,} set aside  ETA {_duration(left)}"
        )

    def figures(self) -> dict[str, float]:
        """Give the figures of what this process saw of the run.

        Returns:
            Seconds, the images and shards mined in them, and images per second.
        """
        seconds = time.monotonic() - self._began
        images = self._counts["images_in"]
        return {
            "seconds": round(seconds, 3),
            "images_mined": images,
            "shards_mined": self._done,
            "shards_found_finished": self._shards_before,
            "images_per_second": round(images / max(seconds, 1e-9), 3),
            "images_per_second_and_worker": round(images / max(self._mining_seconds, 1e-9), 3),
        }


def _duration(seconds: float) -> str:
    if seconds == float("inf"):
        return "unknown"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days} d {hours:02d}:{minutes:02d}" if days else f"{hours}:{minutes:02d}:{rest:02d}"
