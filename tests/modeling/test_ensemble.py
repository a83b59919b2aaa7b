from __future__ import annotations

import pytest
import torch

from ovseg.modeling.ensemble import (
    EnsembleSettings,
    ensemble_scores,
    ensemble_scores_by_class,
    keep_best_mask_per_class,
)

PROPOSAL = torch.tensor([[0.5, 0.25], [0.1, 0.4], [0.04, 0.01]])
CLIP = torch.tensor([[0.9, 0.1], [0.2, 0.8], [float("nan"), float("nan")]])
VALID = torch.tensor([True, True, False])


def test_the_mean_is_geometric_and_unseen_masks_keep_their_own_power():
    scores = ensemble_scores(PROPOSAL, CLIP, VALID, weight=0.7)
    expected = PROPOSAL**0.3 * torch.cat((CLIP[:2], torch.ones(1, 2))) ** 0.7
    torch.testing.assert_close(scores, expected)


def test_weight_zero_means_clip_alone_and_only_seen_masks():
    scores = ensemble_scores(PROPOSAL, CLIP, VALID, weight=0)
    assert torch.equal(scores, torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.0, 0.0]]))


def test_unseen_classes_have_their_own_weight_where_clip_saw_the_mask():
    scores = ensemble_scores_by_class(
        PROPOSAL, CLIP, VALID, weights=(0.4, 0.9), unseen=torch.tensor([False, True])
    )
    seen, unseen = (ensemble_scores(PROPOSAL, CLIP, VALID, weight=weight) for weight in (0.4, 0.9))
    assert torch.equal(scores[:, 0], seen[:, 0])
    assert torch.equal(scores[:2, 1], unseen[:2, 1])
    # The mask classifier alone spoke, and likes the first class better.
    assert scores[2, 1] == seen[2, 1] < scores[2, 0] < unseen[2, 1]


def test_every_class_keeps_one_mask_with_all_of_its_scores():
    scores = torch.tensor([[0.2, 0.3, 0.1], [0.6, 0.1, 0.1], [0.5, 0.7, 0.9]])
    kept = keep_best_mask_per_class(scores, torch.tensor([True, True, True]))
    assert torch.equal(kept, scores * torch.tensor([[0.0], [1.0], [1.0]]))
    kept = keep_best_mask_per_class(scores, torch.tensor([True, True, False]))
    assert torch.equal(kept, scores * torch.tensor([[1.0], [1.0], [0.0]]))


def test_a_skipped_class_keeps_no_mask_of_its_own():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
    kept = keep_best_mask_per_class(scores, torch.tensor([True, True]), skip=1)
    assert torch.equal(kept, torch.tensor([[0.9, 0.1], [0.0, 0.0]]))


def test_without_a_seen_mask_nothing_is_kept():
    assert keep_best_mask_per_class(PROPOSAL, torch.zeros(3, dtype=torch.bool)).sum() == 0


@pytest.mark.parametrize("threshold", [-0.1, 1.0, 40, float("nan")])
def test_a_mask_threshold_that_no_mask_or_every_mask_passes_is_refused(threshold):
    with pytest.raises(ValueError, match=r"MASK_THR: expected a mask probability from 0 to below"):
        EnsembleSettings(mask_threshold=threshold)
    assert EnsembleSettings(mask_threshold=0).mask_threshold == 0
