"""A second run in a folder is refused before it has written anything, with the owner's name."""

from __future__ import annotations

import pytest

from ovseg.commands.run import main
from ovseg.config import load_cfg
from ovseg.projects.corrclip.regions.store import store_regions
from ovseg.projects.corrclip.sources import Pictures
from ovseg.projects.segclip.make_superpixels import make_superpixels
from ovseg.tinyscapes.ablation import AblationSize
from ovseg.tinyscapes.ablation_run import Ablation, run_ablation
from ovseg.utils import folder_lock
from ovseg.utils.folder_lock import LOCK_NAME, BusyFolderError, only_run
from tests.faults.scenarios import SCENARIOS

BUSY = "in use (the first run, process "


@pytest.fixture
def busy(tmp_path, monkeypatch):
    """A folder that another run holds."""
    monkeypatch.setattr(folder_lock, "_PATIENCE_SECONDS", 0)
    with only_run(tmp_path / "busy", what="the first run"):
        yield tmp_path / "busy"
        assert [path.name for path in (tmp_path / "busy").iterdir()] == [LOCK_NAME]


OTHERS = ("preparation", "ablation", "download")  # waits, below, and by its own lock
COMMANDS = [scenario for scenario in SCENARIOS if scenario.name not in OTHERS]


@pytest.mark.usefixtures("restored_catalogues")
@pytest.mark.parametrize("scenario", COMMANDS, ids=lambda s: s.name)
def test_a_second_command_is_refused(scenario, busy, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    scenario.prepare(tmp_path)
    assert main(scenario.command(tmp_path, busy)[3:]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if "error: " in line]
    assert BUSY in line and "choose another folder" in line


@pytest.mark.parametrize("what", ["regions", "superpixels", "ablation"])
def test_a_second_run_of_other_kinds_is_refused(what, busy):
    with pytest.raises(BusyFolderError, match="the first run"):
        if what == "regions":
            store_regions(Pictures("folder", (), busy), busy, make_source=lambda: None)
        elif what == "superpixels":
            make_superpixels(load_cfg("segclip_tiny", ["DATASETS.TRAIN", ()]), busy)
        else:
            run_ablation(Ablation(busy, AblationSize(), None), [])
