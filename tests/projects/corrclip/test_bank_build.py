from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.projects.corrclip.bank import BankError, BankRunError, MemoryBank
from ovseg.projects.corrclip.bank.build import build_memory_bank
from ovseg.projects.corrclip.bank.storage import read_images
from ovseg.projects.corrclip.bank.work import BankParts
from ovseg.projects.corrclip.regions.plain import GridRegions
from ovseg.projects.corrclip.sources import open_pictures
from tests.helpers import ROOT, run_python
from tests.projects.corrclip.toy_bank import (
    ToyDescriber,
    ToyRegions,
    make_dying_parts,
    make_other_parts,
    make_parts,
    write_pictures,
)

SCRIPT = """
import sys
from ovseg.projects.corrclip.bank.build import build_memory_bank
from ovseg.projects.corrclip.sources import open_pictures
from tests.projects.corrclip.toy_bank import make_slow_parts
if __name__ == "__main__":
    source, bank, executor, workers = sys.argv[1:]
    build_memory_bank(open_pictures(source), bank, make_parts=make_slow_parts, shard_size=5,
                      executor=executor, workers=int(workers))
"""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("pictures"), 12)


def build(source, bank, **options):
    options = {"make_parts": make_parts, "shard_size": 5} | options
    return build_memory_bank(open_pictures(str(source)), bank, **options)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a bank but the one that tells of time and machine."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_bank_holds_the_regions_of_all_pictures_in_the_order_of_their_names(pictures, tmp_path):
    summary = build(pictures, tmp_path)

    assert sorted(files(tmp_path)) == [
        "_SUCCESS",
        "images.tsv",
        "keys/toy_colours.npy",
        "manifest.json",
        "quarantine.jsonl",
        "regions.txt",
        "rounds/round-00000.json",
        *(f"shards/part-0000{n}.{end}" for n in range(3) for end in ("json", "safetensors")),
        "summary.json",
        "values/toy_one.npy",
        "values/two.npy",
    ]
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["images_in"], summary["regions"]) == (12, 48)
    stems = sorted(path.stem for path in pictures.glob("*.png"))
    images = list(read_images(tmp_path / "images.tsv"))
    assert images == [(stem, 4 * n, 4) for n, stem in enumerate(stems)]
    lines = (tmp_path / "regions.txt").read_text().splitlines()
    assert lines == [f"{stem}#{one}" for stem in stems for one in (1, 2, 3, 4)]
    bank = MemoryBank.load(tmp_path)
    image = np.array(Image.open(pictures / f"{stems[5]}.png"))
    keys, values = ToyDescriber()(image, GridRegions(2, 2)(image, ""))
    assert np.array_equal(bank.keys[20:24], keys.astype(np.float16))
    assert np.array_equal(bank.values("two")[20:24], values["two"].astype(np.float16))
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["images_described"], run["shards_described"], run["workers"]) == (12, 3, 1)


def test_a_finished_bank_is_left_as_it_is(pictures, tmp_path):
    first = build(pictures, tmp_path)
    before, run = files(tmp_path), (tmp_path / "run.json").read_text()

    assert build(pictures, tmp_path) == first
    assert files(tmp_path) == before and (tmp_path / "run.json").read_text() == run


def test_pictures_without_regions_are_skipped_and_bad_ones_quarantined(pictures, tmp_path):
    source = write_pictures(tmp_path / "world", 3)
    (source / "30.png").write_bytes(b"no picture")
    for name, colour in (("31", 0), ("32", 255)):
        Image.fromarray(np.full((12, 16, 3), colour, np.uint8)).save(source / f"{name}.png")
    summary = build(source, tmp_path / "bank")

    counts = ("images_in", "regions", "images_without_regions", "images_quarantined")
    assert [summary[name] for name in counts] == [6, 12, 1, 2]
    lines = (tmp_path / "bank" / "quarantine.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["image_id"], one["kind"]) for one in found] == [
        ("30", "picture"),
        ("32", "regions"),
    ]
    assert found[1]["reason"] == "too bright" and str(tmp_path) not in lines[0]
    stems = [stem for stem, _, _ in read_images(tmp_path / "bank" / "images.tsv")]
    assert len(stems) == 3 and not {"30", "31", "32"} & set(stems)


