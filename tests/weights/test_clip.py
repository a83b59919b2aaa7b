from __future__ import annotations

import open_clip
import pytest
import torch
from torch import nn

from ovseg.clip import build_clip
from ovseg.clip.adapted import replace_clip
from ovseg.weights.clip import load_clip_state
from ovseg.weights.load import WeightsError, load_strict
from tests.clip.tiny import CONFIG, make_clip

PREFIX = "clip_adapter.clip_model."


class _Holder(nn.Module):
    """Takes tensors by dotted name, as a module tree that TorchScript can save."""

    def __init__(self, state):
        super().__init__()
        children = {}
        for name, tensor in state.items():
            head, _, rest = name.partition(".")
            if rest:
                children.setdefault(head, {})[rest] = tensor
            elif tensor.is_floating_point():
                self.register_parameter(head, nn.Parameter(tensor))
            else:
                self.register_buffer(head, tensor)
        for name, part in children.items():
            self.add_module(name, _Holder(part))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def _openai_state(dtype=torch.float16):
    state = {name: tensor.to(dtype) for name, tensor in make_clip().state_dict().items()}
    del state["visual.mask_embedding"]
    return state


def _archive_state():
    return {
        **_openai_state(),
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }


def _assert_same(got, expected):
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(got[name].float(), tensor.float()), name


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_openai_archives_and_state_dicts_give_the_same(tmp_path):
    state = _archive_state()
    archive, plain = tmp_path / "ViT.pt", tmp_path / "state.pt"
    torch.jit.save(torch.jit.script(_Holder(state)), str(archive))
    torch.save(state, plain)
    expected = {name: t for name, t in state.items() if name in _openai_state()}
    for path in (archive, plain):
        loaded = load_clip_state(path)
        _assert_same(loaded, expected)
        assert loaded["visual.proj"].dtype == torch.float16
        load_strict(build_clip(CONFIG), loaded, recomputable=["visual.mask_embedding"])


@pytest.mark.parametrize("prefix", ["", "module."])
def test_fine_tuned_checkpoints_load_with_and_without_ddp(tmp_path, prefix):
    clip = make_clip(2)
    checkpoint = {
        "epoch": 5,
        "name": "ft",
        "state_dict": {prefix + name: tensor for name, tensor in clip.state_dict().items()},
        "optimizer": {"state": {}, "param_groups": []},
    }
    torch.save(checkpoint, tmp_path / "epoch_5.pt")
    state = load_clip_state(tmp_path / "epoch_5.pt")
    _assert_same(state, clip.state_dict())
    load_strict(build_clip(CONFIG, mask_prompt_depth=2), state)


def test_open_clips_two_model_classes_give_the_same(tmp_path):
    vision = open_clip.CLIPVisionCfg(**CONFIG["vision_cfg"])
    for proj_type_is_linear in (False, True):
        text = open_clip.CLIPTextCfg(**CONFIG["text_cfg"], proj_bias=False)
        custom = open_clip.CustomTextCLIP(8, vision, text)
        state = custom.state_dict()
        expected = {
            name.removeprefix("text."): tensor
            for name, tensor in state.items()
            if not name.endswith("attn_mask")
        }
        if proj_type_is_linear:
            state["text.text_projection.weight"] = state.pop("text.text_projection").t().clone()
        path = tmp_path / f"custom{proj_type_is_linear}.pt"
        torch.save(state, path)
        loaded = load_clip_state(path)
        _assert_same(loaded, expected)
        load_strict(build_clip(CONFIG), loaded, recomputable=["visual.mask_embedding"])


def test_a_logit_scale_with_one_element_becomes_a_scalar(tmp_path):
    torch.save({**_openai_state(), "logit_scale": torch.tensor([4.0])}, tmp_path / "c.pt")
    assert load_clip_state(tmp_path / "c.pt")["logit_scale"].shape == ()


