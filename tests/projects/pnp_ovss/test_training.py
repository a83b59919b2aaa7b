"""A matcher trained on captions, from nothing, by train_net.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import ovseg
from ovseg.mining.nouns import NounConfig, NounExtractor
from ovseg.projects.pnp_ovss.fresh import word_pieces
from ovseg.projects.pnp_ovss.matcher import Tokens
from ovseg.projects.pnp_ovss.matching_loss import MatchingLoss
from ovseg.projects.pnp_ovss.pairs import MatchMapper
from ovseg.tinyscapes import write_split
from ovseg.utils.images import write_png
from ovseg.weights.load import read_state_dict
from tests.helpers import run_python
from tests.projects.pnp_ovss.tiny import PIECES, make_matcher

pytest.importorskip("transformers")

SMALL = {
    "IMAGE_SIZE": 32,
    "WIDTH": 16,
    "MLP_WIDTH": 16,
    "VISION_LAYERS": 1,
    "VISION_HEADS": 2,
    "TEXT_LAYERS": 2,
    "TEXT_HEADS": 2,
    "EMBEDDING": 8,
    "VOCABULARY": 100,
}


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("world")
    write_split(root, "train", 8, workers=0)
    return root


def train(root: Path, name: str, *flags: str) -> Path:
    sizes = [x for key in SMALL for x in (f"MODEL.PNP_OVSS.TRAIN.{key}", str(SMALL[key]))]
    words = ("tools/train_net.py", "--config-file", "pnp_ovss_tiny", *flags, "MODEL.WEIGHTS", "")
    words = (*words, *sizes, "DATASETS.TEST", "()", "SOLVER.IMS_PER_BATCH", "4")
    words = (*words, "SOLVER.MAX_ITER", "6", "SOLVER.CHECKPOINT_PERIOD", "2", "SOLVER.LOG_PERIOD")
    words = (*words, "1", "DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(root / name))
    run = run_python(*words, DETECTRON2_DATASETS=str(root))
    assert run.returncode == 0, run.stderr
    return root / name


@pytest.fixture(scope="module")
def run(world) -> Path:
    return train(world, "whole")


@pytest.fixture
def record(tmp_path):
    pixels = np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3)
    write_png(tmp_path / "a.png", pixels)
    captions = ("a red car on the road", "two cars near a house")
    return {"file_name": "a.png", "image_root": str(tmp_path), "captions": captions}


def mapper(**options):
    captions = ["a red car on the road", "two cars near a house", "a boat in the sea"]
    given = {"prefix": "A picture of", "side": 16, "list_share": 0.5, "most_nouns": 2}
    finder = NounExtractor(NounConfig(lemma=True))
    return MatchMapper(records=[], finder=finder, captions=captions, **(given | options))


def test_a_wrong_text_has_one_noun_that_no_caption_of_the_picture_has(record):
    make = mapper(list_share=0.0)
    assert make.known == ("boat", "car", "house", "road", "sea")
    for seed in range(20):
        sample = make(record, np.random.default_rng(seed))
        text, wrong = sample["text"].split(), sample["wrong"].split()
        changed = [pair for pair in zip(text, wrong, strict=True) if pair[0] != pair[1]]
        assert sample["text"] in record["captions"]
        assert changed[0][0] in ("car", "cars", "road", "house") and changed[0][1] in (
            "boat",
            "sea",
        )


def test_lists_of_nouns_are_asked_as_segmentation_asks(record):
    make = mapper(list_share=1.0)
    texts = [make(record, np.random.default_rng(seed))["text"] for seed in range(20)]
    nouns = [text.removeprefix("A picture of ").split() for text in texts]
    assert {noun for listed in nouns for noun in listed} == {"car", "road", "house"}
    assert {len(listed) for listed in nouns} == {1, 2}
    assert all(len(set(listed)) == len(listed) for listed in nouns)


def test_samples_follow_from_their_random_numbers_and_some_are_mirrored(record):
    make = mapper()
    first, again = (make(record, np.random.default_rng(3)) for _ in range(2))
    assert first["text"] == again["text"] and first["wrong"] == again["wrong"]
    images = [make(record, np.random.default_rng(seed))["image"] for seed in range(9)]
    kinds = {image.numpy().tobytes() for image in images}
    assert len(kinds) == 2 and images[0].shape == (3, 16, 16)


def test_captions_without_different_nouns_are_refused():
    finder = NounExtractor(NounConfig(lemma=True))
    with pytest.raises(ValueError, match=r"at least two different nouns, got \['car'\]"):
        MatchMapper(
            records=[],
            finder=finder,
            captions=["a car"],
            prefix="",
            side=8,
            list_share=0,
            most_nouns=1,
        )


def test_the_matching_loss_is_the_cross_entropy_of_right_and_wrong_texts():
    matcher = make_matcher()
    pixels = torch.randn(2, 3, 32, 32)
    texts, wrong = ["a sky", "a tree"], ["a sea", "a house"]
    losses = MatchingLoss(contrastive_weight=1.0, temperature=0.07)(matcher, pixels, texts, wrong)
    features = matcher.encode_images(pixels)
    pairs = [(0, "a sky", 1), (1, "a tree", 1), (0, "a sea", 0), (1, "a house", 0)]
    pairs += [(0, "a tree", 0), (1, "a sky", 0)]  # of two pictures the other's text is the negative
    expected = 0.0
    for index, text, fits in pairs:
        logits = matcher.match(features[index : index + 1], matcher.tokenize([text.split()]))
        expected -= logits.log_softmax(-1)[0, fits] / len(pairs)
    torch.testing.assert_close(losses["loss_match"], expected)
    assert losses["loss_contrastive"] > 0
    alone = MatchingLoss(contrastive_weight=0.0, temperature=0.07)
    assert set(alone(matcher, pixels, texts, wrong)) == {"loss_match"}


def test_hidden_words_are_told_from_what_is_left():
    matcher = make_matcher()
    features = matcher.encode_images(torch.randn(2, 3, 32, 32)).detach()
    texts = ["a sky", "a tree"]
    loss = MatchingLoss(
        contrastive_weight=0.0, temperature=0.07, masked_weight=2.0, masked_share=1.0
    )
    tokens = matcher.tokenize([text.split() for text in texts])
    ids = tokens.ids.clone()
    ids[:, 1:3] = PIECES.index("[MASK]")
    told = matcher.told(features, Tokens(ids, tokens.mask, tokens.words))[:, 1:3]
    logits = told @ matcher.model.text_encoder.embeddings.word_embeddings.weight.T
    wanted = tokens.ids[:, 1:3].flatten()
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), wanted)
    torch.testing.assert_close(loss._masked_words(matcher, features, texts), expected)
    nothing = MatchingLoss(contrastive_weight=0.0, temperature=0.07, masked_share=0.0)
    assert nothing._masked_words(matcher, features, texts) == 0


def test_a_word_answers_to_the_patches_that_are_like_it():
    matcher = make_matcher()
    features = matcher.encode_images(torch.randn(2, 3, 32, 32)).detach()
    loss = MatchingLoss(contrastive_weight=1.0, temperature=0.07, sharpness=1e4)
    texts = ["a sky", "a traffic light tree"]
    found = loss._likeness(matcher, features, texts)
    unit = torch.nn.functional.normalize
    for column, text in enumerate(texts):
        tokens = matcher.tokenize([text.split()])
        ids = tokens.ids.clone()
        ids[:, 0] = PIECES.index("[CLS]")
        hidden = matcher.model.text_encoder(ids, tokens.mask).last_hidden_state[0, 1:-1]
        words = unit(matcher.model.text_proj(hidden), dim=-1)
        for row in range(2):
            patches = unit(matcher.model.vision_proj(features[row, 1:]), dim=-1)
            expected = (words @ patches.T).amax(1).mean()  # so sharp that the best patch decides
            torch.testing.assert_close(found[row, column], expected, rtol=1e-3, atol=1e-4)


def test_a_text_that_fits_several_pictures_of_a_batch_is_no_negative():
    loss = MatchingLoss(contrastive_weight=1.0, temperature=0.07)
    for _ in range(20):
        others = loss._hard_negatives(torch.zeros(3, 3), ["a sky", "a sky", "a tree"])
        assert others[0] == 2 and others[1] == 2 and others[2] in (0, 1)


def test_word_pieces_are_the_frequent_words_and_letters_for_the_others():
    texts = ["Red car, red car.", "red boat", "once"]
    pieces = word_pieces(texts, size=60)
    letters = list(",.abcdenort")
    assert pieces[:5] == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert pieces[5 : 5 + len(letters)] == letters
    assert pieces[-2:] == ["red", "car"]
    assert word_pieces(texts, size=len(pieces) - 1) == pieces[:-1]
    with pytest.raises(ValueError, match=r"VOCABULARY: expected more than the 27 pieces .* got 20"):
        word_pieces(texts, size=20)


def test_a_run_leaves_a_matcher_that_answers(run, world):
    losses = [json.loads(line) for line in (run / "metrics.json").read_text().splitlines()]
    assert all(np.isfinite(line["loss_match"]) for line in losses) and len(losses) == 6
    final = run / "model_final.safetensors"
    before, after = read_state_dict(run / "fresh_matcher.safetensors"), read_state_dict(final)
    assert before.keys() == after.keys()
    moved = [name for name in before if not torch.equal(before[name], after[name])]
    assert len(moved) > len(before) // 2 and "matcher.header" not in moved
    opts = ["MODEL.WEIGHTS", str(final), "MODEL.PNP_OVSS.ITM.LAYER", "1"]
    predictor = ovseg.load(config="pnp_ovss_tiny", device="cpu", opts=opts)
    picture = next((world / "tinyscapes/train2017").glob("*.jpg"))
    assert predictor.segment(picture, ["sky", "tree"]).labels.max() <= 1


def test_a_run_that_was_stopped_ends_with_the_same_weights(run, world):
    stopped = world / "stopped"
    shutil.copytree(run, stopped)
    (stopped / "last_checkpoint").write_text("model_0000003.pth")
    (stopped / "model_final.safetensors").unlink()
    train(world, "stopped", "--resume")
    whole = read_state_dict(run / "model_final.safetensors")
    again = read_state_dict(stopped / "model_final.safetensors")
    assert all(torch.equal(again[name], value) for name, value in whole.items())
