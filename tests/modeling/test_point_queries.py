"""Masks that are asked for at points: where, what comes back, which are kept, what is trained."""

from __future__ import annotations

import pytest
import torch

from ovseg.modeling.heads.point_head import PointPredictor, PointQueryHead
from ovseg.modeling.point_criterion import PointCriterion
from ovseg.modeling.point_queries import (
    PointSelection,
    point_masks,
    query_at,
    select_masks,
    stability,
)


def make_criterion(points=64):
    return PointCriterion(
        num_classes=3,
        points=points,
        mask_weight=5.0,
        dice_weight=2.0,
        quality_weight=1.0,
        class_weight=1.0,
    )


def halves(classes=(0, 2)):
    """The left and the right half of an 8 x 8 picture."""
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :4] = masks[1, :, 4:] = True
    return {"labels": torch.tensor(classes), "masks": masks}


def perfect_outputs(scale=40.0):
    """Maps of one picture whose queries give exactly the two halves."""
    side = torch.where(torch.arange(8) < 4, 1.0, -1.0).expand(8, 8)
    query_map = torch.zeros(1, 2, 4, 4)
    query_map[0, 0] = torch.where(torch.arange(4) < 2, scale, -scale)
    query_map[0, 1] = 20.0  # sure of an IoU of 1
    logits = torch.zeros(1, 4, 4, 4)
    logits[0, :, :2, 0] = logits[0, :, 2:, 2] = scale
    return {"mask_features": side[None, None], "query_map": query_map, "pred_logits": logits}


def test_points_lie_in_the_centres_of_a_grid_over_what_the_picture_covers():
    points = PointSelection(grid=2).points((1.0, 0.5))
    assert points.tolist() == [[0.125, 0.25], [0.375, 0.25], [0.125, 0.75], [0.375, 0.75]]


def test_a_query_is_read_where_its_point_lies():
    query_map = torch.arange(12.0).view(1, 1, 3, 4)
    points = torch.tensor([[[0.125, 0.5 / 3], [0.875, 2.5 / 3], [0.25, 0.5]]])
    assert query_at(query_map, points)[0, :, 0].tolist() == pytest.approx([0, 11, 4.5], abs=1e-5)


def test_masks_are_products_with_the_mask_features_and_the_last_entry_is_the_expected_iou():
    queries = torch.tensor([[2.0, -1.0, 0.0]])
    features = torch.tensor([[[1.0, 3.0]], [[5.0, 1.0]]])  # (2, 1, 2)
    masks, quality = point_masks(queries, features)
    assert masks.tolist() == [[[-3.0, 5.0]]] and quality.tolist() == [0.5]


def test_repetitions_of_better_masks_and_empty_ones_are_left_out():
    masks = torch.full((4, 2, 5), -9.0)
    masks[0, :, :2] = 9.0
    masks[1, :, :2] = 9.0
    masks[1, 0, 2] = 9.0  # IoU of 0.8 with the first
    masks[2, :, 3:] = 9.0
    quality = torch.tensor([0.5, 0.9, 0.6, 1.0])  # the last is empty
    assert select_masks(masks, quality, PointSelection(nms_iou=0.75)).tolist() == [1, 2]
    assert select_masks(masks, quality, PointSelection(nms_iou=0.85)).tolist() == [1, 2, 0]
    assert select_masks(masks, quality, PointSelection(nms_iou=0.85, most=1)).tolist() == [1]
    assert len(select_masks(masks[3:], quality[3:], PointSelection())) == 1


def test_stability_is_what_stays_of_a_mask_where_its_cut_moves():
    masks = torch.full((3, 1, 4), -9.0)
    masks[0, 0, :2] = torch.tensor([9.0, 0.5])  # half of it is gone at a cut of 1
    masks[1, 0, 3] = 9.0
    assert stability(masks, 1.0).tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize(
    "wrong", [{"grid": 0}, {"most": 0}, {"nms_iou": 0.0}, {"nms_iou": 1.5}], ids=str
)
def test_a_selection_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        PointSelection(**wrong)


def test_perfect_maps_cost_nothing():
    losses = make_criterion()(perfect_outputs(), [halves()])
    assert set(losses) == {"loss_mask", "loss_dice", "loss_quality", "loss_ce"}
    for loss in losses.values():
        assert loss.item() == pytest.approx(0, abs=1e-4)


def test_losses_have_their_weights_and_values():
    outputs = perfect_outputs()
    outputs["query_map"] = torch.zeros_like(outputs["query_map"])  # all logits 0, quality 0.5
    losses = make_criterion()(outputs, [halves()])
    assert losses["loss_mask"].item() == pytest.approx(5 * 0.693147, rel=1e-5)
    assert losses["loss_dice"].item() == pytest.approx(2 * (1 - 33 / 65), rel=1e-5)
    assert losses["loss_quality"].item() == pytest.approx(0.25)  # a mask of logits 0 is empty