def test_names_that_the_lists_cannot_hold_are_quarantined(tmp_path):
    source = write_pictures(tmp_path / "world", 2)
    (source / "00.png").rename(source / "a\tb.png")
    build(source, tmp_path / "bank")

    (line,) = (tmp_path / "bank" / "quarantine.jsonl").read_text().splitlines()
    assert "holds a tab or a line end" in json.loads(line)["reason"]


def test_vectors_that_half_precision_cannot_hold_are_quarantined(pictures, tmp_path):
    with pytest.raises(BankError, match=r"none of its 12 readable pictures.*half precision"):
        parts = BankParts(ToyRegions(), ToyDescriber(factor=1e9))
        build(pictures, tmp_path, make_parts=lambda: parts, shard_size=20)


def test_a_bank_without_any_region_is_no_bank(tmp_path):
    source = tmp_path / "world"
    source.mkdir()
    Image.fromarray(np.zeros((12, 16, 3), np.uint8)).save(source / "dark.png")

    with pytest.raises(BankError, match="expected at least one region, got none in 1 pictures"):
        build(source, tmp_path / "bank")
    assert not (tmp_path / "bank" / "_SUCCESS").exists()


# -- growing ----------------------------------------------------------------------------------


def test_a_bank_grows_without_computing_anything_again(tmp_path):
    source = write_pictures(tmp_path / "world", 7)
    build(source, tmp_path / "bank")
    before = files(tmp_path / "bank")
    old = np.array(MemoryBank.load(tmp_path / "bank").keys)
    write_pictures(source, 4, first=7)
    described = []

    class Counting(ToyDescriber):
        def __call__(self, image, regions):
            described.append(1)
            return super().__call__(image, regions)

    with pytest.raises(BankError, match=r"has 7 pictures and lacks 4 .*--append"):
        build(source, tmp_path / "bank")
    parts = BankParts(ToyRegions(), Counting())
    build(source, tmp_path / "bank", append=True, make_parts=lambda: parts)

    after = files(tmp_path / "bank")
    assert len(described) == 4
    assert all(after[name] == before[name] for name in before if name.startswith("shards/"))
    assert after["images.tsv"].startswith(before["images.tsv"])
    assert after["regions.txt"].startswith(before["regions.txt"])
    images = [stem for stem, _, _ in read_images(tmp_path / "bank" / "images.tsv")]
    assert images[:7] == sorted(images[:7]) and images[7:] == sorted(images[7:])
    grown = MemoryBank.load(tmp_path / "bank")
    assert len(grown) == 44 and np.array_equal(grown.keys[:28], old)
    build(source, tmp_path / "bank")
    assert files(tmp_path / "bank") == after


def test_a_bank_grows_by_pictures_of_another_folder(pictures, tmp_path):
    build(pictures, tmp_path / "bank")
    other = write_pictures(tmp_path / "other", 3, first=20)
    summary = build(other, tmp_path / "bank", append=True)

    assert summary["images_in"] == 15
    assert len(list((tmp_path / "bank" / "rounds").iterdir())) == 2


def test_a_limit_counts_new_pictures(pictures, tmp_path):
    assert build(pictures, tmp_path, limit=4)["images_in"] == 4
    assert build(pictures, tmp_path, limit=4)["images_in"] == 4
    assert build(pictures, tmp_path, limit=6, append=True)["images_in"] == 10
    assert build(pictures, tmp_path, append=True)["images_in"] == 12
    with pytest.raises(ValueError, match="limit: expected at least 1"):
        build(pictures, tmp_path, limit=0)


