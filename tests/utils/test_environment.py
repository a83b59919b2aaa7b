from __future__ import annotations

import json

import torch

import ovseg
from ovseg import d2
from ovseg.utils.environment import environment_record, write_environment


def test_the_record_names_versions_backend_and_device():
    record = environment_record()

    assert record["ovseg"] == ovseg.__version__
    assert record["d2_backend"] == d2.backend()
    assert record["packages"]["torch"] == torch.__version__.split("+")[0]
    assert {"pillow", "numpy", "open_clip_torch"} <= record["packages"].keys()
    assert record["device"]


def test_the_record_is_written_as_json(tmp_path):
    path = write_environment(tmp_path / "run")

    assert path == tmp_path / "run" / "environment.json"
    assert json.loads(path.read_text()) == environment_record()
