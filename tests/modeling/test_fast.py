from __future__ import annotations

import pytest
import torch

import ovseg
from ovseg.clip.int8 import has_int8
from ovseg.config import load_cfg
from ovseg.evaluation.confusion import confusion_matrix
from ovseg.modeling.fast import FastSettings
from ovseg.tinyscapes.scenes import render_scene
from tests.modeling.tiny import image, tiny_model, vocabulary

CPU = torch.device("cpu")
PRUNE = ("TEST.FAST.MIN_SHARE", 0.06, "TEST.FAST.REST", 0.005)
NO_PRUNE = ("TEST.FAST.MIN_SHARE", 0.0)
SAVINGS = {
    "fewer masks": ("TEST.FAST.PRECISION", "float32", "TEST.FAST.MERGE_AFTER", 1.0, *PRUNE),
    "fewer tokens": ("TEST.FAST.PRECISION", "float32", "TEST.FAST.MERGE_AFTER", 0.5, *NO_PRUNE),
    "int8": ("TEST.FAST.PRECISION", "int8", "TEST.FAST.MERGE_AFTER", 1.0, *NO_PRUNE),
    "all": ("TEST.FAST.PRECISION", "auto", "TEST.FAST.MERGE_AFTER", 0.5, *PRUNE),
}
SCENES = 60


@pytest.fixture(scope="module")
def exact():
    """The bundled model's label maps of scenes of val, and the scenes."""
    predictor = ovseg.load(device="cpu")
    scenes = [render_scene("val", index) for index in range(SCENES)]
    words = predictor.vocabulary("tinyscapes")
    return scenes, words, [predictor.segment(scene.image, words).labels for scene in scenes]


@pytest.mark.parametrize("saving", SAVINGS)
def test_each_saving_keeps_what_it_promises(saving, exact):
    if saving == "int8" and not has_int8(CPU):
        pytest.skip("torch multiplies no int8 on this CPU")
    scenes, words, expected = exact
    fast = ovseg.load(device="cpu", opts=["TEST.FAST.ENABLED", True, *SAVINGS[saving]])
    found = [fast.segment(scene.image, words).labels for scene in scenes]
    same = [float((a == b).mean()) for a, b in zip(found, expected, strict=True)]
    assert 0.99 <= sum(same) / SCENES < 1  # 1: nothing was saved
    scores = [_miou(maps, scenes, len(words)) for maps in (found, expected)]
    assert abs(scores[0] - scores[1]) < 0.3


def _miou(maps, scenes, classes) -> float:
    counts = sum(
        confusion_matrix(labels, scene.labels, classes, 255)
        for labels, scene in zip(maps, scenes, strict=True)
    )[:classes, :classes]
    own = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - own
    return 100 * float((own / union.clip(1))[counts.sum(1) > 0].mean())


def test_a_mask_that_is_the_largest_nowhere_is_named_by_the_one_it_overlaps():
    settings = FastSettings(min_share=0.1, rest=0.01)
    masks = torch.zeros(5, 20, 20)
    masks[0, :, :10] = masks[1, :, 10:] = 1.0
    masks[2, :, 11:] = 0.45  # 0.45 of 1.45 is more than a tenth
    masks[3, :, 11:] = 0.3  # no pixel above the threshold
    quality = torch.ones(5)
    find = lambda quality: settings.stand_ins(masks, quality, threshold=0.4).tolist()  # noqa: E731
    assert find(None) == [0, 1, 2, 3, 4]
    quality[2] = 0.1  # 0.045 of 1.045 is less
    assert find(quality) == [0, 1, 1, 3, 4]
    masks[4, 0, :2] = 1.0  # two of 400 pixels, half of each
    assert find(quality) == [0, 1, 1, 3, 0]
    masks[4, 0, :4] = 1.0  # four: the one per cent is reached
    assert find(quality) == [0, 1, 1, 3, 4]
    assert FastSettings().stand_ins(masks, quality, threshold=0.4).tolist() == [0, 1, 2, 3, 4]


@torch.no_grad()
def test_the_model_looks_at_fewer_masks_and_all_have_features():
    overrides = {
        "TEST__FAST__ENABLED": True,
        "TEST__FAST__MIN_SHARE": 0.147,
        "TEST__FAST__REST": 0.3,
    }
    model = tiny_model(**overrides, TEST__FAST__PRECISION="float32")
    [encoding] = model.encode([{"image": image(64, 96)}])
    looked_at = []
    model.clip_adapter.clip_model.visual.register_forward_pre_hook(
        lambda _, inputs: looked_at.append(len(inputs[0]))
    )
    regions = model.region_features(encoding)
    assert 0 < sum(looked_at) < int(regions.valid.sum())
    assert bool(regions.encoded[regions.valid].all())
    model.decode(encoding, vocabulary())
    model.region_features(encoding)
    assert len(looked_at) == 1


@torch.no_grad()
def test_new_weights_are_rounded_anew():
    if not has_int8(CPU):
        pytest.skip("torch multiplies no int8 on this CPU")
    model = tiny_model(TEST__FAST__ENABLED=True, TEST__FAST__PRECISION="int8")
    keys = set(model.state_dict())
    [encoding] = model.encode([{"image": image(64, 96)}])
    before = model.region_features(encoding).features
    assert set(model.state_dict()) == keys
    state = model.state_dict()
    state["clip_adapter.clip_model.visual.transformer.resblocks.0.mlp.c_fc.weight"] *= -1
    model.load_state_dict(state)
    encoding.regions.clear()
    assert (model.region_features(encoding).features - before).abs().max() > 1e-2


def test_settings():
    cfg = load_cfg("ovseg_swinB")
    assert FastSettings.from_config(cfg) == FastSettings()
    cfg = load_cfg("ovseg_swinB", ["TEST.FAST.ENABLED", True])
    settings = FastSettings.from_config(cfg)
    assert settings.blocks_before_merging(24, 3) == 12
    assert settings.blocks_before_merging(4, 3) == 3
    assert settings.blocks_before_merging(3, 3) is None
    assert FastSettings().blocks_before_merging(24, 0) is None
    assert FastSettings(precision="auto").precision_on(torch.device("meta")) == "float32"
    with pytest.raises(ValueError, match="multiplies int8, got cuda"):
        FastSettings(precision="int8").precision_on(torch.device("cuda"))
    for change, message in (
        ({"precision": "int4"}, "TEST.FAST.PRECISION: expected one of float32"),
        ({"merge_after": 0.0}, r"TEST.FAST.MERGE_AFTER: expected a share .* got 0.0"),
        ({"min_share": 1.0}, r"TEST.FAST.MIN_SHARE: expected a share in \[0, 1\), got 1.0"),
        ({"rest": -0.1}, "TEST.FAST.REST"),
    ):
        with pytest.raises(ValueError, match=message):
            FastSettings(**change)
