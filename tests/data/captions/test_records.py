from __future__ import annotations

import json
import pickle

import pytest

from ovseg.config import get_default_cfg
from ovseg.data import loaders
from ovseg.data.captions import records as module
from ovseg.data.captions.records import CaptionSet, PictureRecords, caption_records
from ovseg.data.mappers import TRAIN_MAPPER_REGISTRY
from tests.data.captions.source_files import picture, write, write_tar


@pytest.fixture
def root(tmp_path):
    """COCO captions of two pictures, and a tar with one."""
    images = [{"id": 7, "file_name": "a.png"}, {"id": 9, "file_name": "b.png"}]
    texts = {7: ["a grey square", "  "], 9: ["a döner", None, "something"]}
    annotations = [
        {"image_id": key, "caption": text} for key, captions in texts.items() for text in captions
    ]
    content = json.dumps({"images": images, "annotations": annotations})
    write(tmp_path / "annotations" / "captions_toy.json", content)
    for name in "ab":
        write(tmp_path / "toy" / f"{name}.png", picture(50))
    write_tar(tmp_path / "more" / "0.tar", [("x.png", picture(9)), ("x.txt", b"dark")])
    return tmp_path


def test_every_usable_caption_is_a_record_of_its_own(root):
    records = caption_records(["annotations/captions_toy.json", "more/*.tar"], root=root)
    assert [r["caption"] for r in records] == ["a grey square", "a döner", "something", "dark"]
    assert [r["image_id"] for r in records] == ["7", "9", "9", "0/x"]
    assert records[1]["file_name"] == "b.png" and records[1]["image_root"] == str(root / "toy")
    assert records[3]["file_name"].startswith("0.tar#x.png@")
    assert records[-1] == records[3] and records[1:3] == [records[1], records[2]]
    with pytest.raises(IndexError):
        records[4]
    assert list(pickle.loads(pickle.dumps(records))) == list(records)


def test_a_picture_is_one_record_with_all_of_its_captions(root):
    records = caption_records(["annotations/captions_toy.json", "more/*.tar"], root=root)
    pictures = PictureRecords(records)
    assert [p["captions"] for p in pictures] == [
        ("a grey square",),
        ("a döner", "something"),
        ("dark",),
    ]
    assert pictures[1]["file_name"] == "b.png" and "caption" not in pictures[1]
    assert pictures[-1] == pictures[2] == pictures[1:][1] and len(pictures) == 3


def test_a_known_set_makes_its_own_files(root, monkeypatch):
    made = []
    monkeypatch.setattr("ovseg.tinyscapes.ensure_split", lambda *words: made.append(words))
    known = CaptionSet("annotations/captions_toy.json", ("ovseg.tinyscapes", "ensure_split", "x"))
    monkeypatch.setitem(module.CAPTION_SETS, "toy_captions", known)
    assert len(caption_records(["toy_captions"], root=root)) == 3 and made == [(root, "x")]


def test_what_is_not_there_is_answered_with_the_names_that_are_known(root):
    with pytest.raises(FileNotFoundError, match=r"coco_2014_train_captions.*got 'nothing\.json'"):
        caption_records(["nothing.json"], root=root)
    with pytest.raises(ValueError, match=r"set DATASETS\.TRAIN"):
        caption_records([], root=root)


def test_a_mapper_that_brings_its_records_is_loaded_from_them(root):
    class Mapper:
        records = caption_records(["annotations/captions_toy.json"], root=root)

        def __call__(self, record, rng):
            return {"caption": record["caption"], "draw": int(rng.integers(1000))}

    TRAIN_MAPPER_REGISTRY._obj_map["toy_captions"] = lambda cfg: Mapper()
    try:
        cfg = get_default_cfg()
        settings = ["INPUT.DATASET_MAPPER_NAME", "toy_captions", "SOLVER.IMS_PER_BATCH", 3]
        settings += ["DATALOADER.NUM_WORKERS", 0, "DATALOADER.ASPECT_RATIO_GROUPING", False]
        cfg.merge_from_list([*settings, "SEED", 1])
        batch = next(loaders.build_train_loader(cfg))
    finally:
        del TRAIN_MAPPER_REGISTRY._obj_map["toy_captions"]
    assert {sample["caption"] for sample in batch} == {"a grey square", "a döner", "something"}
