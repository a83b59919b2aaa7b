from __future__ import annotations

from itertools import islice, pairwise

import numpy as np
import pytest

from ovseg.data.sampling import BatchPlan, evenly, sample_generator


def plan(**changes) -> BatchPlan:
    return BatchPlan(**{"num_records": 10, "batch_size": 4, "seed": 3, **changes})


def test_every_pass_holds_every_record_once_in_a_new_order() -> None:
    records = [plan().sample(position).record for position in range(30)]
    passes = [records[start : start + 10] for start in (0, 10, 20)]
    assert all(sorted(one) == list(range(10)) for one in passes)
    assert passes[0] != passes[1] != passes[2]


def test_batches_follow_each_other_across_passes() -> None:
    batches = [plan().batch(iteration) for iteration in range(5)]
    assert [key.position for batch in batches for key in batch] == list(range(20))


def test_another_seed_gives_another_order() -> None:
    assert plan(seed=4).batch(0) != plan().batch(0)


@pytest.mark.parametrize("is_wide", [None, lambda record: record % 3 == 0])
def test_resuming_continues_the_same_sequence(is_wide) -> None:
    whole = islice(plan(is_wide=is_wide, window=3).share(0, rank=0, world_size=1), 20)
    resumed = islice(plan(is_wide=is_wide, window=3).share(13, rank=0, world_size=1), 7)
    assert list(whole)[13:] == list(resumed)


@pytest.mark.parametrize("is_wide", [None, lambda record: record % 3 == 0])
def test_two_processes_share_the_batches_of_one(is_wide) -> None:
    def first(rank: int, world_size: int):
        return list(islice(plan(is_wide=is_wide).share(0, rank=rank, world_size=world_size), 9))

    for alone, left, right in zip(first(0, 1), first(0, 2), first(1, 2), strict=True):
        assert len(left) == len(right) == 2
        assert sorted(left + right) == sorted(alone)


def test_grouping_sorts_by_orientation_and_loses_no_sample() -> None:
    wide = {0, 3, 6, 9}
    grouped = plan(is_wide=wide.__contains__, window=5)
    for number in range(4):
        batches = [grouped.batch(number * 5 + place) for place in range(5)]
        positions = sorted(key.position for batch in batches for key in batch)
        assert positions == list(range(number * 20, number * 20 + 20))
        mixed = sum(len({key.record in wide for key in batch}) == 2 for batch in batches)
        assert mixed <= 1
        assert {len(batch) for batch in batches} == {4}


def test_grouped_batches_come_in_mixed_order() -> None:
    grouped = plan(num_records=100, is_wide=lambda record: record < 50, window=20)
    kinds = [grouped.batch(iteration)[0].record < 50 for iteration in range(20)]
    assert sum(a != b for a, b in pairwise(kinds)) > 2


def test_an_uneven_batch_names_the_config_key() -> None:
    with pytest.raises(ValueError, match=r"multiple of the 3 processes, got 4.*IMS_PER_BATCH"):
        next(plan().share(0, rank=0, world_size=3))


def test_sample_generators_repeat_and_differ() -> None:
    draws = [sample_generator(1, 2), sample_generator(1, 2), sample_generator(1, 3)]
    values = [generator.random(4) for generator in draws]
    np.testing.assert_array_equal(values[0], values[1])
    assert (values[0] != values[2]).all()


@pytest.mark.parametrize("wrong", [{"num_records": 0}, {"batch_size": 0}, {"seed": -1}])
def test_impossible_plans_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=rf"{next(iter(wrong))}.* got"):
        plan(**wrong)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, [0]), (3, [0, 3, 6]), (10, [*range(10)]), (None, [*range(10)])]
)
def test_a_part_of_a_dataset_is_spread_evenly_over_it(count, expected):
    assert list(evenly(range(10), count)) == expected


def test_a_part_without_anything_is_refused():
    with pytest.raises(ValueError, match="expected at least 1, got 0"):
        evenly(range(10), 0)
