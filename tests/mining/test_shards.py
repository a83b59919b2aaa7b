from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from ovseg.data.captions.sources import ImageReader, ImageRow, Shard, open_source
from ovseg.mining.matching import MatchConfig
from ovseg.mining.nouns import NounConfig, NounExtractor
from ovseg.mining.parts import MiningConfig, MiningError, MiningParts
from ovseg.mining.records import SCHEMA, records_table
from ovseg.mining.shards import mine_shard
from ovseg.proposals import GridProposer, ProposalError
from ovseg.utils.masks import decode_rle
from tests.mining.broken_inputs import EXPECTED, MAX_PIXELS, write_broken_world
from tests.mining.toy_mining import ToyNouns, ToyScorer, make_parts

RED, BLUE = (200, 10, 10), (10, 10, 200)


class ColourScorer:
    """ "cat" is red, "sky" is blue."""

    name = "colours"

    def __call__(self, image, masks, texts):
        shares = np.stack([image[mask].mean(axis=0) / 255 for mask in masks])  # (V, 3)
        return np.stack([shares[:, {"cat": 0, "sky": 2}[text]] for text in texts], axis=1)


def picture(left=RED, right=BLUE, height=4, width=6):
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[:, : width // 2], image[:, width // 2 :] = left, right
    return image


def mine(rows, *, pictures=None, parts=None, **settings):
    """Mine rows; a picture that is an error is raised."""

    def read(row):
        found = (pictures or {}).get(row.image_id, picture())
        if isinstance(found, Exception):
            raise found
        return found, f"hash of {row.image_id}"

    parts = parts or MiningParts(GridProposer(1, 2), ColourScorer(), ToyNouns())
    return mine_shard(Shard(3, tuple(rows)), MiningConfig(**settings), parts, read)


def row(name="a", *captions):
    return ImageRow(name, f"{name}.jpg", captions or ("the sky and a cat",))


def test_a_record_says_where_the_pair_comes_from_and_how_sure_it_is():
    [sky, cat] = mine([row()]).records

    assert list(sky) == SCHEMA.names
    assert (sky["noun"], sky["bbox"], sky["area"]) == ("sky", [3, 0, 6, 4], 12)
    assert (cat["noun"], cat["bbox"], cat["area"]) == ("cat", [0, 0, 3, 4], 12)
    assert cat["caption"][cat["span_start"] : cat["span_end"]] == "cat"
    region = decode_rle({"size": [cat["height"], cat["width"]], "counts": cat["rle_counts"]})
    assert region[:, :3].all()
    assert not region[:, 3:].any()
    assert cat["clip_score"] == round(200 / 255, 4)
    assert cat["runner_up_score"] == round(10 / 255, 4)
    assert cat["margin"] == round(cat["clip_score"] - cat["runner_up_score"], 4)
    assert cat["noun_probability"] == 1.0
    assert cat["mutual"]
    assert cat["image_sha256"] == "hash of a"
    assert (cat["proposal_model"], cat["clip_model"]) == ("grid:1x2", "colours")
    assert len({sky["pair_id"], cat["pair_id"]}) == 2
    assert records_table([sky, cat]).num_rows == 2


def test_the_chosen_captions_are_used_and_a_noun_is_taken_once():
    given = row("a", "a cat", "the sky, a cat")

    def nouns(captions):
        return [(r["noun"], r["caption_index"]) for r in mine([given], captions=captions).records]

    assert nouns("first") == [("cat", 0)]
    assert nouns(1) == [("sky", 1), ("cat", 1)]
    assert nouns("all") == [("cat", 0), ("sky", 1)]


def test_an_unusable_caption_among_others_does_not_cost_the_picture():
    result = mine([row("a", None, "a cat", "")], captions="all")

    assert [r["noun"] for r in result.records] == ["cat"]
    assert (result.counts["captions"], result.counts["captions_unusable"]) == (1, 2)
    assert result.quarantine == []


def test_a_caption_that_is_asked_for_and_missing_sets_the_picture_aside():
    [entry] = mine([row("a", "a cat")], captions=3).quarantine

    assert entry["kind"] == "caption"
    assert entry["reason"] == "it has 1 captions; asked for was: 3"


def test_limits_of_matching_apply():
    dull = {"a": picture((90, 0, 80), (80, 0, 90))}
    strict = MatchConfig(threshold=0.5)

    assert len(mine([row()], pictures=dull).records) == 2
    result = mine([row()], pictures=dull, matching=strict)
    assert result.records == []
    assert result.without_pairs == {"no match within the limits": 1}


def test_a_picture_at_fault_does_not_cost_the_others_of_its_batch():
    class Picky(GridProposer):
        def propose_batch(self, images, image_ids):
            if "b" in image_ids:
                raise ProposalError("no masks for b")
            return [self(image, name) for image, name in zip(images, image_ids, strict=True)]

    class NoScoresForC(ColourScorer):
        def __call__(self, image, masks, texts):
            scores = super().__call__(image, masks, texts)
            return scores * np.nan if image[0, 0, 1] == 99 else scores

    parts = MiningParts(Picky(1, 2), NoScoresForC(), ToyNouns())
    pictures = {"c": picture((9, 99, 9))}
    result = mine([row(name) for name in "abcd"], parts=parts, pictures=pictures, batch_size=4)

    assert [r["image_id"] for r in result.records] == ["a", "a", "d", "d"]
    assert [(e["image_id"], e["kind"]) for e in result.quarantine] == [
        ("b", "regions"),
        ("c", "scores"),
    ]
    assert "no masks for b" in result.quarantine[0]["reason"]


def test_a_picture_without_regions_is_counted():
    class Nothing(GridProposer):
        def __call__(self, image, image_id):
            return np.zeros((0, *image.shape[:2]), dtype=bool)

    result = mine([row()], parts=MiningParts(Nothing(1, 1), ColourScorer(), ToyNouns()))

    assert result.without_pairs == {"no regions": 1}
    assert result.counts["images_without_pairs"] == 1


def test_a_fault_of_all_pictures_stops_the_run():
    class Broken(GridProposer):
        def __call__(self, image, image_id):
            raise ProposalError("the folder of masks is the wrong one")

    parts = MiningParts(Broken(1, 1), ColourScorer(), ToyNouns())

    with pytest.raises(MiningError, match=r"shard 3: none of its 8 .* the wrong one"):
        mine([row(name) for name in "abcdefgh"], parts=parts)


def test_a_gpu_out_of_memory_is_not_blamed_on_the_picture():
    class Full(GridProposer):
        def __call__(self, image, image_id):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.cuda.OutOfMemoryError):
        mine([row()], parts=MiningParts(Full(1, 1), ColourScorer(), ToyNouns()))