def test_a_written_index_follows_the_bank(tmp_path):
    pytest.importorskip("faiss")
    source = write_pictures(tmp_path / "world", 3)
    build(source, tmp_path / "bank", index="faiss")
    path = tmp_path / "bank" / "index" / "toy_colours.faiss"
    assert path.is_file()
    bank = MemoryBank.load(tmp_path / "bank", index="faiss")
    assert bank.name.endswith("/faiss") and bank.index.index.ntotal == 12

    write_pictures(source, 2, first=3)
    build(source, tmp_path / "bank", append=True, index="faiss")
    assert MemoryBank.load(tmp_path / "bank", index="faiss").index.index.ntotal == 20
    path.unlink()
    assert MemoryBank.load(tmp_path / "bank", index="faiss").index.index.ntotal == 20


# -- resuming ---------------------------------------------------------------------------------


def test_a_bank_of_other_models_is_refused_and_told_what_differs(pictures, tmp_path):
    build(pictures, tmp_path)
    before = files(tmp_path)
    for part in ("part-00001.json", "part-00002.json"):
        (tmp_path / "shards" / part).unlink()

    with pytest.raises(BankRunError, match=r"settings\.factor: 1\.0 -> 2\.0"):
        build(pictures, tmp_path, make_parts=make_other_parts)
    build(pictures, tmp_path)
    assert files(tmp_path) == before


def test_an_unfinished_round_of_other_pictures_is_refused(pictures, tmp_path):
    build(pictures, tmp_path / "bank")
    (tmp_path / "bank" / "shards" / "part-00001.json").unlink()
    other = write_pictures(tmp_path / "other", 3, first=20)

    with pytest.raises(BankRunError, match=r"round of a memory bank.*images: 12 -> 3"):
        build(other, tmp_path / "bank")


def test_a_round_that_was_only_announced_does_not_bind(pictures, tmp_path):
    build(pictures, tmp_path / "bank")
    other = write_pictures(tmp_path / "other", 3, first=20)
    (tmp_path / "bank" / "rounds" / "round-00001.json").write_text('{"images": 9, "shards": 2}')

    assert build(other, tmp_path / "bank", append=True)["images_in"] == 15


def test_shards_that_were_changed_are_noticed(pictures, tmp_path):
    build(pictures, tmp_path)
    part = tmp_path / "shards" / "part-00001.safetensors"
    part.write_bytes(part.read_bytes() + b"!")

    with pytest.raises(BankError, match=r"part-00001\.safetensors: expected \d+ bytes"):
        build(pictures, tmp_path)


def test_shards_of_unknown_origin_are_refused(pictures, tmp_path):
    build(pictures, tmp_path)
    (tmp_path / "manifest.json").unlink()

    with pytest.raises(BankError, match=r"has shards but no manifest\.json"):
        build(pictures, tmp_path)


def test_ranks_share_the_shards_and_the_first_joins_them(pictures, tmp_path, monkeypatch):
    build(pictures, tmp_path / "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert build(pictures, tmp_path / "together", executor="torchrun") is None
    monkeypatch.setenv("RANK", "0")
    build(pictures, tmp_path / "together", executor="torchrun")

    assert files(tmp_path / "together") == files(tmp_path / "alone")


@pytest.mark.slow
def test_two_workers_leave_what_one_leaves_and_a_dead_one_is_explained(pictures, tmp_path):
    build(pictures, tmp_path / "one")
    with pytest.raises(BankError, match=r"a worker process ended.*start the same run again"):
        build(pictures, tmp_path / "two", workers=2, make_parts=make_dying_parts)
    build(pictures, tmp_path / "two", workers=2)

    assert files(tmp_path / "two") == files(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kills_at_random_moments_change_nothing(tmp_path, workers):
    world = write_pictures(tmp_path / "world", 90)
    build(world, tmp_path / "whole")
    script, bank = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    rng, command = random.Random(workers), [str(script), str(world), str(bank), "local"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for _ in range(2):
        before = len(list(bank.glob("shards/*.json")))
        process = subprocess.Popen(
            [sys.executable, *command, str(workers)], cwd=ROOT, env=environment
        )
        while process.poll() is None and len(list(bank.glob("shards/*.json"))) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.wait()
    assert not (bank / "_SUCCESS").exists(), "killed too late to test anything"
    run = run_python(*command, str(workers))
    assert run.returncode == 0, run.stderr

    assert files(bank) == files(tmp_path / "whole")
