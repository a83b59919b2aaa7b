from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from ovseg.miner import load_parts, parts_maker
from ovseg.mining.nouns import NounConfig
from ovseg.mining.options import ModelChoice
from ovseg.mining.parts import MiningConfig
from ovseg.modeling.proposer import MaskFormerProposer
from ovseg.modeling.region_scorer import ClipScorer
from ovseg.proposals import GridProposer
from ovseg.vocab import Vocabulary
from tests.modeling.test_region_classifier import classifier, classify

TEXTS = ("cat", "blue sky", "tree")
CONFIG = MiningConfig(nouns=NounConfig(tagger="textblob"))


def picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def regions(count: int, height: int = 40, width: int = 56) -> np.ndarray:
    masks = np.zeros((count, height, width), dtype=bool)
    for index in range(count):
        masks[index, 2 * index : 2 * index + 9, 3 * index : 3 * index + 17] = True
        masks[index, 2 * index, 3 * index] = False
    return masks


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask_prompt": True},
        {"matting": True, "mask_fill": "zero"},
        {"mask_prompt": True, "expand_ratio": 1.5},
    ],
)
def test_scores_are_the_cosines_of_the_classifier(options):
    adapter = classifier(chunk_size=3, **options)
    scorer = ClipScorer(classifier=adapter, name="clip")
    image, masks = picture(0), regions(5)

    scores = scorer(image, masks, TEXTS)

    tensor = torch.from_numpy(image).permute(2, 0, 1)
    with torch.no_grad():
        logits, valid = classify(
            adapter, tensor, torch.from_numpy(masks).float(), Vocabulary.make(TEXTS)
        )
    assert valid.all()
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, logits[:, :-1].numpy() / 100, atol=1e-5)


def test_batches_across_pictures_are_full_and_give_each_its_own_scores():
    adapter = classifier(chunk_size=4)
    scorer = ClipScorer(classifier=adapter, name="clip")
    images = [picture(1), picture(2, 64, 33), picture(3)]
    masks = [regions(5), regions(1, 64, 33), regions(3)]
    texts = [("cat",), ("sky", "tree"), ("tree", "cat", "dog")]
    sizes = []
    hook = adapter.clip_model.visual.register_forward_hook(lambda m, a, out: sizes.append(len(out)))
    together = scorer.score_batch(images, masks, texts)
    hook.remove()

    assert sizes == [4, 4, 1]
    assert [one.shape for one in together] == [(5, 1), (1, 2), (3, 3)]
    for one, *given in zip(together, images, masks, texts, strict=True):
        np.testing.assert_allclose(one, scorer(*given), atol=1e-5)


def test_the_score_of_a_noun_depends_on_no_other_noun():
    image, masks = picture(0), regions(3)
    fresh = ClipScorer(classifier=classifier(), name="clip")
    alone = fresh(image, masks, ("blue sky",))
    used = ClipScorer(classifier=classifier(), name="clip")
    used(image, masks, ("a", "much longer phrase than that"))

    among_others = used(image, masks, ("tree", "blue sky", "cat"))

    # The last matrix product may add in another order; what it multiplies is the same.
    np.testing.assert_allclose(among_others[:, 1:2], alone, atol=1e-6)
    rows = [
        scorer.classifier.text_bank.features(Vocabulary.make(["blue sky"]))
        for scorer in (fresh, used)
    ]
    assert torch.equal(*rows)


def test_half_precision_gives_nearly_the_same_scores():
    image, masks = picture(0), regions(3)
    whole, half = (
        ClipScorer(classifier=classifier(), name="clip", dtype=dtype)(image, masks, TEXTS)
        for dtype in (None, torch.bfloat16)
    )

    assert half.dtype == np.float32
    assert 0 < np.abs(whole - half).max() < 0.02


def test_an_empty_region_is_refused():
    with pytest.raises(ValueError, match="expected regions that are not empty"):
        ClipScorer(classifier=classifier(), name="clip")(
            picture(0), np.zeros((1, 40, 56), bool), ("cat",)
        )


def test_the_bundled_model_mines_by_default():
    parts = load_parts(CONFIG, ModelChoice())

    assert isinstance(parts.proposer, MaskFormerProposer)
    assert parts.proposer.threshold == 0.4
    assert parts.proposer.name == parts.scorer.name
    assert parts.proposer.name.startswith("ovseg_tiny@")
    assert parts.settings["INPUT"] == {"MIN_SIZE_TEST": 128, "MAX_SIZE_TEST": 512}
    assert "DEVICE" not in parts.settings["MODEL"]
    small = np.zeros((20, 30, 3), dtype=np.uint8)
    assert parts.proposer(small, "any").shape[1:] == (20, 30)


def test_random_weights_are_the_same_in_every_worker():
    make = parts_maker(CONFIG, ModelChoice(weights="random", proposals="grid:2x3"))
    first, second = make(), make()
    image, masks = picture(0), regions(3)

    assert isinstance(first.proposer, GridProposer)
    assert re.fullmatch("random@[0-9a-f]{8}", first.scorer.name)
    assert second.scorer.name == first.scorer.name
    assert np.array_equal(first.scorer(image, masks, TEXTS), second.scorer(image, masks, TEXTS))


def test_what_changes_the_results_is_part_of_the_settings():
    usual = load_parts(CONFIG, ModelChoice()).settings
    prompted = ("MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD", "True")
    other = load_parts(CONFIG, ModelChoice(opts=prompted, duplicate_iou=0.9)).settings

    assert usual["MODEL"]["CLIP_ADAPTER"]["MASK_PROMPT_FWD"] is False
    assert other["MODEL"]["CLIP_ADAPTER"]["MASK_PROMPT_FWD"] is True
    assert (usual["duplicate_iou"], other["duplicate_iou"]) == (None, 0.9)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"\('float32', 'bfloat16', 'float16'\), got 'int8'"):
        ModelChoice(precision="int8")


@pytest.mark.parametrize("proposals", ["boxes", "model:x", "grid:2", "grid:axb", "files:"])
def test_an_unknown_kind_of_proposals_is_refused(proposals):
    with pytest.raises(ValueError, match=r"proposals: expected one of .*grid:ROWSxCOLUMNS"):
        load_parts(CONFIG, ModelChoice(proposals=proposals))
