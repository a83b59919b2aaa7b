"""Worker processes: kept busy with a few pieces of work each, ended when their parent is."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from graphlib import TopologicalSorter
from itertools import islice
from typing import NoReturn, TypeVar

__all__ = ["exit_with_parent", "map_unordered", "run_in_dependency_order"]

Item = TypeVar("Item")
Task = TypeVar("Task", bound=Hashable)
Result = TypeVar("Result")


def map_unordered(
    pool: Executor, function: Callable[[Item], Result], items: Iterable[Item], *, max_pending: int
) -> Iterator[Result]:
    """Map a function over items in a pool, without submitting all of them at once.

    Args:
        pool: where the function runs.
        function: of one item.
        items: there may be very many.
        max_pending: how many are submitted at a time.

    Yields:
        Results in the order in which they are ready.
    """
    waiting = iter(items)
    running: set[Future[Result]] = set()
    while True:
        for item in islice(waiting, max_pending - len(running)):
            running.add(pool.submit(function, item))
        if not running:
            return
        finished, running = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            yield future.result()


def run_in_dependency_order(
    pool: Executor, function: Callable[[Task], Result], needs: Mapping[Task, Iterable[Task]]
) -> Iterator[tuple[Task, Result]]:
    """Run tasks in a pool, each as soon as those that it needs are done.

    Args:
        pool: where the function runs.
        function: of one task.
        needs: for every task, those that must be done before it. They are submitted in the order
            in which they could run; those that need nothing, in the order of the mapping.

    Yields:
        Tasks and their results, in the order in which they are ready.

    Raises:
        graphlib.CycleError: tasks need each other.
    """
    order = TopologicalSorter(needs)
    order.prepare()
    running: dict[Future[Result], Task] = {}
    while order.is_active():
        for task in order.get_ready():
            running[pool.submit(function, task)] = task
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in finished:
            task = running.pop(future)
            order.done(task)
            yield task, future.result()


def exit_with_parent() -> None:
    """Let this worker process end as soon as the process that started it is gone.

    A killed parent closes no queue that its workers wait on: they would stay forever.
    """
    threading.Thread(target=_wait_and_exit, daemon=True).start()


def _wait_and_exit() -> NoReturn:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
