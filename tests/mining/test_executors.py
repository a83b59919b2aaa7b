from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ovseg.data.captions.sources import open_source
from ovseg.mining.executors import run_mining
from ovseg.mining.finish import image_root_of
from ovseg.mining.matching import MatchConfig
from ovseg.mining.parts import MiningConfig, MiningError
from ovseg.mining.progress import watch
from ovseg.mining.records import read_records
from ovseg.mining.worker import Worker
from tests.helpers import ROOT, run_python
from tests.mining.broken_inputs import write_broken_world
from tests.mining.toy_mining import ToyScorer, make_dying_parts, make_parts, write_world

CONFIG = MiningConfig(shard_size=5)
SCRIPT = """
import sys
from ovseg.mining.executors import run_mining
from ovseg.data.captions.sources import open_source
from tests.mining.test_executors import CONFIG, SlowScorer, make_slow_parts
if __name__ == "__main__":
    source, output, executor, workers = sys.argv[1:]
    run_mining(open_source(source), CONFIG, output, make_parts=make_slow_parts, executor=executor,
               workers=int(workers))
"""


class SlowScorer(ToyScorer):
    """Takes long enough to be killed at work."""

    def __call__(self, image, masks, texts):
        time.sleep(0.02)
        return super().__call__(image, masks, texts)


def make_slow_parts():
    return dataclasses.replace(make_parts(), scorer=SlowScorer())


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"), count=12)


def mine(world, output, **options):
    config = options.pop("config", CONFIG)
    return run_mining(open_source(world), config, output, make_parts=make_parts, **options)


