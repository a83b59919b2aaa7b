"""Running the miner over all shards, by any executor of `ovseg.utils.shard_runs`.

What is mined is the business of `ovseg.mining.shards`, and how it becomes files that of
`ovseg.mining.worker`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ovseg.data.captions.sources import Shard, Source
from ovseg.mining.finish import SUCCESS, finish
from ovseg.mining.parts import MiningConfig, MiningError, MiningParts
from ovseg.mining.progress import watch
from ovseg.mining.worker import Job, parts_of, start_worker
from ovseg.utils.folder_lock import only_run
from ovseg.utils.shard_runs import DRY_RUN_IMAGES, EXECUTORS, ShardRun

__all__ = ["EXECUTORS", "first_images", "run_mining"]


def run_mining(
    source: Source,
    config: MiningConfig,
    output: str | Path,
    *,
    make_parts: Callable[[], MiningParts],
    executor: str = "local",
    workers: int = 1,
    limit: int | None = None,
) -> dict[str, Any] | None:
    """Mine a source into a folder, or go on with a run that was interrupted.

    Shards that are finished are left as they are. See `ovseg.mining.worker` for the files.

    Args:
        source: pictures with captions.
        config: the settings.
        output: the run's folder; on a file system that all workers share.
        make_parts: builds the models in each worker; a picklable function or object.
        executor: "local" (processes of this machine), "torchrun" (this process is one of several
            ranks), "ray" (actors of the cluster that RAY_ADDRESS names, else of a local one), or
            "dry-run" (this process, and 100 pictures at most).
        workers: processes or actors; under torchrun the number of ranks counts instead.
        limit: mine the first so many pictures only.

    Returns:
        The summary; None on the ranks of torchrun above 0.

    Raises:
        ValueError: an unknown executor, or fewer than one worker or picture.
        MiningRunError: the folder holds another run.
        MiningError: a worker died.
        BusyFolderError: another run is writing to the folder.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"expected at least 1 worker and 1 picture, got {workers} and {limit}")
    if executor == "dry-run":
        limit = min(limit or DRY_RUN_IMAGES, DRY_RUN_IMAGES)
    shards = first_images(source.shards(config.shard_size), limit)
    described = _describe(source, shards)
    job = Job(config, Path(output), described, Path(source.image_root), make_parts)
    run = ShardRun(
        shards,
        executor=executor,
        workers=workers,
        is_finished=parts_of(job.output).is_finished,
        error=MiningError,
    )
    with only_run(job.output, what="a mining run", wanted=run.rank == 0):
        if run.pending:
            (job.output / SUCCESS).unlink(missing_ok=True)
        results = run.results(partial(start_worker, job))
        figures = watch(results, run.own, run.pending, show=run.rank == 0)
        if run.rank > 0:
            return None
        run.wait()
        facts = {
            "executor": executor,
            "workers": run.ranks,
            # Here and not in the manifest: the records do not depend on where the pictures lie.
            "image_root": str(job.image_root.absolute()),
            **figures,
        }
        return finish(job.output, shards, run=facts)


def first_images(shards: Sequence[Shard], limit: int | None) -> list[Shard]:
    """Keep the first pictures of a list of shards.

    Args:
        shards: in order.
        limit: number of pictures, or None for all.

    Returns:
        The shards up to that picture; the last one may be cut.
    """
    if limit is None:
        return list(shards)
    kept = []
    for shard in shards:
        if limit <= 0:
            break
        cut = len(shard.rows) > limit
        kept.append(Shard(shard.index, shard.rows[:limit]) if cut else shard)
        limit -= len(shard.rows)
    return kept


def _describe(source: Source, shards: Sequence[Shard]) -> dict[str, Any]:
    """Facts that tell a source from another; the first and the last shard stand for all rows."""
    digest = hashlib.sha256()
    for shard in (*shards[:1], *shards[-1:]):
        for row in shard.rows:
            digest.update(json.dumps([row.image_id, row.uri, row.captions]).encode())
    return {
        "kind": source.kind,
        "images": sum(len(shard.rows) for shard in shards),
        "shards": len(shards),
        "sha256_of_ends": digest.hexdigest(),
    }
