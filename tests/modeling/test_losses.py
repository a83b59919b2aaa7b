from __future__ import annotations

import itertools

import pytest
import torch

from ovseg.modeling.criterion import SetCriterion, dice_loss, sigmoid_focal_loss
from ovseg.modeling.matcher import HungarianMatcher, dice_cost, focal_cost


def matcher() -> HungarianMatcher:
    return HungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0)


def criterion(no_object_weight: float = 0.1) -> SetCriterion:
    return SetCriterion(
        num_classes=3,
        matcher=matcher(),
        no_object_weight=no_object_weight,
        mask_weight=20.0,
        dice_weight=1.0,
    )


def outputs(batch: int = 1, queries: int = 4, size: tuple[int, int] = (5, 6)):
    return {
        "pred_logits": torch.randn(batch, queries, 4, requires_grad=True),
        "pred_masks": torch.randn(batch, queries, *size, requires_grad=True),
    }


def target(labels: list[int], size: tuple[int, int] = (10, 12)):
    return {
        "labels": torch.tensor(labels, dtype=torch.int64),
        "masks": torch.rand(len(labels), *size) > 0.5,
    }


def test_pairwise_costs_are_the_losses_of_each_pair():
    logits, masks = torch.randn(4, 30), (torch.rand(2, 30) > 0.5).float()
    for q, n in itertools.product(range(4), range(2)):
        pair = logits[q : q + 1], masks[n : n + 1]
        assert focal_cost(logits, masks)[q, n].item() == pytest.approx(
            sigmoid_focal_loss(*pair, 1).item(), rel=1e-5
        )
        assert dice_cost(logits, masks)[q, n].item() == pytest.approx(
            dice_loss(*pair, 1).item(), rel=1e-5
        )


def test_matching_has_the_least_cost_of_all_assignments():
    out, wanted = outputs(), target([0, 2])
    cost = matcher().cost(out["pred_logits"][0].detach(), out["pred_masks"][0].detach(), wanted)
    [(queries, chosen)] = matcher()(out, [wanted])
    best = min(
        sum(cost[q, n].item() for n, q in enumerate(permutation))
        for permutation in itertools.permutations(range(4), 2)
    )
    assert cost[queries, chosen].sum().item() == pytest.approx(best, rel=1e-6)


def test_more_targets_than_queries_match_every_query_once():
    [(queries, chosen)] = matcher()(outputs(queries=2), [target([0, 1, 2, 0])])
    assert queries.tolist() == [0, 1]
    assert len(set(chosen.tolist())) == 2


def test_an_image_without_objects_only_teaches_no_object():
    out = outputs()
    losses = criterion()(out, [target([])])
    sum(losses.values()).backward()
    assert losses["loss_mask"].item() == losses["loss_dice"].item() == 0
    expected = torch.nn.functional.cross_entropy(out["pred_logits"][0], torch.full((4,), 3))
    assert losses["loss_ce"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert out["pred_masks"].grad.abs().sum() == 0


def test_no_object_is_ignored_at_weight_zero():
    assert criterion(0.0)(outputs(), [target([])])["loss_ce"].item() == 0
    out = outputs(queries=2)
    [(queries, chosen)] = matcher()(out, [target([1])])
    loss = criterion(0.0).class_loss(out["pred_logits"], [target([1])], [(queries, chosen)])
    expected = -out["pred_logits"][0, queries[0]].log_softmax(-1)[1]
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_auxiliary_layers_are_matched_anew_and_weighted_alike():
    first, last = outputs(), outputs()
    wanted = [target([0, 1])]
    losses = criterion()({**last, "aux_outputs": [first]}, wanted)
    alone = criterion()(first, wanted)
    for name, value in alone.items():
        assert losses[f"{name}_0"].item() == pytest.approx(value.item(), rel=1e-6)


def test_mask_losses_are_divided_by_the_number_of_masks_of_the_batch():
    out = outputs(batch=2)
    wanted = [target([0, 1, 2]), target([1])]
    both = criterion()(out, wanted)["loss_dice"].item()
    single = [
        criterion()({key: value[i : i + 1] for key, value in out.items()}, [wanted[i]])["loss_dice"]
        for i in range(2)
    ]
    assert both == pytest.approx((3 * single[0].item() + single[1].item()) / 4, rel=1e-5)


def test_diverged_predictions_are_reported_as_such():
    out = outputs()
    with torch.no_grad():
        out["pred_masks"][0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"lower SOLVER\.BASE_LR"):
        matcher()(out, [target([0])])


def test_ignored_pixels_that_are_left_out_change_neither_matching_nor_losses() -> None:
    torch.manual_seed(0)
    criterion = SetCriterion(
        num_classes=3,
        matcher=HungarianMatcher(cost_class=1.0, cost_mask=20.0, cost_dice=1.0),
        no_object_weight=0.1,
        mask_weight=20.0,
        dice_weight=1.0,
    )
    logits, masks = torch.randn(2, 5, 4), torch.randn(2, 5, 16, 16)
    ignored = torch.zeros(2, 16, 16, dtype=torch.bool)
    ignored[:, 10:] = True
    targets = [
        {
            "labels": torch.tensor([0, 2]),
            "masks": torch.rand(2, 16, 16) > 0.5,
            "ignored": ignored[i],
        }
        for i in range(2)
    ]
    for target in targets:
        target["masks"] &= ~target["ignored"]
    other = torch.where(ignored[:, None], torch.randn(2, 5, 16, 16) * 5, masks)

    left_out = criterion({"pred_logits": logits, "pred_masks": masks}, targets)
    changed = criterion({"pred_logits": logits, "pred_masks": other}, targets)
    assert left_out == changed

    for target in targets:
        del target["ignored"]
    negative = criterion({"pred_logits": logits, "pred_masks": masks}, targets)
    assert negative["loss_mask"] > 1.05 * left_out["loss_mask"]
