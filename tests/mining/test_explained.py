from __future__ import annotations

import numpy as np
import pytest

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.captions.sources import ImageRow, Shard
from ovseg.data.catalog import register_sem_seg
from ovseg.mining.explained import PictureLabels, TrainingLabels, means_one_of
from ovseg.mining.nouns import Noun
from ovseg.mining.parts import MiningConfig, MiningError, MiningParts
from ovseg.mining.records import records_table
from ovseg.mining.shards import mine_shard
from ovseg.mining.summary import merge_statistics, shard_statistics, summarise
from ovseg.proposals import GridProposer
from ovseg.utils.images import write_png
from tests.mining.toy_mining import ToyNouns

WORDS = {0: ("pine", "fir"), 1: ("grass",), 3: ("wall-brick",)}


def labels() -> np.ndarray:
    """Four quarters: pine, grass, ignored, and class 2, which has no words."""
    found = np.full((8, 8), 255, np.uint16)
    found[:4, :4], found[:4, 4:], found[4:, 4:] = 0, 1, 2
    return found


def quarter(row: int, column: int) -> np.ndarray:
    mask = np.zeros((8, 8), bool)
    mask[4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = True
    return mask


def test_a_proposal_on_a_labelled_region_gets_its_noun_and_any_other_none():
    half, less, ignored_too = quarter(0, 0), quarter(0, 0), quarter(0, 0)
    half[:2], less[:1, :2] = False, False
    ignored_too[4:, :4] = True  # half of it is ignored: IoU 0.5, not above
    masks = [quarter(0, 0), quarter(0, 1), quarter(1, 0), quarter(1, 1), half, less, ignored_too]

    named = PictureLabels(labels(), WORDS).explain(np.stack(masks))

    assert named == ["pine", "grass", None, None, None, "pine", None]
    assert PictureLabels(labels(), {}).explain(np.stack(masks)) == [None] * 7
    assert PictureLabels(labels(), WORDS).explain(np.zeros((0, 8, 8), bool)) == []


def test_the_nouns_of_what_is_shown_are_those_of_classes_with_a_pixel():
    assert PictureLabels(labels(), WORDS).shown == ("pine", "fir", "grass")


@pytest.mark.parametrize(
    ("text", "lemma", "meant"),
    [
        ("table", "table", True),
        ("tables", "table", True),
        ("old table", "old table", True),
        ("walls", "wall", True),
        ("ski", "ski", True),
        ("dining", "dining", False),
        ("tablecloth", "tablecloth", False),
    ],
)
def test_a_noun_means_a_class_by_its_head(text, lemma, meant):
    noun = Noun(text, lemma, 0, len(text))

    assert means_one_of(noun, ("dining table", "wall-brick", "skis")) == meant


# Per word its scores in the four quarters: pine, grass, ignored, without words.
SCORES = {
    "cat": (0.1, 0.1, 0.7, 0.3),
    "dog": (0.2, 0.1, 0.6, 0.5),
    "tree": (0.9, 0.1, 0.8, 0.2),  # a pine in other words
    "sky": (0.1, 0.2, 0.1, 0.4),
    "pine": (0.8, 0.1, 0.1, 0.1),
    "grass": (0.1, 0.75, 0.9, 0.1),
}


class FixedScorer:
    name = "fixed"

    def __call__(self, image, masks, texts):
        return np.array([SCORES[text] for text in texts], np.float32).T


def mine(caption: str, *, explained=True, read_labels=None, count: int = 1):
    rows = tuple(ImageRow(str(i), f"{i}.jpg", (caption,)) for i in range(count))

    class Labels:
        name = "some labels"

        def __call__(self, row, size):
            assert size == (8, 8)
            return PictureLabels(labels(), WORDS)

    parts = MiningParts(
        GridProposer(2, 2),
        FixedScorer(),
        ToyNouns(),
        labels=(read_labels or Labels()) if explained else None,
    )
    image = np.zeros((8, 8, 3), np.uint8)
    return mine_shard(Shard(0, rows), MiningConfig(), parts, lambda row: (image, "hash"))


def test_explained_proposals_become_pairs_and_captions_name_the_others():
    result = mine("a cat and a dog by a tree on the grass under the sky")

    found = [(r["noun"], r["bbox"], r["origin"], r["mutual"]) for r in result.records]
    assert found == [
        ("cat", [0, 4, 4, 8], "caption", False),  # the tree takes the ignored quarter from it
        ("dog", [0, 4, 4, 8], "caption", False),
        ("sky", [4, 4, 8, 8], "caption", False),
        ("pine", [0, 0, 4, 4], "label", True),
        ("grass", [4, 0, 8, 4], "label", True),
    ]
    pine = result.records[3]
    assert (pine["caption"], pine["caption_index"]) == ("pine", -1)
    assert pine["caption"][pine["span_start"] : pine["span_end"]] == "pine"
    assert pine["clip_score"] == pytest.approx(0.8)
    assert (pine["runner_up_score"], pine["margin"]) == (None, None)
    assert len({record["pair_id"] for record in result.records}) == 5
    table = records_table(result.records)
    assert table["origin"].to_pylist() == ["caption"] * 3 + ["label"] * 2


def test_mutual_choice_is_among_what_labels_leave():
    [cat, sky, *_] = mine("a cat on the grass under the sky").records

    assert (cat["noun"], cat["mutual"], cat["runner_up_score"]) == ("cat", True, pytest.approx(0.3))
    assert (sky["noun"], sky["mutual"]) == ("sky", True)


def test_without_labels_all_nouns_are_matched_with_all_proposals():
    records = mine("a cat by a tree on the grass", explained=False).records

    assert [(r["noun"], r["bbox"]) for r in records] == [
        ("cat", [0, 4, 4, 8]),
        ("tree", [0, 0, 4, 4]),
        ("grass", [0, 4, 4, 8]),
    ]
    assert {record["origin"] for record in records} == {"caption"}


def test_a_caption_without_nouns_costs_no_pair_of_a_label():
    result = mine("nothing of the kind")

    assert [record["noun"] for record in result.records] == ["pine", "grass"]
    summary = summarise(merge_statistics([shard_statistics(result)]))
    assert (summary["pairs"], summary["pairs_from_labels"]) == (2, 2)
    plain = summarise(merge_statistics([shard_statistics(mine("a cat", explained=False))]))
    assert "pairs_from_labels" not in plain


def test_pictures_without_labels_are_set_aside_and_all_of_them_stop_the_run():
    class Nowhere:
        name = "nowhere"

        def __call__(self, row, size):
            raise ValueError("has no label map")

    result = mine("a cat", read_labels=Nowhere(), count=2)
    assert [entry["kind"] for entry in result.quarantine] == ["labels", "labels"]
    assert result.records == []
    with pytest.raises(MiningError, match=r"none of its 9 readable pictures.*has no label map"):
        mine("a cat", read_labels=Nowhere(), count=9)


@pytest.fixture
def training_labels(tmp_path):
    for name in ("0007", "0008"):
        write_png(tmp_path / "labels" / f"{name}.png", labels().astype(np.uint8))
        write_png(tmp_path / "images" / f"{name}.png", np.zeros((8, 8, 3), np.uint8))
    register_sem_seg(
        "explained_train",
        images=tmp_path / "images",
        labels=tmp_path / "labels",
        stuff_classes=["pine", "grass", "void"],
        image_suffix="png",
        background_class=2,
    )
    yield TrainingLabels("explained_train")
    DatasetCatalog.remove("explained_train")
    MetadataCatalog.remove("explained_train")


def test_labels_are_found_by_the_name_of_the_picture(training_labels):
    assert training_labels.name == "explained_train:2"
    for row in (
        ImageRow("7", "train/0007.jpg", ()),
        ImageRow("x", "00.tar#some/0008.jpg@512+99", ()),
        ImageRow("0008", "table.parquet#image@3", ()),
    ):
        found = training_labels(row, (8, 8))
        assert np.array_equal(found.labels, labels())
        assert found.words == {0: ("pine",), 1: ("grass",)}
    with pytest.raises(ValueError, match=r":2 has no label map for 9.jpg \(image 9\)"):
        training_labels(ImageRow("9", "9.jpg", ()), (8, 8))
    with pytest.raises(ValueError, match=r"are \(8, 8\), the picture is \(8, 9\)"):
        training_labels(ImageRow("7", "0007.jpg", ()), (8, 9))
