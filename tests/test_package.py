from __future__ import annotations

import ast
import importlib.metadata
import os
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

import ovseg
import ovseg.projects
from tests.helpers import ROOT, run_python


def test_the_installed_version_is_the_packages():
    assert importlib.metadata.version("ovseg") == ovseg.__version__


def test_projects_of_the_checkout_are_importable_as_part_of_the_package():
    assert str(ROOT / "projects") in list(ovseg.projects.__path__)


PROJECT = {
    "__init__.py": "",
    "model.py": "def add_config(cfg):\n    cfg.MODEL.DUMMY = 1\n",
    "heads/__init__.py": "NAME = 'a head'\n",
    "configs/dummy_small.yaml": "MODEL:\n  META_ARCHITECTURE: Dummy\n  DUMMY: 2\n",
    "configs/eval/dummy_voc.yaml": "SEED: 1\n",
    "tests/__init__.py": "",
    "tests/test_dummy.py": "",
    "README.md": "",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel of this checkout with a project more, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("ovseg", "configs", "projects", "demo"):
        skipped = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=skipped)
    for name in ("setup.py", "pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    for name, text in PROJECT.items():
        file = folder / "source" / "projects" / "dummy" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    build = ("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder))
    run = run_python(*build, str(folder / "source"))
    assert run.returncode == 0, run.stderr
    (packed,) = folder.glob("*.whl")
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(folder / "site")
    return folder / "site" / "ovseg"


def _files(folder: Path) -> set[str]:
    return {
        file.relative_to(folder).as_posix()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }


def test_the_wheel_holds_the_package_its_configs_and_projects_and_nothing_else(wheel):
    projects = {
        f"projects/{name}"
        for name in _files(ROOT / "projects") | {f"dummy/{name}" for name in PROJECT}
        if "tests" not in Path(name).parts and not name.endswith(".md")
    }

    assert _files(wheel) == (
        _files(ROOT / "ovseg")
        | {f"configs/{name}" for name in _files(ROOT / "configs")}
        | {f"samples/{name}" for name in _files(ROOT / "demo" / "samples")}
        | projects
    )


def test_an_installed_wheel_finds_its_configs_and_projects(wheel, tmp_path):
    code = (
        "from ovseg.config import config_path, load_cfg, register_method\n"
        "from ovseg.projects.dummy.heads import NAME\n"
        "register_method('Dummy', 'ovseg.projects.dummy.model')\n"
        "print(config_path('ovseg_swinB'), load_cfg('ovseg_R101c').SOLVER.MAX_ITER)\n"
        "print(config_path('dummy_small'), load_cfg('dummy_small').MODEL.DUMMY, NAME)\n"
        "from ovseg.commands.segment import sample_folder\n"
        "print(sample_folder())\n"
    )
    run = run_python("-c", code, cwd=tmp_path, first_path=wheel.parent)

    assert run.stdout.splitlines() == [
        f"{wheel / 'configs' / 'ovseg_swinB.yaml'} 120000",
        f"{wheel / 'projects' / 'dummy' / 'configs' / 'dummy_small.yaml'} 2 a head",
        str(wheel / "samples"),
    ], run.stderr


def test_the_wheel_brings_the_command(wheel):
    [entries] = wheel.parent.glob("*.dist-info/entry_points.txt")
    assert "ovseg = ovseg.commands.run:main" in entries.read_text()


@pytest.mark.parametrize(
    "script",
    [file for folder in ("tools", "demo", "datasets") for file in (ROOT / folder).glob("*.py")],
    ids=lambda file: file.name,
)
def test_a_script_looks_for_the_package_beside_itself_before_it_imports_it(script):
    lines = {"path": [], "import": []}
    for node in ast.parse(script.read_text(encoding="utf-8")).body:
        text = ast.unparse(node)
        if text.startswith("sys.path.insert(0, str(Path(__file__).resolve().parents[1]))"):
            lines["path"].append(node.lineno)
        elif text.startswith(("import ovseg", "from ovseg")):
            lines["import"].append(node.lineno)

    assert len(lines["path"]) == 1
    assert lines["path"] < lines["import"][:1]


@pytest.mark.parametrize(
    ("failing", "status"), [("", 0), ("check", 1), ("test", 1), ("check test", 1)]
)
def test_continuous_integration_checks_and_tests_and_fails_where_either_does(
    tmp_path, failing, status
):
    make = tmp_path / "make"
    make.write_text(
        f'#!/bin/sh\necho "made $1 in $PWD"\ncase " {failing} " in *" $1 "*) exit 2;; esac\n'
    )
    make.chmod(0o755)
    run = subprocess.run(
        [ROOT / ".ci" / "run"],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert run.stdout.splitlines() == [f"made check in {ROOT}", f"made test in {ROOT}"]
    assert run.returncode == status


def test_importing_every_layer_touches_no_file_and_no_network(tmp_path):
    code = (
        "import socket; socket.socket.connect = None\n"
        "import ovseg.config, ovseg.vocab, ovseg.clip, ovseg.data, ovseg.modeling\n"
        "import ovseg.evaluation, ovseg.weights.catalogue, ovseg.predictor, ovseg.d2.data as d\n"
        "print([name for name in d.DatasetCatalog.list() if name.startswith('tinyscapes')])"
    )
    run = run_python(
        "-c", code, cwd=tmp_path, OVSEG_D2="lite", HOME=str(tmp_path), OVSEG_CACHE=str(tmp_path)
    )

    assert run.stdout.strip() == "[]", run.stderr
    assert list(tmp_path.iterdir()) == []
