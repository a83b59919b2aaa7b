"""Running the miner over all shards: in local processes, under torchrun, or on Ray.

An executor only decides where a shard is mined. What is mined is the business of
`ovseg.mining.shards`, and how it becomes files that of `ovseg.mining.worker`; so every executor and
every number of workers leaves the same files, and one may go on where another stopped.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import torch

from ovseg.data.captions.sources import Shard, Source
from ovseg.mining.finish import SUCCESS, finish
from ovseg.mining.parts import MiningConfig, MiningError, MiningParts
from ovseg.mining.progress import watch
from ovseg.mining.worker import Job, Worker, is_finished
from ovseg.utils.processes import exit_with_parent, map_unordered

__all__ = ["EXECUTORS", "run_mining"]

logger = logging.getLogger(__name__)

EXECUTORS = ("local", "torchrun", "ray", "dry-run")
DRY_RUN_IMAGES = 100
_POLL_SECONDS = 0.5
_LOG_SECONDS = 60.0
_MAX_RETRIES = 3

Done = Iterator[dict[str, float]]


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
    """
    if executor not in EXECUTORS:
        raise ValueError(f"executor: expected one of {EXECUTORS}, got {executor!r}")
    if workers < 1 or (limit is not None and limit < 1):
        raise ValueError(f"expected at least 1 worker and 1 picture, got {workers} and {limit}")
    if executor == "dry-run":
        limit, workers = min(limit or DRY_RUN_IMAGES, DRY_RUN_IMAGES), 1
    shards = first_images(source.shards(config.shard_size), limit)
    described = _describe(source, shards)
    job = Job(config, Path(output), described, Path(source.image_root), make_parts)
    rank, ranks = _torchrun_rank() if executor == "torchrun" else (0, 1)
    own = shards[rank::ranks]
    pending = [shard for shard in own if not is_finished(job.output, shard.index)]
    if pending:
        (job.output / SUCCESS).unlink(missing_ok=True)
    if executor == "torchrun":
        done = _in_process(job, pending, rank)
    elif executor == "ray":
        done = _ray(job, pending, workers)
    elif workers > 1 and len(pending) > 1:
        done = _processes(job, pending, min(workers, len(pending)))
    else:
        done = _in_process(job, pending)
    figures = watch(done, own, pending, show=rank == 0)
    if rank > 0:
        return None
    _wait_for_others(job, shards)
    run = {
        "executor": executor,
        "workers": ranks if executor == "torchrun" else workers,
        # Here and not in the manifest: the records do not depend on where the pictures lie.
        "image_root": str(job.image_root.absolute()),
        **figures,
    }
    return finish(job.output, shards, run=run)


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


def _in_process(job: Job, shards: Sequence[Shard], rank: int = 0) -> Done:
    """Mine in this process; the models are built even for no shard, to check the folder."""
    threads = torch.get_num_threads()
    worker = Worker(job, int(os.environ.get("LOCAL_RANK", rank)))
    try:
        for shard in shards:
            yield worker.mine(shard)
    finally:
        torch.set_num_threads(threads)


# -- local processes ----------------------------------------------------------------------------

_job: tuple[Job, int] | None = None


def _start_process(job: Job, ranks: Any) -> None:
    """Note what a new process is to do."""
    global _job
    logging.basicConfig(level=logging.WARNING)  # progress is the parent's to tell
    exit_with_parent()
    with ranks.get_lock():
        _job = job, ranks.value
        ranks.value += 1


@functools.cache
def _worker() -> Worker:
    """Build this process's worker; on first use, so that the parent gets its errors as such."""
    assert _job is not None, "a process mines after it was started"
    return Worker(*_job)


def _mine_in_process(shard: Shard) -> dict[str, float]:
    return _worker().mine(shard)


def _processes(job: Job, shards: Sequence[Shard], workers: int) -> Done:
    """Mine in new processes, each with models of its own."""
    context = multiprocessing.get_context("spawn")
    arguments = (job, context.Value("i", 0))
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_process, initargs=arguments
    )
    try:
        yield from map_unordered(pool, _mine_in_process, shards, max_pending=2 * workers)
    except BrokenProcessPool as error:
        raise MiningError(
            "a worker process ended before its work; its own message, if it left one, stands "
            "above. Without a message it was probably killed for memory: use fewer workers or a "
            "smaller batch. Finished shards are kept: start the same run again to go on"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# -- torchrun -----------------------------------------------------------------------------------


def _torchrun_rank() -> tuple[int, int]:
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except KeyError as error:
        raise ValueError(
            f"executor 'torchrun': expected the variable {error} that torchrun sets; start this "
            "program with `torchrun --nproc-per-node N`, or use the executor 'local'"
        ) from error


def _wait_for_others(job: Job, shards: Sequence[Shard]) -> None:
    """Wait until all shards are finished; the files themselves are the barrier."""
    missing = [shard.index for shard in shards]
    logged = time.monotonic()
    while missing := [index for index in missing if not is_finished(job.output, index)]:
        if time.monotonic() - logged > _LOG_SECONDS:
            logger.info("Waiting for %d shards of other ranks", len(missing))
            logged = time.monotonic()
        time.sleep(_POLL_SECONDS)


# -- Ray ----------------------------------------------------------------------------------------


def _ray(job: Job, shards: Sequence[Shard], workers: int) -> Done:
    """Mine in actors that hold the models; an actor that dies is started again elsewhere."""
    try:
        import ray
        from ray.util import ActorPool
    except ImportError as error:
        raise ImportError(
            "the executor 'ray' needs Ray, which is not installed: pip install 'ovseg[ray]'"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(include_dashboard=False, logging_level=logging.WARNING)
    try:
        resources = ray.cluster_resources()
        gpus = 1 if resources.get("GPU") else 0
        available = int(resources.get("GPU" if gpus else "CPU", 0))
        if workers > available:
            logger.warning(
                "%d actors asked for, the cluster has room for %d now; the others start when it "
                "grows",
                workers,
                available,
            )
        actor = ray.remote(
            num_cpus=1, num_gpus=gpus, max_restarts=-1, max_task_retries=_MAX_RETRIES
        )(Worker)
        pool = ActorPool([actor.remote(job) for _ in range(max(1, min(workers, len(shards))))])
        if shards:
            yield from pool.map_unordered(lambda one, shard: one.mine.remote(shard), list(shards))
        else:
            yield from _in_process(job, [])
    finally:
        if ours:
            ray.shutdown()