def test_the_clip_inside_an_ovseg_checkpoint_is_found(tmp_path):
    clip = make_clip(2)
    state = {PREFIX + name: tensor for name, tensor in clip.state_dict().items()}
    torch.save({"model": {**state, "backbone.w": torch.ones(1)}}, tmp_path / "ovseg.pth")
    _assert_same(load_clip_state(tmp_path / "ovseg.pth"), clip.state_dict())


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"visual.layer1.0.conv1.weight": torch.ones(1)}, "a ResNet CLIP"),
        ({"visual.trunk.cls_token": torch.ones(1)}, "a timm image tower"),
        ({"vision_model.x": torch.ones(1)}, "naming of Hugging Face"),
        ({"logit_bias": torch.ones(1)}, "a SigLIP model"),
    ],
)
def test_other_kinds_of_clip_are_named(tmp_path, extra, message):
    torch.save({**_openai_state(), **extra}, tmp_path / "c.pt")
    with pytest.raises(WeightsError, match=message):
        load_clip_state(tmp_path / "c.pt")


def test_other_files_are_refused_with_what_they_lack(tmp_path):
    torch.save({"layers.0.weight": torch.ones(1)}, tmp_path / "c.pt")
    with pytest.raises(
        WeightsError, match=r"has no visual\.conv1\.weight.*first names are layers\.0\.weight"
    ):
        load_clip_state(tmp_path / "c.pt")


def _ovseg_checkpoint():
    clip = make_clip(3).float()
    state = {PREFIX + name: tensor for name, tensor in clip.state_dict().items()}
    return {"backbone.w": torch.ones(3), **state}


def test_an_adapted_clip_replaces_the_checkpoints():
    checkpoint = _ovseg_checkpoint()
    adapted = {name: tensor.half() for name, tensor in make_clip(2).state_dict().items()}
    result = replace_clip(checkpoint, adapted)
    assert set(result.state) == set(checkpoint)
    assert result.state["backbone.w"] is checkpoint["backbone.w"]
    assert result.state[PREFIX + "visual.proj"].dtype == torch.float32
    assert torch.equal(result.state[PREFIX + "visual.proj"], adapted["visual.proj"].float())
    # The depth is the adapted CLIP's.
    assert result.state[PREFIX + "visual.mask_embedding"].shape == (2, 16, 16)
    assert (result.mask_prompt_depth, result.mask_prompt_fwd) == (2, True)
    assert result.kept == ()


@pytest.mark.parametrize("zero", [True, False])
def test_a_clip_without_a_trained_prompt_switches_the_prompt_off(zero):
    checkpoint = _ovseg_checkpoint()
    adapted = make_clip(3).state_dict()
    if zero:
        adapted["visual.mask_embedding"] = torch.zeros(3, 16, 16)
    else:
        del adapted["visual.mask_embedding"]
    result = replace_clip(checkpoint, adapted)
    assert result.mask_prompt_fwd is False
    assert result.kept == (() if zero else (PREFIX + "visual.mask_embedding",))


def test_a_prompt_is_added_to_a_checkpoint_without_one():
    checkpoint = _ovseg_checkpoint()
    del checkpoint[PREFIX + "visual.mask_embedding"]
    result = replace_clip(checkpoint, make_clip(1).state_dict())
    assert result.state[PREFIX + "visual.mask_embedding"].shape == (1, 16, 16)


def test_a_clip_of_another_architecture_is_refused():
    adapted = make_clip(3).state_dict()
    adapted["visual.proj"] = torch.ones(16, 9)
    adapted["visual.new"] = torch.ones(1)
    with pytest.raises(WeightsError) as error:
        replace_clip(_ovseg_checkpoint(), adapted)
    assert "visual.proj: the checkpoint has (16, 8), the adapted CLIP (16, 9)" in str(error.value)
    assert "visual.new: the checkpoint has nothing" in str(error.value)
    with pytest.raises(WeightsError, match=r"expected an OVSeg checkpoint .* first names are a"):
        replace_clip({"a": torch.ones(1)}, adapted)
