"""Working through shards of pictures: in local processes, under torchrun, or on Ray.

An executor only decides where a shard is worked on. What becomes of it is the business of the
function that a worker runs; where that depends on the shard alone, every executor and every number
of workers leave the same files, and one may go on where another stopped.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch

from ovseg.utils.processes import exit_with_parent, map_unordered

__all__ = ["DRY_RUN_IMAGES", "EXECUTORS", "Done", "ShardLike", "ShardRun", "StartWorker"]

logger = logging.getLogger(__name__)

EXECUTORS = ("local", "torchrun", "ray", "dry-run")
DRY_RUN_IMAGES = 100
_POLL_SECONDS = 0.5
_LOG_SECONDS = 60.0
_MAX_RETRIES = 3


class ShardLike(Protocol):
    """A piece of work: pictures under a number."""

    @property
    def index(self) -> int:
        """Its number, from 0."""
        ...

    @property
    def rows(self) -> Sized:
        """Its pictures."""
        ...


S = TypeVar("S", bound=ShardLike)
Done: TypeAlias = Iterator[dict[str, float]]
# From the number of a worker on its machine to what it does with a shard: counts, and `seconds`.
StartWorker: TypeAlias = Callable[[int], Callable[[S], dict[str, float]]]


class ShardRun(Generic[S]):
    """One process's view of a run over shards.

    Each worker computes with one thread and on one GPU if there are any: sums of floating-point
    numbers depend on how many threads share them, so that one thread makes the results the same
    everywhere, and more workers use more cores.

    Args:
        shards: all of them, the same for every process.
        executor: "local" (processes of this machine), "torchrun" (this process is one of several
            ranks), "ray" (actors of the cluster that RAY_ADDRESS names, else of a local one), or
            "dry-run" (this process).
        workers: processes or actors; under torchrun the number of ranks counts instead.
        is_finished: says of a shard's number whether its files are there.
        error: what is raised when a worker dies.

    Attributes:
        rank: of this process, 0 except under torchrun.
        ranks: number of workers.
        own: shards that are this process's business.
        pending: those of them that are not finished.

    Raises:
        ValueError: an unknown executor, fewer than one worker, or no torchrun around.
    """

    def __init__(
        self,
        shards: Sequence[S],
        *,
        executor: str = "local",
        workers: int = 1,
        is_finished: Callable[[int], bool],
        error: type[Exception] = RuntimeError,
    ) -> None:
        if executor not in EXECUTORS:
            raise ValueError(f"executor: expected one of {EXECUTORS}, got {executor!r}")
        if workers < 1:
            raise ValueError(f"expected at least 1 worker, got {workers}")
        self.shards, self.executor = list(shards), executor
        self.is_finished, self.error = is_finished, error
        self.rank, self.ranks = 0, 1 if executor == "dry-run" else workers
        self.own = self.shards
        if executor == "torchrun":
            self.rank, self.ranks = _torchrun_rank()
            self.own = self.shards[self.rank :: self.ranks]
        self.pending = [shard for shard in self.own if not is_finished(shard.index)]

    def results(self, start: StartWorker[S]) -> Done:
        """Work on the pending shards.

        Args:
            start: makes a worker's function; a picklable function or object, called once a worker.

        Yields:
            What the function returned, in the order in which the shards are done.

        Raises:
            self.error: a worker died.
        """
        if self.executor == "ray":
            yield from _ray(start, self.pending, self.ranks)
        elif self.executor == "local" and self.ranks > 1 and len(self.pending) > 1:
            yield from self._processes(start)
        else:
            yield from _in_process(start, self.pending, self.rank)

    def wait(self) -> None:
        """Wait until all shards are finished; the files themselves are the barrier."""
        missing = [shard.index for shard in self.shards]
        logged = time.monotonic()
        while missing := [index for index in missing if not self.is_finished(index)]:
            if time.monotonic() - logged > _LOG_SECONDS:
                logger.info("Waiting for %d shards of other ranks", len(missing))
                logged = time.monotonic()
            time.sleep(_POLL_SECONDS)

    def _processes(self, start: StartWorker[S]) -> Done:
        """Work in new processes, each with a worker of its own."""
        workers = min(self.ranks, len(self.pending))
        context = multiprocessing.get_context("spawn")
        arguments = (start, context.Value("i", 0))
        pool = ProcessPoolExecutor(
            workers, mp_context=context, initializer=_start_process, initargs=arguments
        )
        try:
            yield from map_unordered(pool, _work, self.pending, max_pending=2 * workers)
        except BrokenProcessPool as error:
            raise self.error(
                "a worker process ended before its work; its own message, if it left one, stands "
                "above. Without a message it was probably killed for memory: use fewer workers or "
                "a smaller batch. Finished shards are kept: start the same run again to go on"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin(start: StartWorker[S], rank: int) -> Callable[[S], dict[str, float]]:
    """Make a worker's function, with one thread and on its GPU."""
    torch.set_num_threads(1)
    if torch.cuda.is_available():
        torch.cuda.set_device(rank % torch.cuda.device_count())
    return start(rank)


def _in_process(start: StartWorker[S], shards: Sequence[S], rank: int = 0) -> Done:
    """Work in this process; the worker is made even for no shard, to check the folder."""
    threads = torch.get_num_threads()
    try:
        work = _begin(start, int(os.environ.get("LOCAL_RANK", rank)))
        for shard in shards:
            yield work(shard)
    finally:
        torch.set_num_threads(threads)


# -- local processes ----------------------------------------------------------------------------

_started: tuple[StartWorker[Any], int] | None = None


def _start_process(start: StartWorker[Any], ranks: Any) -> None:
    """Note what a new process is to do."""
    global _started
    logging.basicConfig(level=logging.WARNING)  # progress is the parent's to tell
    exit_with_parent()
    with ranks.get_lock():
        _started = start, ranks.value
        ranks.value += 1


@functools.cache
def _worker() -> Callable[[Any], dict[str, float]]:
    """Make this process's worker; on first use, so that the parent gets its errors as such."""
    assert _started is not None, "a process works after it was started"
    return _begin(*_started)


def _work(shard: Any) -> dict[str, float]:
    return _worker()(shard)


# -- torchrun -----------------------------------------------------------------------------------


def _torchrun_rank() -> tuple[int, int]:
    try:
        return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    except KeyError as error:
        raise ValueError(
            f"executor 'torchrun': expected the variable {error} that torchrun sets; start this "
            "program with `torchrun --nproc-per-node N`, or use the executor 'local'"
        ) from error


# -- Ray ----------------------------------------------------------------------------------------


class _Actor:
    """A worker in a process of a Ray cluster, which gives it a GPU of its own."""

    def __init__(self, start: StartWorker[Any]) -> None:
        self._work = _begin(start, 0)

    def work(self, shard: Any) -> dict[str, float]:
        return self._work(shard)


def _ray(start: StartWorker[S], shards: Sequence[S], workers: int) -> Done:
    """Work in actors; one that dies is started again elsewhere."""
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
        )(_Actor)
        pool = ActorPool([actor.remote(start) for _ in range(max(1, min(workers, len(shards))))])
        if shards:
            yield from pool.map_unordered(lambda one, shard: one.work.remote(shard), list(shards))
        else:
            yield from _in_process(start, [])
    finally:
        if ours:
            ray.shutdown()
