from __future__ import annotations

import importlib.util
from functools import partial

from ovseg.commands.run import run_command
from ovseg.utils.command_line import run_parsed
from tests.evaluation.results_folder import write_folder
from tests.helpers import ROOT

compare = partial(run_command, "compare")


def leaderboard(*words: str) -> int:
    spec = importlib.util.spec_from_file_location("board", ROOT / "tools" / "leaderboard.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return run_parsed(module.make_parser(), module.main, words)


def test_it_compares_the_data_sets_that_both_have(tmp_path, capsys) -> None:
    for run, right in (("a", 0.5), ("b", 0.8)):
        write_folder(tmp_path / run / "inference" / "world", right=right)
        write_folder(tmp_path / run / "inference" / run, right=right, dataset=run)
    words = [str(tmp_path / "a"), str(tmp_path / "b"), "--resamples", "50"]
    assert compare(words) == 0
    out = capsys.readouterr().out
    assert out.count("== ") == 1 and out.startswith("== world")
    assert "made in the same way" in out and "12 images drawn anew" in out


def test_nothing_to_compare_is_an_error(tmp_path, capsys) -> None:
    (tmp_path / "empty").mkdir()
    write_folder(tmp_path / "a")
    assert compare([str(tmp_path / "a"), str(tmp_path / "empty")]) == 2
    assert "expected the result of an evaluation" in capsys.readouterr().err


def test_the_leaderboard_of_the_docs_is_up_to_date(capsys) -> None:
    assert leaderboard("--check") == 0
    assert "up to date" in capsys.readouterr().out


def test_a_stale_leaderboard_is_told_and_mended(tmp_path, capsys) -> None:
    page = ("--page", str(tmp_path / "page.md"), "--results", str(ROOT / "docs" / "results"))
    assert leaderboard(*page, "--check") == 1
    assert leaderboard(*page) == 0
    assert leaderboard(*page, "--check") == 0
    assert "| 29.6 | ovseg |" in (tmp_path / "page.md").read_text()
