"""OVSeg with queries from points, whole: training, padding, caching, refusals."""

from __future__ import annotations

import pytest
import torch

from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.d2.structures import Instances
from ovseg.data.mappers import build_train_mapper
from ovseg.modeling.encoding import MaskEncoding
from ovseg.modeling.proposer import MaskFormerProposer
from ovseg.vocab import Vocabulary

OPTS = [
    *("MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "", "MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"),
    *("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", "0.7"),
    *("MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN", "-1.0"),
]
WORDS = Vocabulary.make(["sky", "grass", "cat"], templates=["{}"])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(load_cfg("ovseg_tiny", OPTS))


def example(seed, classes=(0, 2)):
    generator = torch.Generator().manual_seed(seed)
    masks = torch.zeros(len(classes), 64, 64, dtype=torch.bool)
    for index, start in enumerate(range(0, 64, 32)[: len(classes)]):
        masks[index, :, start : start + 32] = True
    return {
        "image": torch.rand(3, 64, 64, generator=generator) * 255,
        "instances": Instances((64, 64), gt_classes=torch.tensor(classes), gt_masks=masks),
        "ignored": torch.zeros(64, 64, dtype=torch.bool),
    }


def test_losses_reach_every_trainable_parameter(model):
    model.train()
    losses = model([example(0), example(1)], WORDS)
    assert set(losses) == {
        *("loss_mask", "loss_dice", "loss_quality"),
        *("loss_ce", "loss_alignment"),
    }
    model.zero_grad()
    sum(losses.values()).backward()
    idle = {n for n, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert idle == set()


def test_losses_are_means_over_pictures_so_parts_of_a_batch_count_alike(model):
    assert model.micro_batch_weights([[example(0)], [example(1)]]) == [{}, {}]


def test_padding_gets_no_points_and_no_masks(model):
    model.eval()
    small = {"image": example(0)["image"][:, :40]}
    alone, beside = (
        next(iter(model.encode(batch)))
        for batch in ([small], [small, {"image": example(1)["image"]}])
    )
    assert alone.padded_size == (64, 64) == beside.padded_size
    torch.testing.assert_close(alone.masks, beside.masks)
    assert alone.masks.shape[1:] == (40, 64)
    assert bool((alone.input_logits() > 0).flatten(1).any(1).all())


def test_an_encoding_can_be_stored_and_named_again(model):
    model.eval()
    [encoding] = model.encode([{"image": example(0)["image"]}])
    prediction = model.decode(encoding, WORDS)
    assert len(prediction.masks) <= 40
    sums = prediction.proposal_scores.sum(1)  # nothing goes to "no object"
    torch.testing.assert_close(sums, torch.ones_like(sums))
    ensemble = prediction.proposal_scores**0.3 * prediction.clip_scores**0.7
    weighted = ensemble * encoding.quality[:, None]
    torch.testing.assert_close(prediction.class_scores, weighted)
    stored = MaskEncoding.from_tensors(encoding.tensors())
    stored.regions = encoding.regions
    assert torch.equal(model.decode(stored, WORDS).labels(), prediction.labels())


def test_the_miner_proposes_with_it(model):
    proposer = MaskFormerProposer(model=model, name="tiny", resize=lambda picture: picture)
    picture = example(0)["image"].permute(1, 2, 0).byte().numpy()
    [masks] = proposer.propose_batch([picture], ["0"])
    assert masks.dtype == bool and masks.shape[1:] == (64, 64) and masks.any((1, 2)).all()


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.MASK_FORMER.QUERIES", "grid"], r"QUERIES.*'learned', 'points'.*'grid'"),
        (["MODEL.TIMM.NAME", "resnet_none"], r"TIMM.NAME.*no model 'resnet_none'"),
        (["MODEL.TIMM.OUT_FEATURES", "['res2','res9']"], r"OUT_FEATURES.*not \['res9'\]"),
        (["MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", "0"], r"NUM_OBJECT_QUERIES.*at least 1"),
    ],
)
def test_settings_that_do_not_exist_are_refused(opts, message):
    with pytest.raises(ValueError, match=message):
        build_model(load_cfg("ovseg_tiny", [*OPTS, *opts]))


def test_segments_without_a_class_are_refused_for_learned_queries():
    cfg = load_cfg("ovseg_swinB", ["INPUT.SEGMENT_AUG.ENABLED", "True", "DATASETS.TRAIN", "()"])
    with pytest.raises(ValueError, match=r"SEGMENT_AUG.*QUERIES to points"):
        build_train_mapper(cfg)
