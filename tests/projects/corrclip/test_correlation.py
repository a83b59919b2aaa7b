from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.projects.corrclip.correlation import (
    allowed_pairs,
    cluster_regions,
    merge_regions,
    number_regions,
    rebuilt_attention,
    region_distances,
    resize_ids,
)

cluster = pytest.importorskip("sklearn.cluster")


def unit_rows(number: int, channels: int = 5, seed: int = 0) -> torch.Tensor:
    rows = torch.randn(number, channels, generator=torch.Generator().manual_seed(seed))
    return F.normalize(rows, dim=1)


def test_the_smallest_id_is_no_region_or_only_zero_is():
    ids = torch.tensor([[7, 3], [9, 3]])
    assert number_regions(ids, "min").tolist() == [[1, 0], [2, 0]]
    assert number_regions(ids, "zero").tolist() == [[2, 1], [3, 1]]
    with_zero = torch.tensor([[0, 3], [9, 3]])
    for rule in ("min", "zero"):
        assert number_regions(with_zero, rule).tolist() == [[0, 1], [2, 1]]


def test_ids_are_resized_to_the_nearest_and_keep_large_values():
    ids = torch.tensor([[0, 10000], [70000, 3]], dtype=torch.int32)
    resized = resize_ids(ids, (4, 6))
    assert resized.dtype == torch.int32
    assert resized[0].tolist() == [0, 0, 0, 10000, 10000, 10000]
    assert resize_ids(resized, (2, 2)).equal(ids)


def test_near_regions_are_joined_in_chains_like_dbscan_with_one_sample():
    generator = np.random.default_rng(0)
    for number in (2, 5, 30):
        points = generator.random((number, 2))
        distances = np.linalg.norm(points[:, None] - points, axis=-1)
        wanted = cluster.DBSCAN(eps=0.15, min_samples=1, metric="precomputed").fit(distances)
        found = cluster_regions(torch.from_numpy(distances), eps=0.15)
        np.testing.assert_array_equal(found, wanted.labels_)
    chain = torch.tensor([[0, 0.1, 0.3], [0.1, 0, 0.1], [0.3, 0.1, 0]])
    assert cluster_regions(chain, eps=0.2).tolist() == [0, 0, 0]
    assert cluster_regions(chain, eps=0.05).tolist() == [0, 1, 2]
    # Only the middle one has three near regions, so it has nobody to be joined with.
    assert cluster_regions(chain, eps=0.2, min_samples=3).tolist() == [0, 1, 2]


def test_regions_that_look_alike_become_one_and_uncovered_cells_stay():
    rows = torch.eye(4)[[0, 0, 1, 1, 2, 2]]
    rows[2:4] = rows[:2] + 0.05 * rows[2:4]  # region 2 is nearly region 1
    rows = F.normalize(rows, dim=1)
    numbers = torch.tensor([[1, 1, 2], [2, 3, 0]])
    merged = merge_regions(rows, numbers, eps=0.2)
    assert merged.tolist() == [[1, 1, 1], [1, 2, 0]]
    assert merge_regions(rows, numbers, eps=1e-4).tolist() == [[1, 1, 2], [2, 3, 0]]
    assert region_distances(rows, numbers.flatten()).diagonal().abs().max() < 1e-6


def test_a_single_region_is_not_compared_with_anything():
    numbers = torch.tensor([[1, 0]])
    assert merge_regions(unit_rows(2), numbers, eps=5.0) is numbers


def test_cells_of_different_regions_take_nothing_of_each_other():
    rows = unit_rows(6)
    numbers = torch.tensor([0, 1, 1, 2, 2, 2])
    similarity = rows @ rows.T
    allowed = allowed_pairs(similarity, numbers)
    attention = rebuilt_attention(similarity, allowed, tau=4.0)
    torch.testing.assert_close(attention.sum(1), torch.ones(6))
    assert (attention[1:3, 3:] == 0).all() and (attention[1:3, 1:3] > 0).all()
    above = similarity > similarity.mean()
    above.fill_diagonal_(True)
    assert allowed[0].equal(above[0]) and allowed[:, 0].equal(above[:, 0])


def test_the_rule_for_uncovered_cells():
    rows = F.normalize(torch.ones(4, 3) + 0.01 * unit_rows(4, 3), dim=1)
    similarity = rows @ rows.T - torch.eye(4)  # pairs are above the mean, themselves below
    numbers = torch.tensor([0, 0, 1, 1])
    of = {rule: allowed_pairs(similarity, numbers, rule) for rule in ("either", "both", "none")}
    assert of["either"].all()
    assert of["both"].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    assert of["none"][:2].equal(torch.eye(4, dtype=torch.bool)[:2])


def test_without_temperature_a_region_is_mixed_evenly():
    similarity = unit_rows(5) @ unit_rows(5).T
    everything = torch.ones(5, 5, dtype=torch.bool)
    attention = rebuilt_attention(similarity, everything, tau=0.0)
    torch.testing.assert_close(attention, torch.full((5, 5), 0.2))
