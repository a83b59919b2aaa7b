from __future__ import annotations

import importlib.util
import pickle

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ovseg.clip import build_clip
from ovseg.weights.clip import load_clip_state
from ovseg.weights.load import read_state_dict
from tests.clip.tiny import CONFIG, make_clip
from tests.helpers import ROOT, run_python

TOOL = ROOT / "tools" / "convert_weights.py"
PREFIX = "clip_adapter.clip_model."


@pytest.fixture(scope="module")
def main():
    spec = importlib.util.spec_from_file_location("convert_weights", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def _save(path, content):
    torch.save(content, path)
    return str(path)


def test_a_fine_tuned_clip_becomes_safetensors(main, tmp_path, capsys):
    clip = make_clip(2)
    state = {f"module.{name}": tensor for name, tensor in clip.state_dict().items()}
    source = _save(tmp_path / "epoch_5.pt", {"state_dict": state, "epoch": 5})
    target = tmp_path / "out" / "clip.safetensors"
    assert main(["clip", source, str(target)]) == 0
    converted = read_state_dict(target)
    assert set(converted) == set(clip.state_dict())
    assert torch.equal(converted["visual.mask_embedding"], clip.visual.mask_embedding)
    assert f"mapped: {len(state)} (" in capsys.readouterr().out


@pytest.mark.parametrize("has_prompt", [True, False])
def test_an_adapted_clip_goes_into_a_checkpoint(main, tmp_path, capsys, has_prompt):
    old, adapted = make_clip(3), make_clip(2).state_dict()
    if not has_prompt:
        del adapted["visual.mask_embedding"]
    whole = {PREFIX + name: tensor for name, tensor in old.state_dict().items()}
    checkpoint = _save(tmp_path / "ovseg.pth", {"model": {"backbone.w": torch.ones(2), **whole}})
    target = tmp_path / "new.safetensors"
    source = _save(tmp_path / "adapted.pt", adapted)
    assert main(["clip", source, str(target), "--into", checkpoint]) == 0
    output = capsys.readouterr().out
    assert f"use MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD {has_prompt}" in output
    assert f"mask prompt depth of the result: {2 if has_prompt else 3}" in output
    state = read_state_dict(target)
    assert state["backbone.w"].tolist() == [1, 1]
    for name, tensor in adapted.items():
        assert torch.equal(state[PREFIX + name], tensor)
    with safe_open(target, "pt") as file:
        assert file.metadata()["mask_prompt_fwd"] == str(has_prompt)


def test_a_checkpoint_that_is_not_there_is_named(main, tmp_path, capsys):
    source = _save(tmp_path / "adapted.pt", make_clip(2).state_dict())
    assert main(["clip", source, str(tmp_path / "new.safetensors"), "--into", "ovseg_tine"]) == 1
    assert "got 'ovseg_tine'; did you mean 'ovseg_tiny'?" in capsys.readouterr().err


def test_swin_and_resnet_files_become_backbones(main, tmp_path, capsys):
    swin = {"patch_embed.proj.weight": torch.ones(2), "head.weight": torch.ones(1)}
    source = _save(tmp_path / "swin.pth", {"model": swin})
    assert main(["swin", source, str(tmp_path / "swin.safetensors")]) == 0
    assert list(read_state_dict(tmp_path / "swin.safetensors")) == [
        "backbone.patch_embed.proj.weight"
    ]
    assert "dropped: 1 (head.weight)" in capsys.readouterr().out

    arrays = {"stem.conv1.weight": np.full((2, 3), 7, np.float32)}
    pickled = tmp_path / "R-103.pkl"
    pickled.write_bytes(pickle.dumps({"model": arrays, "__author__": "third_party"}))
    target = tmp_path / "R-103.safetensors"
    assert main(["resnet", str(pickled), str(target)]) == 1
    assert "read only on request" in capsys.readouterr().err
    assert not target.exists()
    assert main(["resnet", str(pickled), str(target), "--allow-pickle"]) == 0
    assert read_state_dict(target)["backbone.stem.conv1.weight"].unique().tolist() == [7]


def test_a_checkpoint_keeps_only_its_tensors(main, tmp_path):
    checkpoint = {"model": {"a": torch.ones(2)}, "optimizer": {"lr": 1.0}, "iteration": 9}
    source = _save(tmp_path / "model_final.pth", checkpoint)
    assert main(["ovseg", source, str(tmp_path / "m.safetensors")]) == 0
    assert list(read_state_dict(tmp_path / "m.safetensors")) == ["a"]


def test_errors_say_what_is_wrong_and_set_the_status(main, tmp_path, capsys):
    source = _save(tmp_path / "x.pth", {"a": torch.ones(1)})
    assert main(["clip", source, str(tmp_path / "o.safetensors")]) == 1
    assert "error: expected a CLIP" in capsys.readouterr().err
    (tmp_path / "o.safetensors").write_bytes(b"")
    assert main(["clip", source, str(tmp_path / "o.safetensors")]) == 2
    assert "pass --overwrite" in capsys.readouterr().err
    assert main(["swin", source, str(tmp_path / "p.safetensors"), "--into", source]) == 2
    assert "--into goes with the kind clip" in capsys.readouterr().err


def test_the_tool_runs_from_any_directory(tmp_path):
    source = _save(tmp_path / "c.pt", make_clip(1).state_dict())
    result = run_python(str(TOOL), "clip", source, "c.safetensors", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert set(load_clip_state(tmp_path / "c.safetensors")) == set(build_clip(CONFIG).state_dict())
