from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ovseg.utils.processes import as_finished


def test_all_results_come_and_no_more_than_a_few_items_are_taken_ahead():
    taken, done = [], []

    def items():
        for number in range(20):
            taken.append(number)
            yield number

    with ThreadPoolExecutor(2) as pool:
        for result in as_finished(pool, lambda n: n * n, items(), in_hand=3):
            done.append(result)
            assert len(taken) - len(done) <= 3
    assert sorted(done) == [n * n for n in range(20)]


def test_an_error_of_the_function_reaches_the_caller():
    event = threading.Event()

    def fail(number: int) -> int:
        event.set()
        raise ValueError(f"item {number}")

    with ThreadPoolExecutor(1) as pool, pytest.raises(ValueError, match="item 7"):
        list(as_finished(pool, fail, [7], in_hand=1))
    assert event.is_set()
