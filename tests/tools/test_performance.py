from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from ovseg.benchmark.performance import performance_page
from ovseg.commands.benchmark import main
from ovseg.commands.flags.benchmark import make_parser
from ovseg.readers.documents import read_json
from ovseg.training.loop import Trainer
from ovseg.training.step import TrainingStep
from ovseg.utils.command_line import UsageError
from tests.benchmark.ready import register_halves, remove_halves
from tests.helpers import ROOT
from tests.tools.test_benchmark import OPTS


def benchmark(folder, *words: str, opts: Sequence[str] = ()):
    always = ["--size", "64", "64", "--benchmark", "pascal_voc_20", "--repeats", "1"]
    paths = ["--output", str(folder / "figures" / "tiny.json"), "--page", str(folder / "page.md")]
    return main(make_parser("benchmark").parse_args([*always, *words, *paths, *OPTS, *opts]))


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch):
    monkeypatch.setattr("ovseg.benchmark.rounds.matmul_peak", lambda *_: 1e10)


def test_it_writes_figures_and_page_and_a_later_run_adds_to_them(tmp_path):
    (tmp_path / "ways.yaml").write_text(
        "- {title: fast, opts: [MODEL.CLIP_ADAPTER.CHUNK_SIZE, 2]}\n"
        "- {title: texts alone, without: [blocks]}\n"
    )
    benchmark(tmp_path, "--receipt", "--ways", str(tmp_path / "ways.yaml"))
    figures = json.loads((tmp_path / "figures" / "tiny.json").read_text())
    ways = figures["receipt"]["ways"]
    assert list(ways) == ["reference", "exact", "fast", "texts alone"]
    assert all(len(way["rounds"]) == 1 and way["agreement"] > 0.99 for way in ways.values())
    assert figures["settings"]["classes"] == 20 and figures["machine"]["processor"]
    page = (tmp_path / "page.md").read_text()
    assert "| first picture with a new vocabulary, ms |" in page
    assert "- **fast**: `MODEL.CLIP_ADAPTER.CHUNK_SIZE 2`" in page and "Growth" not in page

    found = benchmark(tmp_path, "--grow", "names=2,4")
    assert found["receipt"] == figures["receipt"]
    assert list(found["growth"]["names"]["ways"]) == ["exact"]
    page = (tmp_path / "page.md").read_text()
    assert "### Growth: names" in page and "- **fast**" in page

    (tmp_path / "page.md").unlink()
    benchmark(tmp_path)  # nothing to measure: the page alone
    assert (tmp_path / "page.md").read_text() == page


def test_figures_of_other_settings_are_not_joined(tmp_path):
    benchmark(tmp_path, "--grow", "batch=1")
    with pytest.raises(UsageError, match="choose another file"):
        benchmark(tmp_path, "--grow", "batch=1", "--benchmark", "ade20k_150")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--receipt"], "way 'fast': unknown setting 'TEST.FASTEST'"),
        (["--grow", "names=x"], "--grow: expected names, pixels"),
        (["--grow", "names", "--grow-ways", "slow"], "expected titles of reference, exact, fast"),
    ],
)
def test_what_cannot_be_measured_is_told_before_anything_is(tmp_path, words, told):
    (tmp_path / "ways.yaml").write_text("- {title: fast, opts: [TEST.FASTEST, true]}\n")
    with pytest.raises(UsageError, match=told):
        benchmark(tmp_path, *words, "--ways", str(tmp_path / "ways.yaml"))
    assert not (tmp_path / "figures" / "tiny.json").exists()


def test_figures_need_a_file(tmp_path):
    with pytest.raises(UsageError, match="need --output"):
        main(make_parser("benchmark").parse_args(["--receipt"]))
    with pytest.raises(UsageError, match="--ways needs --receipt"):
        words = ["--ways", "ways.yaml", "--output", str(tmp_path / "figures.json")]
        main(make_parser("benchmark").parse_args(words))


def test_iterations_of_a_training_are_measured_and_nothing_of_them_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Trainer, "run", None)  # it saves
    steps = []
    step = TrainingStep.__call__
    monkeypatch.setattr(
        TrainingStep,
        "__call__",
        lambda self, batch, **each: steps.append(len(batch)) or step(self, batch, **each),
    )
    opts = ("DATASETS.TRAIN", "('halves',)", "SOLVER.IMS_PER_BATCH", "2")
    opts += ("DATALOADER.NUM_WORKERS", "0", "INPUT.MIN_SIZE_TRAIN", "[64]")
    opts += ("INPUT.CROP.SIZE", "[64, 64]", "INPUT.SIZE_DIVISIBILITY", "64")
    register_halves(tmp_path)
    try:
        found = benchmark(tmp_path, "--train", "2", opts=opts)["training"]
    finally:
        remove_halves()
    assert steps == [2, 2, 2, 2]  # two of them before those that count
    assert (found["iterations"], found["pictures"]) == (2, 2)
    assert 0 < found["loader_share"] < 1
    assert found["spread"][0] <= found["seconds"] <= found["spread"][1]
    assert "pictures a second: 2 in" in (tmp_path / "page.md").read_text()
    assert not (tmp_path / "output").exists()


def test_the_page_of_the_docs_is_that_of_its_figures(tmp_path):
    page = ROOT / "docs" / "performance.md"
    files = sorted((ROOT / "docs" / "performance").glob("*.json"))
    figures = [read_json(file) for file in files]
    assert page.read_text(encoding="utf-8") == performance_page(figures, folder="performance")
