"""The released checkpoint's names, rates of parameters, and what is refused."""

from __future__ import annotations

import pytest
import torch

from ovseg.clip import load_clip
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.projects.segclip.parameters import freeze, optimizer_groups
from ovseg.projects.segclip.weights import for_evaluation, from_clip, to_clip
from ovseg.weights.load import WeightsError, write_safetensors
from tests.parity.recordings import recordings_of
from tests.parity.runners.segclip import segclip_cfg

RECORDINGS = recordings_of("segclip")
SMALL = ("MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "random", "MODEL.DEVICE", "cpu")


@pytest.fixture(scope="module", params=RECORDINGS, ids=lambda recordings: recordings.folder.name)
def released(request, tmp_path_factory):
    """A folder of recordings, and the full-size model without memory."""
    folder = tmp_path_factory.mktemp("released")
    with torch.device("meta"):
        cfg = segclip_cfg(request.param, folder, ["MODEL.DEVICE", "meta"])
        return request.param, cfg, build_model(cfg)


def small_model(*opts):
    torch.manual_seed(0)
    return build_model(load_cfg("segclip_tiny", [*SMALL, *opts]))


def test_names_and_shapes_are_those_of_the_released_checkpoint(released):
    recordings, _, model = released
    shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes == recordings.read("state_dict_segclip.json")


def test_rates_decay_and_freezing_are_those_of_the_published_command(released):
    recordings, cfg, model = released
    recorded = recordings.read("param_groups_segclip.json")
    locked = {name: not p.requires_grad for name, p in model.named_parameters()}
    rates = {"lr_new": cfg.SOLVER.LR_NEW, "lr_clip": cfg.SOLVER.LR_CLIP}
    every = model.requires_grad_(True).named_parameters()
    groups = optimizer_groups(every, **rates, weight_decay=cfg.SOLVER.WEIGHT_DECAY)
    freeze(model, reconstruct=True)
    found = {
        name: {"trainable": not locked[name], "lr": g["lr"], "weight_decay": g["weight_decay"]}
        for g in groups
        for name in g["names"]
    }
    assert found == recorded


def test_a_checkpoint_as_released_loads_and_changes_every_tensor(tmp_path):
    model, other = small_model(), small_model()
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in other.state_dict().items()}
    torch.save(state, tmp_path / "segclip.bin")  # a state dict without anything around it
    model.load_weights(tmp_path / "segclip.bin")
    assert all(bool((tensor == 0.5).all()) for tensor in model.state_dict().values())


def test_a_wrong_checkpoint_is_refused_and_every_name_is_reported():
    model = small_model()
    state = model.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    wrong = {name: tensor for name, tensor in state.items() if "cross_ln.bias" not in name}
    wrong["seq_mae_decoder.mask_token"] = torch.zeros(1)
    wrong["clip.visual.proj"] = torch.zeros(3, 3)
    with pytest.raises(WeightsError) as refused:
        model.load_weights(wrong)
    for part in ("cross_ln.bias", "seq_mae_decoder.mask_token", "clip.visual.proj: expected"):
        assert part in str(refused.value)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())


def test_an_evaluation_does_not_miss_the_reconstruction_but_training_does():
    model = small_model()
    state = model.state_dict()
    slim = for_evaluation(state)
    assert not any("mae" in name or "reconstruct" in name for name in slim)
    model.load_weights(slim)
    with pytest.raises(WeightsError, match=r"missing.*\n.*layers_mae2\.0\."):
        model.load_weights(slim, to_train=True)


def test_the_embedding_of_tokens_may_be_left_to_the_clip_of_the_config():
    with_clip = build_model(load_cfg("segclip_tiny", ["MODEL.DEVICE", "cpu"]))
    state = with_clip.state_dict()
    slim = for_evaluation(state, tokens=False)
    assert "clip.token_embedding.weight" in state and "clip.token_embedding.weight" not in slim
    tokens = load_clip("ovseg-tiny", "ovseg_tiny").token_embedding.weight
    with_clip.load_weights(slim)
    assert torch.equal(with_clip.clip.token_embedding.weight, tokens)
    whole = build_model(
        load_cfg("segclip_tiny", ["MODEL.DEVICE", "cpu", "MODEL.SEGCLIP.TOKENS_OF_CLIP", "False"])
    )
    with pytest.raises(WeightsError, match=r"missing.*\n.*token_embedding"):
        whole.load_weights(slim)


def test_training_starts_from_a_clip_and_an_evaluation_refuses_one(tmp_path):
    clip = load_clip("ovseg-tiny", "ovseg_tiny")
    write_safetensors(tmp_path / "clip.safetensors", clip.state_dict())
    model = small_model()
    with pytest.raises(WeightsError, match="expected a checkpoint of SegCLIP, got a CLIP"):
        model.load_weights(tmp_path / "clip.safetensors")
    centres = model.clip.visual.transformer.semantic_layer2.semantic_center.clone()
    model.load_weights(tmp_path / "clip.safetensors", to_train=True)
    block = clip.visual.transformer.resblocks[3].attn.in_proj_weight
    visual = model.clip.visual
    torch.testing.assert_close(visual.transformer.layers2[0].attn.in_proj_weight, block)
    torch.testing.assert_close(visual.proj, clip.visual.proj)
    assert torch.equal(visual.transformer.semantic_layer2.semantic_center, centres)


def test_the_config_brings_the_weights_of_clip():
    model = build_model(load_cfg("segclip_tiny", ["MODEL.DEVICE", "cpu"]))
    clip = load_clip("ovseg-tiny", "ovseg_tiny")
    torch.testing.assert_close(model.clip.visual.conv1.weight, clip.visual.conv1.weight)
    torch.testing.assert_close(model.clip.text_projection, clip.text_projection)


def test_names_go_to_clips_and_back_and_the_rest_is_listed():
    clip = {n: t for n, t in load_clip("ovseg-tiny").state_dict().items() if "mask_emb" not in n}
    there = from_clip(clip, first_stage=3)
    assert "clip.visual.transformer.layers2.0.ln_1.weight" in there
    back, others = to_clip({**there, "vis_mae_decoder.mask_token": torch.zeros(1)})
    assert others == ["vis_mae_decoder.mask_token"] and back.keys() == clip.keys()
    assert all(torch.equal(back[name], clip[name]) for name in clip)
    new = small_model().state_dict()
    _, others = to_clip(new)
    assert {name.split(".")[3] for name in others if name.startswith("clip.")} == {
        "semantic_layer2",
        "layers_mae2",
        "reconstruct_layer2",
    }
