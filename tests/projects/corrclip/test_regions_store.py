from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from ovseg.projects.corrclip.regions.files import FileRegions
from ovseg.projects.corrclip.regions.plain import GridRegions
from ovseg.projects.corrclip.regions.source import RegionError
from ovseg.projects.corrclip.regions.store import store_regions
from ovseg.projects.corrclip.sources import open_pictures
from tests.helpers import ROOT
from tests.projects.corrclip.toy_bank import ToyRegions, write_pictures


class Counting(ToyRegions):
    def __init__(self):
        super().__init__()
        self.asked = []

    def __call__(self, image, image_id):
        self.asked.append(image_id)
        return super().__call__(image, image_id)


def store(source, folder, **options):
    options = {"make_source": ToyRegions, "shard_size": 4} | options
    return store_regions(open_pictures(str(source)), folder, **options)


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.fixture
def world(tmp_path):
    return write_pictures(tmp_path / "world", 6)


def test_stored_maps_are_what_the_source_gives(world, tmp_path):
    (world / "more").mkdir()
    write_pictures(world / "more", 1, first=50)
    summary = store(world, tmp_path / "maps")

    assert summary == {"images_in": 7, "regions": 28, "images_quarantined": 0}
    assert json.loads((tmp_path / "maps" / "_run" / "summary.json").read_text()) == summary
    image = np.zeros((12, 16, 3), np.uint8) + 99
    source = FileRegions(tmp_path / "maps")
    for name in ("00", "07", "more/59"):
        assert np.array_equal(source(image, name), GridRegions(2, 2)(image, ""))


def test_a_stopped_run_goes_on_where_it_was(world, tmp_path):
    store(world, tmp_path / "whole")

    class Stopping(Counting):
        def __call__(self, image, image_id):
            if len(self.asked) == 5:
                raise KeyboardInterrupt
            return super().__call__(image, image_id)

    with pytest.raises(KeyboardInterrupt):
        store(world, tmp_path / "maps", make_source=Stopping)
    source = Counting()
    store(world, tmp_path / "maps", make_source=lambda: source)

    assert len(source.asked) == 1, "the maps that are there stay"
    assert files(tmp_path / "maps") == files(tmp_path / "whole")


def test_further_pictures_are_added(world, tmp_path):
    store(world, tmp_path / "maps")
    write_pictures(world, 2, first=6)
    source = Counting()

    assert store(world, tmp_path / "maps", make_source=lambda: source)["images_in"] == 8
    assert len(source.asked) == 2


def test_bad_pictures_are_quarantined_with_a_reason(world, tmp_path):
    (world / "zz.png").write_bytes(b"no picture")
    summary = store(world, tmp_path / "maps")

    assert summary["images_quarantined"] == 1 and summary["images_in"] == 7
    (line,) = (tmp_path / "maps" / "_run" / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(line)["image_id"] == "zz" and "not an image" in json.loads(line)["reason"]


def test_regions_of_two_sources_are_not_mixed(world, tmp_path):
    store(world, tmp_path / "maps", limit=4)

    with pytest.raises(RegionError, match="regions: toy regions -> grid:3x3"):
        store(world, tmp_path / "maps", make_source=lambda: GridRegions(3, 3))


def test_ranks_share_the_pictures(world, tmp_path, monkeypatch):
    store(world, tmp_path / "alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, expected in (("1", None), ("0", {"images_in": 6})):
        monkeypatch.setenv("RANK", rank)
        summary = store(world, tmp_path / "together", executor="torchrun")
        assert summary is None if expected is None else expected.items() <= summary.items()

    assert files(tmp_path / "together") == files(tmp_path / "alone")


def test_the_command_stores_what_the_config_says(world, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "build_regions.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    arguments = ["--config-file", "corrclip_vitB", "--source", str(world)]
    arguments += ["--output", str(tmp_path / "maps"), "MODEL.CORRCLIP.REGIONS.NAME", "slic"]
    arguments += ["MODEL.CORRCLIP.REGIONS.SLIC.SEGMENTS", "4"]

    assert tool.main(tool.make_parser().parse_args(arguments)) == 0

    assert '"images_in": 6,' in capsys.readouterr().out
    made_by = json.loads((tmp_path / "maps" / "_run" / "manifest.json").read_text())
    assert made_by["regions"].startswith("slic:4 compactness 10")


def test_a_dataset_a_folder_and_captions_are_sources(world, tmp_path):
    names = sorted(path.stem for path in world.glob("*.png"))
    assert [row.image_id for row in open_pictures(str(world)).rows] == names
    table = tmp_path / "pairs.tsv"
    table.write_text("filepath\ttitle\n" + "".join(f"{n}.png\tx\n" for n in reversed(names)))
    listed = open_pictures(str(table), image_root=world)
    assert listed.kind == "tsv" and len(listed.rows) == 6
    assert [row.image_id for row in listed.rows] == sorted(row.image_id for row in listed.rows)
    with pytest.raises(FileNotFoundError):
        open_pictures("no_such_set")
