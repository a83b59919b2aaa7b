"""Both backends of the seam keep the same contract, each in a process of its own."""

from __future__ import annotations

import json
import os

import pytest
import torch

from tests.helpers import ROOT, run_python

BACKENDS = ["lite", pytest.param("real", marks=pytest.mark.real_d2)]
FOLDER = ROOT / "tests" / "d2"


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_backend_keeps_the_contract(backend):
    files = [str(FOLDER / name) for name in ("contract_parts.py", "contract_runs.py")]
    run = run_python(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "--no-header", *files, OVSEG_D2=backend
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout.splitlines()[-1]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.skipif(torch.cuda.device_count() == 1, reason="two processes need two GPUs or none")
def test_two_launched_processes_see_each_other(backend, tmp_path):
    run = run_python(str(FOLDER / "two_processes.py"), str(tmp_path), OVSEG_D2=backend)

    assert run.returncode == 0, run.stderr
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert (first["backend"], second["backend"]) == (backend, backend)
    assert (first["world"], second["world"]) == ([2, 2, 0], [2, 2, 1])
    assert first["all"] == second["all"] == ["from 0", "from 1"]
    assert (first["gathered"], second["gathered"]) == ([0, 10], [])
    assert (first["main"], second["main"]) == (True, False)
    assert first["loss"] == 1.5
    assert first["seed"] == second["seed"]


def _ask(choice: str, *, installed: bool) -> str:
    """Ask for the backend where Detectron2 is, or is not, installed."""
    version = "'0.6'" if installed else "None"
    code = (
        "import logging; logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
        f"import ovseg.d2 as d2; d2._installed_version = lambda: {version}\n"
        "print('backend', d2.backend()); d2.backend()"
    )
    run = run_python("-c", code, OVSEG_D2=choice)
    return run.stdout + run.stderr


def test_auto_takes_the_real_one_exactly_where_it_is_installed():
    assert "backend real" in _ask("auto", installed=True)
    assert "backend lite" in _ask("auto", installed=False)
    assert "backend lite" in _ask("", installed=False)


def test_lite_is_taken_even_where_the_real_one_is_installed():
    assert "backend lite" in _ask("lite", installed=True)


def test_asking_for_the_real_one_without_it_fails_with_the_remedy():
    assert "set OVSEG_D2=lite" in _ask("real", installed=False)


def test_an_unknown_choice_is_refused_with_the_valid_ones():
    assert "must be one of auto, real, lite, got 'other'" in _ask("other", installed=False)


def test_the_choice_is_logged_once():
    assert _ask("lite", installed=False).count("detectron2 backend: lite") == 1


def test_a_pickle_is_not_read_by_the_lite_checkpointer(tmp_path):
    path = tmp_path / "weights.pkl"
    path.write_bytes(b"")
    code = (
        "import torch; from ovseg.d2.checkpoint import DetectionCheckpointer as C\n"
        f"C(torch.nn.Linear(1, 1)).load({os.fspath(path)!r})"
    )
    run = run_python("-c", code, OVSEG_D2="lite")

    assert "is a pickle" in run.stderr
    assert "tools/convert_weights.py" in run.stderr
