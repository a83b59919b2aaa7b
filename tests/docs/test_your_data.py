"""The commands of docs/your_data.md: each is understood, and the slow test runs them in order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys

import pytest

from ovseg.commands.flags import compare, demo, prepare, train, verify
from ovseg.config import load_cfg
from ovseg.data.dataset_yaml import DatasetYaml
from ovseg.tinyscapes.garden import write_garden
from tests.helpers import ROOT

pytestmark = pytest.mark.usefixtures("restored_catalogues")

PAGE = (ROOT / "docs" / "your_data.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


COMMANDS = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]


PARSERS = {
    "datasets/prepare_garden.py": prepare.make_script_parser("garden"),
    "datasets/verify.py": verify.make_parser("verify.py"),
    "demo/demo.py": demo.make_parser("demo.py"),
    "tools/compare_results.py": compare.make_parser("compare_results.py"),
    "tools/train_net.py": train.make_parser("train_net.py"),
}


def test_the_page_shows_the_file_that_the_stand_in_has(tmp_path):
    write_garden(tmp_path, train=1, val=1)
    [shown] = blocks("yaml")
    assert (tmp_path / "train.yaml").read_text() == shown
    read = DatasetYaml.read(tmp_path / "val.yaml")
    assert (read.name, read.split, len(read.load())) == ("garden_val", "validation", 1)


def test_every_flag_and_setting_on_the_page_is_understood():
    assert len(COMMANDS) == 9 and all(words[0] == "python" for words in COMMANDS)
    for _, path, *words in COMMANDS:
        args = PARSERS[path].parse_args(words)
        if path == "tools/train_net.py":
            config = args.config_file
            load_cfg("ovseg_tiny" if config == "output/garden/config.yaml" else config, args.opts)


def shortened(words: list[str]) -> list[str]:
    """The command on a few pictures: only the size of the stand-in and the length differ."""
    if words[1] == "datasets/prepare_garden.py":
        return [*words, "--train", "4", "--val", "2"]
    return ["2" if before == "SOLVER.MAX_ITER" else word for before, word in pairs(words)]


def pairs(words: list[str]) -> list[tuple[str, str]]:
    return list(zip(["", *words], words, strict=False))


@pytest.mark.slow
def test_the_page_runs_from_start_to_end(tmp_path):
    for name in ("datasets", "demo", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    for words in COMMANDS:
        done = subprocess.run(
            [sys.executable, *shortened(words)[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    [code] = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("class   area"), done.stderr
    assert (tmp_path / "output/garden/inference/report.html").is_file()
    assert list((tmp_path / "output/garden_sheets").glob("*.png"))
    assert len(list((tmp_path / "output/garden_pictures").glob("*_labels.png"))) == 2
