from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ovseg.config import get_default_cfg, known_methods, load_cfg, register_method
from ovseg.d2 import methods
from ovseg.d2.methods import import_method, method_module
from ovseg.d2.modeling import build_model
from tests.helpers import run_python

METHOD = """
import logging
from torch import nn
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import META_ARCH_REGISTRY

logging.getLogger("{module}").warning("imported")

def add_config(cfg):
    cfg.MODEL.{section} = CfgNode()
    cfg.MODEL.{section}.WIDTH = 3

@META_ARCH_REGISTRY.register()
class {name}(nn.Linear):
    def __init__(self, cfg):
        super().__init__(cfg.MODEL.{section}.WIDTH, 1)
"""


@pytest.fixture(autouse=True)
def _nothing_stays_registered(monkeypatch):
    monkeypatch.setattr(methods, "_registered", {})


def _write_method(folder: Path, monkeypatch, *, module: str, name: str) -> None:
    """Write a module with a method `name`, whose keys are those of a section of that name."""
    text = METHOD.format(module=module, name=name, section=name.upper())
    (folder / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


def _write_config(folder: Path, text: str) -> Path:
    path = folder / "method.yaml"
    path.write_text(text)
    return path


def test_the_shipped_methods_are_known_by_their_modules():
    assert method_module("OVSeg") == method_module("OVSegDEMO") == "ovseg.modeling.ovseg"
    assert known_methods()["MaskFormer"] == "ovseg.modeling.mask_former"


def test_an_unknown_method_is_refused_with_the_closest_and_all_names(tmp_path):
    path = _write_config(tmp_path, "MODEL:\n  META_ARCHITECTURE: OvSeg\n")
    message = r"'OvSeg'; did you mean 'OVSeg'\? there are: .*MaskFormer, OVSeg, OVSegDEMO"

    with pytest.raises(KeyError, match=message):
        load_cfg(path)
    with pytest.raises(KeyError, match=r"'Nothing'; there are: .*MaskFormer.*register_method"):
        load_cfg("ovseg_swinB", ["MODEL.META_ARCHITECTURE", "Nothing"])


def test_a_registered_method_brings_its_keys_and_is_built(tmp_path, monkeypatch):
    _write_method(tmp_path, monkeypatch, module="method_a", name="MethodA")
    register_method("MethodA", "method_a")
    path = _write_config(
        tmp_path, "MODEL:\n  META_ARCHITECTURE: MethodA\n  DEVICE: cpu\n  METHODA:\n    WIDTH: 5\n"
    )

    assert build_model(load_cfg(path)).weight.shape == (1, 5)
    assert build_model(load_cfg(path, ["MODEL.METHODA.WIDTH", "7"])).weight.shape == (1, 7)


def test_the_overrides_decide_whose_keys_there_are(tmp_path, monkeypatch):
    _write_method(tmp_path, monkeypatch, module="method_b", name="MethodB")
    register_method("MethodB", "method_b")
    cfg = load_cfg("ovseg_swinB", ["MODEL.META_ARCHITECTURE", "MethodB"])

    assert cfg.MODEL.METHODB.WIDTH == 3
    assert "METHODB" not in load_cfg("ovseg_swinB").MODEL
    assert "METHODB" not in get_default_cfg().MODEL


def test_a_method_without_keys_of_its_own_needs_no_add_config(tmp_path, monkeypatch):
    (tmp_path / "method_c.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    register_method("MethodC", "method_c")
    cfg = load_cfg("ovseg_swinB", ["MODEL.META_ARCHITECTURE", "MethodC"])

    assert cfg.MODEL.META_ARCHITECTURE == "MethodC"
    with pytest.raises(KeyError, match="MethodC"):  # its module registers no such class
        build_model(cfg)


def test_an_installed_package_adds_a_method_by_an_entry_point(tmp_path, monkeypatch, caplog):
    _write_method(tmp_path, monkeypatch, module="method_d", name="MethodD")
    distribution = tmp_path / "somebody-1.0.dist-info"
    distribution.mkdir()
    (distribution / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (distribution / "entry_points.txt").write_text(
        "[ovseg.methods]\nMethodD = method_d\nOVSeg = method_d\n"
    )

    with caplog.at_level(logging.WARNING):
        assert known_methods()["MethodD"] == "method_d"
        assert method_module("OVSeg") == known_methods()["OVSeg"] == "ovseg.modeling.ovseg"
        assert "imported" not in caplog.text
        assert import_method("MethodD").MethodD.__name__ == "MethodD"
        assert "imported" in caplog.text


def test_a_name_belongs_to_one_module():
    register_method("MethodE", "one")
    register_method("MethodE", "one")

    with pytest.raises(ValueError, match=r"'MethodE', which belongs to one; two must choose"):
        register_method("MethodE", "two")
    with pytest.raises(ValueError, match=r"'OVSeg', which belongs to ovseg.modeling.ovseg"):
        register_method("OVSeg", "two")


def test_a_method_of_the_running_script_is_found(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        METHOD.format(module="m", name="InScript", section="INSCRIPT")
        + "from ovseg.config import load_cfg, register_method\n"
        "from ovseg.d2.modeling import build_model\n"
        "register_method('InScript', __name__)\n"
        "opts = ['MODEL.META_ARCHITECTURE', 'InScript', 'MODEL.DEVICE', 'cpu']\n"
        "print(build_model(load_cfg('ovseg_swinB', opts)).in_features)\n"
    )
    run = run_python(str(script), cwd=tmp_path)

    assert run.stdout.strip() == "3", run.stderr


@pytest.mark.parametrize(
    "part",
    [
        "build_backbone(tiny('MaskFormer'))",
        "build_sem_seg_head(tiny('MaskFormer'), "
        "{f'res{i}': ShapeSpec(8, stride=2**i) for i in (1, 2, 3, 4, 5)})",
    ],
)
def test_a_method_is_imported_alone_and_only_to_be_built(part):
    code = (
        "import sys\n"
        "from ovseg.config import load_cfg\n"
        "from ovseg.d2.layers import ShapeSpec\n"
        "from ovseg.d2.modeling import build_backbone, build_model, build_sem_seg_head\n"
        "def tiny(name): return load_cfg('ovseg_tiny', ['MODEL.META_ARCHITECTURE', name])\n"
        "def tell(_): print(*(name for name in ('mask_former', 'ovseg')\n"
        "    if f'ovseg.modeling.{name}' in sys.modules), sep='+')\n"
        f"tell(tiny('OVSeg')); tell({part}); tell(build_model(tiny('OVSeg')))"
    )
    run = run_python("-c", code)

    assert run.stdout.splitlines() == ["", "mask_former", "mask_former+ovseg"], run.stderr


def test_known_methods_lie_where_the_table_says():
    for name in ("MaskFormer", "OVSeg", "OVSegDEMO"):
        assert hasattr(import_method(name), name)