def files(folder: Path) -> dict[str, bytes]:
    """Every file of a run but the one that tells of time and machine."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "run.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_run_leaves_pairs_figures_and_a_mark_of_success(world, tmp_path):
    summary = mine(world, tmp_path)

    records = read_records(tmp_path)
    assert sorted(files(tmp_path)) == [
        "_SUCCESS",
        "manifest.json",
        "quarantine.jsonl",
        *(f"shards/part-0000{n}.{kind}" for n in range(3) for kind in ("json", "parquet")),
        "summary.json",
    ]
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["images_in"] == summary["images_with_pairs"] == 12
    assert summary["pairs"] == len(records) == sum(summary["histograms"]["nouns"].values())
    assert sum(summary["histograms"]["scores"].values()) == len(records)
    assert summary["histograms"]["pairs_per_image"] == {"2": 12}
    scores = np.floor(records["clip_score"].to_numpy().astype(float) * 100 + 1e-4) / 100
    bins, counts = np.unique(scores.round(2), return_counts=True)
    expected = {f"{b:.2f}".replace("-0.00", "0.00"): c for b, c in zip(bins, counts, strict=True)}
    assert summary["histograms"]["scores"] == expected
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert set(records["config_hash"].to_pylist()) == {manifest["config_hash"]}
    run = json.loads((tmp_path / "run.json").read_text())
    assert (run["images_mined"], run["shards_mined"]) == (12, 3)


def test_an_interrupted_run_goes_on_and_ends_like_an_undisturbed_one(world, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    mine(world, whole)
    mine_one, mined = Worker.mine, []

    def interrupted(self, shard):
        if len(mined) == 1:
            (broken / "shards" / ".part-00001.x7.parquet").write_bytes(b"half of a fi")
            raise KeyboardInterrupt
        mined.append(shard.index)
        return mine_one(self, shard)

    monkeypatch.setattr(Worker, "mine", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine(world, broken)
    (broken / ".report.x7.html").write_bytes(b"half of a page")
    assert not (broken / "_SUCCESS").exists()
    assert [path.name for path in sorted((broken / "shards").glob("p*"))] == [
        "part-00000.json",
        "part-00000.parquet",
    ]
    # The mark of success is missing: the pairs alone do not count.
    (broken / "shards" / "part-00002.parquet").write_bytes(b"of a killed process")
    first = (broken / "shards" / "part-00000.parquet").stat().st_mtime_ns

    monkeypatch.setattr(Worker, "mine", mine_one)
    mine(world, broken)

    assert files(broken) == files(whole)
    assert (broken / "shards" / "part-00000.parquet").stat().st_mtime_ns == first
    assert json.loads((broken / "run.json").read_text())["shards_found_finished"] == 1


def test_a_finished_run_is_left_as_it_is(world, tmp_path):
    first = mine(world, tmp_path)
    before, run = files(tmp_path), (tmp_path / "run.json").read_text()

    assert mine(world, tmp_path) == first
    assert files(tmp_path) == before
    assert (tmp_path / "run.json").read_text() == run


def test_results_do_not_tell_where_the_pictures_are(tmp_path, monkeypatch):
    runs = []
    for place in (tmp_path / "a", tmp_path / "deeper" / "b"):
        world = write_broken_world(place)
        content = json.loads(world.read_text())
        content["images"].append({"id": "long_name", "file_name": "x" * 400})
        world.write_text(json.dumps(content))
        monkeypatch.chdir(place)
        mine(world.relative_to(place) if runs else world, place / "out")
        runs.append(files(place / "out"))

    assert runs[0] == runs[1]
    assert b'missing_file.jpg: no such file"' in runs[0]["quarantine.jsonl"]
    assert not any(str(tmp_path).encode() in content for content in runs[0].values())


def test_a_finished_run_is_told_where_its_pictures_moved(tmp_path):
    source = write_world(tmp_path / "world", count=2)
    mine(source, tmp_path / "out")
    pictures, moved = tmp_path / "world" / "train", tmp_path / "moved"
    pictures.rename(moved)
    assert image_root_of(tmp_path / "out") == pictures

    source = open_source(source, image_root=moved)
    run_mining(source, CONFIG, tmp_path / "out", make_parts=make_parts)

    assert image_root_of(tmp_path / "out") == moved
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (run["images_mined"], run["shards_mined"]) == (2, 1)


def test_another_run_is_refused_and_told_what_differs(world, tmp_path, caplog):
    caplog.set_level(logging.INFO, "ovseg")
    mine(world, tmp_path)
    before = files(tmp_path)
    other = dataclasses.replace(CONFIG, matching=MatchConfig(threshold=0.1))

    with pytest.raises(MiningError, match=r"\): config\.matching\.threshold: None -> 0\.1\. "):
        mine(world, tmp_path, config=other)
    with pytest.raises(MiningError, match=r"source\.images: 12 -> 7"):
        mine(world, tmp_path, limit=7)
    assert files(tmp_path) == before
    assert "finished" not in caplog.text  # it is not this run that is


def test_shards_of_an_unknown_run_are_refused(world, tmp_path):
    mine(world, tmp_path)
    (tmp_path / "manifest.json").unlink()

    with pytest.raises(MiningError, match=r"has shards but no manifest\.json"):
        mine(world, tmp_path)


def test_pairs_that_were_changed_are_noticed(world, tmp_path):
    mine(world, tmp_path)
    part = tmp_path / "shards" / "part-00001.parquet"
    part.write_bytes(part.read_bytes() + b"!")

    with pytest.raises(MiningError, match=r"part-00001.parquet: expected \d+ bytes, got \d+"):
        mine(world, tmp_path)


@pytest.mark.parametrize(("limit", "shards"), [(3, 1), (5, 1), (7, 2), (99, 3)])
def test_a_limit_counts_pictures(world, tmp_path, limit, shards):
    summary = mine(world, tmp_path, limit=limit)

    assert summary["images_in"] == min(limit, 12)
    assert len(list((tmp_path / "shards").glob("*.parquet"))) == shards


def test_a_dry_run_takes_few_pictures(world, tmp_path, monkeypatch):
    monkeypatch.setattr("ovseg.mining.executors.DRY_RUN_IMAGES", 6)

    assert mine(world, tmp_path, executor="dry-run")["images_in"] == 6


def test_ranks_share_the_shards_and_the_first_adds_them_up(world, tmp_path, monkeypatch):
    mine(world, tmp_path / "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    together = tmp_path / "together"

    monkeypatch.setenv("RANK", "1")
    assert mine(world, together, executor="torchrun") is None
    assert [path.name for path in (together / "shards").glob("*.parquet")] == ["part-00001.parquet"]
    monkeypatch.setenv("RANK", "0")
    mine(world, together, executor="torchrun")

    assert files(together) == files(tmp_path / "alone")


def test_torchrun_without_torchrun_is_explained(world, tmp_path, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)

    with pytest.raises(ValueError, match=r"expected the variable 'RANK'.*torchrun --nproc"):
        mine(world, tmp_path, executor="torchrun")


def test_workers_compute_with_one_thread_and_leave_the_callers_setting(world, tmp_path):
    seen = []

    def parts():
        seen.append(torch.get_num_threads())
        return make_parts()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        run_mining(open_source(world), CONFIG, tmp_path, make_parts=parts)
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "spark"}, r"expected one of \('local', .* got 'spark'"),
        ({"workers": 0}, "at least 1 worker"),
        ({"limit": 0}, "at least 1 worker and 1 picture, got 1 and 0"),
    ],
)
def test_options_that_do_not_exist_are_refused(world, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        mine(world, tmp_path, **options)


def test_ray_that_is_not_installed_is_named_with_its_extra(world, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)

    with pytest.raises(ImportError, match=r"pip install 'ovseg\[ray\]'"):
        mine(world, tmp_path, executor="ray")


def test_a_bar_tells_how_far_a_run_is_and_the_figures_how_fast(world, capsys, caplog, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("ovseg.mining.progress.time.perf_counter", lambda: clock[0])
    shards = open_source(world).shards(5)  # 5, 5 and 2 pictures

    def finished():
        for images, pairs in ((5, 1009), (2, 0)):
            clock[0] += 2.0
            yield {"images_in": images, "pairs": pairs, "images_quarantined": 1, "seconds": 1.0}

    with caplog.at_level(logging.INFO, "ovseg"):
        figures = watch(finished(), [*shards, shards[0]], shards[1:])

    assert "2 of 4 shards had been finished earlier" in caplog.text
    last = capsys.readouterr().err.split("\r")[-1]
    assert "17/17" in last and "pairs=1,009" in last and "quarantined=2" in last
    assert figures == {
        "seconds": 4.0,
        "images_mined": 7,
        "shards_mined": 2,
        "shards_found_finished": 2,
        "images_per_second": 1.75,
        "images_per_second_and_worker": 3.5,
    }


def test_only_the_first_rank_draws_a_bar(world, capsys):
    shards = open_source(world).shards(5)

    assert watch(iter(()), shards, shards, show=False)["images_mined"] == 0
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_processes_leave_what_one_process_leaves(world, tmp_path):
    mine(world, tmp_path / "one")
    mine(world, tmp_path / "two", workers=2)

    assert files(tmp_path / "two") == files(tmp_path / "one")
    other = dataclasses.replace(CONFIG, captions="all")
    for part in (tmp_path / "two" / "shards").glob("*.json"):
        part.unlink()
    with pytest.raises(MiningError, match=r"config\.captions: first -> all"):
        mine(world, tmp_path / "two", config=other, workers=2)


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_run_with_advice_and_the_run_goes_on(world, tmp_path):
    mine(world, tmp_path / "whole")
    source = open_source(world)
    with pytest.raises(MiningError, match=r"a worker process ended.*start the same run again"):
        run_mining(source, CONFIG, tmp_path / "dying", make_parts=make_dying_parts, workers=2)
    mine(world, tmp_path / "dying", workers=2)

    assert files(tmp_path / "dying") == files(tmp_path / "whole")


@pytest.mark.slow
def test_ray_leaves_what_one_process_leaves(world, tmp_path):
    if importlib.util.find_spec("ray") is None:
        pytest.skip("needs Ray")
    mine(world, tmp_path / "one")
    mine(world, tmp_path / "ray", executor="ray", workers=2)

    assert files(tmp_path / "ray") == files(tmp_path / "one")


@pytest.mark.slow
def test_torchrun_leaves_what_one_process_leaves(world, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script))
    run = run_python(*launch, str(world), str(tmp_path / "ranks"), "torchrun", "1")
    assert run.returncode == 0, run.stderr
    mine(world, tmp_path / "one")

    assert files(tmp_path / "ranks") == files(tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_kills_at_random_moments_change_nothing(tmp_path, workers):
    world = write_world(tmp_path / "world", count=200)
    mine(world, tmp_path / "whole")
    script, output = tmp_path / "script.py", tmp_path / "killed"
    script.write_text(SCRIPT)
    rng, command = random.Random(workers), [str(script), str(world), str(output), "local"]
    for _ in range(5):
        before = len(list(output.glob("shards/*.json")))
        process = subprocess.Popen(
            [sys.executable, *command, str(workers)], cwd=ROOT, env=_environment()
        )
        while process.poll() is None and len(list(output.glob("shards/*.json"))) <= before:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.wait()
    assert not (output / "_SUCCESS").exists(), "killed too late to test anything"
    run = run_python(*command, str(workers))
    assert run.returncode == 0, run.stderr

    assert files(output) == files(tmp_path / "whole")


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
