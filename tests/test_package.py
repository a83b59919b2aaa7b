from __future__ import annotations

import importlib.metadata

import ovseg
import ovseg.projects
from tests.helpers import ROOT, run_python


def test_the_installed_version_is_the_packages():
    assert importlib.metadata.version("ovseg") == ovseg.__version__


def test_projects_of_the_checkout_are_importable_as_part_of_the_package():
    assert str(ROOT / "projects") in list(ovseg.projects.__path__)


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
