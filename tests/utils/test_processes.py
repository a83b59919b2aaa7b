from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from graphlib import CycleError

import pytest

from ovseg.utils.processes import map_unordered, run_in_dependency_order


def test_all_results_come_and_no_more_than_a_few_items_are_taken_ahead():
    taken, done = [], []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        for result in map_unordered(pool, lambda n: n * n, items(), max_pending=3):
            done.append(result)
            assert len(taken) - len(done) <= 3
    assert sorted(done) == [n * n for n in range(20)]


def test_an_error_of_the_function_reaches_the_caller():
    event = threading.Event()

    def fail(number: int) -> int:
        event.set()
        raise ValueError(f"item {number}")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="item 7"):
        list(map_unordered(pool, fail, [7], max_pending=1))
    assert event.is_set()


def test_a_task_starts_when_those_that_it_needs_are_done_and_not_before():
    needs = {"b": ["a"], "a": [], "d": ["b", "c"], "c": ["a"], "e": []}
    done: list[str] = []

    def run(task: str) -> list[str]:
        before = list(done)
        done.append(task)
        return before

    with ThreadPoolExecutor(3) as pool:
        before = dict(run_in_dependency_order(pool, run, needs))
    assert sorted(before) == ["a", "b", "c", "d", "e"]
    for task, needed in needs.items():
        assert set(needed) <= set(before[task])


def test_a_task_that_fails_stops_those_that_need_it_and_reaches_the_caller():
    started = []

    def run(task: int) -> None:
        started.append(task)
        if task == 1:
            raise ValueError("task 1")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="task 1"):
        list(run_in_dependency_order(pool, run, {0: [], 1: [0], 2: [1]}))
    assert started == [0, 1]


def test_tasks_that_need_each_other_are_refused():
    with ThreadPoolExecutor(1) as pool, pytest.raises(CycleError):
        list(run_in_dependency_order(pool, print, {0: [1], 1: [0]}))
