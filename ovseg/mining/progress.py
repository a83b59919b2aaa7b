"""How far a run is, for those who wait for it, and how fast it was, for its record."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from tqdm import tqdm

from ovseg.data.captions.sources import Shard
from ovseg.utils.wording import counted

__all__ = ["watch"]

logger = logging.getLogger(__name__)


def watch(
    finished: Iterable[Mapping[str, float]],
    shards: Sequence[Shard],
    pending: Sequence[Shard],
    *,
    show: bool = True,
    tally: str = "pairs",
    verb: str = "mined",
) -> dict[str, float]:
    """Show a bar while shards are mined, to the last of them.

    Args:
        finished: of each shard, once it is mined, its counts and the `seconds` that it took.
        shards: all shards of the run.
        pending: those that are to be mined.
        show: draw the bar.
        tally: the count that the bar shows.
        verb: what is done with images and shards, for the names of their figures.

    Returns:
        Figures of what this process saw of the run: seconds, the images and shards mined in them,
        and images per second.
    """
    images, left = (sum(len(shard.rows) for shard in part) for part in (shards, pending))
    counts: Counter[str] = Counter()
    worker_seconds, done = 0.0, 0  # the seconds are of all workers
    began = time.perf_counter()
    # Without smoothing, as shards of many workers come in bursts.
    with tqdm(
        total=images, initial=images - left, unit="image", smoothing=0, disable=not show
    ) as bar:
        for shard in finished:
            done += 1
            worker_seconds += shard["seconds"]
            counts.update({name: int(shard[name]) for name in shard if name != "seconds"})
            quarantined = f"{counts['images_quarantined']:,}"
            shown = {tally: f"{counts[tally]:,}", "quarantined": quarantined}
            bar.set_postfix(shown, refresh=False)
            bar.update(int(shard["images_in"]))
    seconds, mined = time.perf_counter() - began, counts["images_in"]
    if len(pending) < len(shards):  # said last: it is the workers who find another run's folder
        logger.info(
            "%d of %s had been finished earlier and stay as they are",
            *(len(shards) - len(pending), counted(len(shards), "shard")),
        )
    return {
        "seconds": round(seconds, 3),
        f"images_{verb}": mined,
        f"shards_{verb}": done,
        "shards_found_finished": len(shards) - len(pending),
        "images_per_second": round(mined / max(seconds, 1e-9), 3),
        "images_per_second_and_worker": round(mined / max(worker_seconds, 1e-9), 3),
    }