def test_batches_do_not_change_the_records():
    rows = [row(name) for name in "abcde"]
    pictures = {name: picture((10 * i, 0, 9), (9, 0, 11 * i)) for i, name in enumerate("abcde")}

    one, all_at_once = (mine(rows, pictures=pictures, batch_size=size).records for size in (1, 5))

    assert one == all_at_once
    assert len(one) == 10


@pytest.mark.parametrize("tagger", ["toy", "textblob"])
def test_broken_inputs_are_set_aside_or_handled_and_none_is_lost(tmp_path, tagger):
    source = open_source(write_broken_world(tmp_path))
    parts = make_parts()
    if tagger == "textblob":
        nouns = NounExtractor(NounConfig(tagger="textblob"))
        parts = MiningParts(GridProposer(2, 2), ToyScorer(), nouns)
    [shard] = source.shards(1000)
    config = MiningConfig(max_pixels=MAX_PIXELS)

    result = mine_shard(shard, config, parts, ImageReader(source.image_root).with_hash)

    became = {entry["image_id"]: entry["kind"] for entry in result.quarantine}
    became |= {record["image_id"]: "pairs" for record in result.records}
    assert {name: became.get(name, "nothing") for name in EXPECTED} == EXPECTED
    assert len(EXPECTED) > 20
    counts, kinds = result.counts, Counter(EXPECTED.values())
    assert counts["images_in"] == len(EXPECTED)
    assert counts["images_with_pairs"] == kinds["pairs"]
    assert counts["images_without_pairs"] == result.without_pairs["no nouns"] == kinds["nothing"]
    assert counts["images_quarantined"] == len(result.quarantine)
    assert all(entry["reason"] for entry in result.quarantine)
    records_table(result.records)  # what is kept can be stored


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"captions": "last"}, "'first', 'all' or an index, got 'last'"),
        ({"captions": -1}, "got -1"),
        ({"shard_size": 0}, "shard_size: expected at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MiningConfig(**settings)
