from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from ovseg.clip_training.mined_pairs import open_records
from ovseg.data.captions.sources import open_source
from ovseg.data.pairs import RecordPairDataset
from ovseg.mining.executors import run_mining
from ovseg.mining.parts import MiningConfig
from ovseg.mining.records import read_records, write_records
from ovseg.readers.pictures import read_image
from tests.mining.toy_mining import make_parts, write_world

CONFIG = MiningConfig(shard_size=5)


def mine(world: Path, output: Path) -> Path:
    run_mining(open_source(world), CONFIG, output, make_parts=make_parts)
    return output


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"), count=6)


@pytest.fixture(scope="module")
def mined(world, tmp_path_factory) -> Path:
    return mine(world, tmp_path_factory.mktemp("mined"))


@pytest.mark.parametrize("part", ["", "shards", "shards/part-00001.parquet"])
def test_pictures_are_found_where_they_were_mined(world, mined, part, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    records, root = open_records([mined / part])

    assert root == world.parents[1] / "train"
    assert records.equals(read_records(mined / part))


def test_a_source_given_by_a_relative_path_is_found_from_everywhere(tmp_path, monkeypatch):
    write_world(tmp_path / "world", count=3)
    monkeypatch.chdir(tmp_path / "world")
    mine(Path("annotations/captions_train.json"), Path("out"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    _, root = open_records([Path("../world/out")])

    assert (root / "0000.png").is_file()


def test_a_folder_that_is_given_comes_first(mined, tmp_path, caplog):
    other = write_world(tmp_path, count=6).parents[1] / "train"

    assert open_records([mined], str(other))[1] == other
    assert not caplog.records


def test_pictures_that_moved_are_missed_before_training(mined, tmp_path):
    world = write_world(tmp_path / "world", count=3)
    output = mine(world, tmp_path / "out")
    pictures, moved = tmp_path / "world" / "train", tmp_path / "moved"

    pictures.rename(moved)
    with pytest.raises(ValueError, match=r"world/train: no such folder.*with --image-root$"):
        open_records([output])
    with pytest.raises(ValueError, match=r"nowhere: no such folder, though --image-root has"):
        open_records([output], tmp_path / "nowhere")
    assert open_records([output], moved)[1] == moved
    pictures.mkdir()
    with pytest.raises(ValueError, match=r"pictures are not in .*train \(0000.png: no such file"):
        open_records([output])
    (moved / "0000.png").rename(pictures / "0000.png")  # one that is missing is no reason
    assert open_records([output])[1] == pictures


def test_other_pictures_of_the_same_names_are_noticed(mined, tmp_path, caplog):
    for file in ("0000.png", "0001.png", "0002.png", "0003.png", "0004.png", "0005.png"):
        (tmp_path / file).write_bytes(b"another picture")

    open_records([mined], tmp_path)

    assert f"the pictures in {tmp_path} are not those that were mined" in caplog.text


def test_records_without_their_run_are_read_from_the_current_folder(mined, tmp_path, monkeypatch):
    alone = tmp_path / "pairs.parquet"
    write_records(alone, read_records(mined))

    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"pairs\.parquet: its pictures are not in .*--image-root"):
        open_records([alone])
    monkeypatch.chdir(open_records([mined])[1])
    assert open_records([alone])[1] == Path()


def test_runs_over_different_folders_are_joined(mined, tmp_path):
    world = write_world(tmp_path / "b", count=2)
    (world.parents[1] / "train" / "0000.png").write_bytes(
        (open_records([mined])[1] / "0005.png").read_bytes()
    )
    other = mine(world, tmp_path / "out")

    records, root = open_records([mined, other])

    expected = [read_image(open_records([run])[1] / "0000.png") for run in (mined, other)]
    first = len(read_records(mined))
    assert records["pair_id"].to_pylist()[first:] == read_records(other)["pair_id"].to_pylist()
    pairs = RecordPairDataset(records, image_size=(8, 8), image_root=root)
    for index, image in zip((0, first), expected, strict=True):
        uri = records["image_uri"][index].as_py()
        assert np.array_equal(read_image(root / uri), image)
        assert pairs[index]["image"].shape == (3, 8, 8)


def test_a_run_that_has_not_finished_says_so(world, tmp_path, caplog, monkeypatch):
    mine(world, tmp_path)
    for name in ("_SUCCESS", "run.json"):
        (tmp_path / name).unlink()
    (tmp_path / "shards" / "part-00001.parquet").unlink()
    monkeypatch.chdir(world.parents[1] / "train")

    with caplog.at_level(logging.WARNING):
        records, _ = open_records([tmp_path])

    assert "mining has not finished" in caplog.text
    assert set(records["image_id"].to_pylist()) == {"0", "1", "2", "3", "4"}


def test_a_damaged_run_file_is_named(mined, tmp_path):
    (tmp_path / "shards").mkdir()
    write_records(tmp_path / "shards" / "part-00000.parquet", read_records(mined))
    (tmp_path / "run.json").write_text('["image_root"]')

    with pytest.raises(ValueError, match=r"run\.json: expected facts about a run"):
        open_records([tmp_path])