def test_ignored_pixels_are_never_asked_for_and_segments_without_a_class_are():
    criterion = make_criterion(points=200)
    target = halves()
    points, wanted = criterion._draw({k: v[:1] for k, v in target.items()}, (8, 8))
    assert bool((points[:, 0] < 0.5).all()) and bool((wanted == target["masks"][0]).all())
    points, _ = criterion._draw(halves(classes=(0, -1)), (8, 8))
    assert 0.35 < (points[:, 0] > 0.5).float().mean() < 0.65


def test_pixels_without_a_class_do_not_count_in_the_cross_entropy():
    outputs = perfect_outputs()
    outputs["pred_logits"][0, :, 2:] = torch.tensor([9.0, 0.0, 0.0, 0.0])  # wrong on the right
    criterion = make_criterion()
    logits = outputs["pred_logits"]
    assert criterion.class_losses(logits, [halves(classes=(0, -1))])["loss_ce"] < 1e-4
    assert criterion.class_losses(logits, [halves()])["loss_ce"] > 4
    nothing = {"labels": torch.zeros(0, dtype=torch.long), "masks": torch.zeros(0, 8, 8).bool()}
    losses = criterion(outputs, [nothing])
    assert all(loss.item() == 0 for loss in losses.values())


def test_a_small_segment_is_not_drowned_by_a_large_one():
    masks = torch.zeros(2, 8, 8, dtype=torch.bool)
    masks[0, :, :6], masks[1, :, 6:] = True, True
    target = {"labels": torch.tensor([0, 1]), "masks": masks}
    logits = torch.zeros(1, 4, 4, 4)
    logits[..., 0] = 2.0  # says class 0 everywhere: 12 cells right, 4 wrong
    right, wrong = -torch.log_softmax(logits[0, 0, 0, :3], 0)[:2]
    expected = (12**0.5 * right + 4**0.5 * wrong) / (12**0.5 + 4**0.5)
    losses = make_criterion().class_losses(logits, [target])
    assert losses["loss_ce"].item() == pytest.approx(expected.item())


def test_embeddings_are_drawn_to_the_texts_of_their_classes():
    criterion = PointCriterion(
        num_classes=3,
        points=4,
        mask_weight=5.0,
        dice_weight=2.0,
        quality_weight=1.0,
        class_weight=1.0,
        alignment_weight=2.0,
        logit_scale=100.0,
    )
    outputs = perfect_outputs(scale=40.0)  # cosines of 0.4 with the right classes
    losses = criterion(outputs, [halves()])
    assert losses["loss_alignment"].item() == pytest.approx(2 * 0.6)


def test_named_pixels_are_left_out_where_ignored_ones_shall_not_count_as_outside():
    outputs = perfect_outputs()
    outputs["mask_features"] = outputs["mask_features"].clone()
    outputs["mask_features"][0, 0, :, 6:] = 1.0  # the masks of the left half reach over there
    target = {k: v[:1] for k, v in halves().items()}
    ignored = torch.zeros(8, 8, dtype=torch.bool)
    ignored[:, 6:] = True
    criterion = make_criterion()
    assert criterion(outputs, [target])["loss_mask"] > 10
    assert criterion(outputs, [{**target, "ignored": ignored}])["loss_mask"] < 1e-4


class TwoLevels(torch.nn.Module):
    """A pixel decoder that gives out what it is given."""

    def forward_pyramid(self, features):
        return [features["fine"], features["coarse"]], None

    def mask_features(self, x):
        return x


def test_the_class_output_of_a_mask_is_the_mean_direction_of_its_pixels():
    head = PointQueryHead(
        pixel_decoder=TwoLevels(),
        predictor=PointPredictor(in_channels=1, hidden_dim=4, mask_dim=1, embedding_dim=3),
        selection=PointSelection(grid=2),
    )
    outputs = perfect_outputs()
    outputs["pred_logits"] = outputs["pred_logits"] * 3
    masks, embeddings, quality = head.proposals(outputs, 0, (1.0, 1.0))
    assert sorted((mask > 0).nonzero()[:, 1].unique().tolist() for mask in masks) == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    torch.testing.assert_close(quality, torch.ones(2))
    left = int((masks[1] > 0)[0, 0])
    torch.testing.assert_close(embeddings[left], torch.tensor([1.0, 0, 0, 0]))
    torch.testing.assert_close(embeddings[1 - left], torch.tensor([0.0, 0, 1.0, 0]))
    maps = head({"fine": torch.zeros(1, 1, 8, 8), "coarse": torch.zeros(1, 1, 4, 4)})
    assert maps["query_map"].shape == (1, 2, 4, 4) and maps["pred_logits"].shape == (1, 4, 4, 3)
