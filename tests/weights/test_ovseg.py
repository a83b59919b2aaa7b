from __future__ import annotations

from collections import OrderedDict

import pytest
import torch

from ovseg.clip import build_clip
from ovseg.weights.load import WeightsError, read_names, write_safetensors
from ovseg.weights.ovseg import load_ovseg_weights, upstream_names
from tests.modeling.tiny import image, tiny_model, vocabulary

HEAD = "sem_seg_head.pixel_decoder."
PROMPT = "clip_adapter.clip_model.visual.mask_embedding"
DEPTH = "MODEL__CLIP_ADAPTER__MASK_PROMPT_DEPTH"


@pytest.fixture(scope="module")
def source():
    model = tiny_model()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def scores(model):
    return model([{"image": image(40, 60)}], vocabulary())[0]["sem_seg"]


@pytest.mark.parametrize(
    "form",
    [
        dict,
        OrderedDict,
        lambda s: {"model": s, "iteration": 120000, "__author__": "someone"},
        lambda s: {"module." + name: value for name, value in s.items()},
        lambda s: {"model": {"module." + name: value for name, value in s.items()}},
    ],
    ids=["dict", "ordered", "container", "parallel", "parallel container"],
)
def test_every_form_of_a_checkpoint_gives_the_same_model(source, form):
    model = tiny_model()
    assert not torch.equal(scores(model), scores(source))
    load_ovseg_weights(model, form(source.state_dict()))
    assert torch.equal(scores(model), scores(source))


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_files_are_read(source, tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    if suffix == "pth":
        torch.save({"model": source.state_dict()}, path)
    else:
        write_safetensors(path, source.state_dict())
    model = tiny_model()
    load_ovseg_weights(model, path)
    assert torch.equal(scores(model), scores(source))


def test_half_precision_is_cast_to_the_models(source):
    model = tiny_model()
    half = {n: v.half() if v.is_floating_point() else v for n, v in source.state_dict().items()}
    load_ovseg_weights(model, half)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    expected = source.state_dict()[HEAD + "layer_1.weight"].half().float()
    assert torch.equal(model.state_dict()[HEAD + "layer_1.weight"], expected)


def test_missing_unexpected_and_misshapen_names_are_all_listed(source):
    state = source.state_dict()
    del state["backbone.norm0.weight"]
    state["backbone.extra"] = torch.zeros(2)
    state["sem_seg_head.predictor.query_embed.weight"] = torch.zeros(9, 32)
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as error:
        load_ovseg_weights(model, state)
    message = str(error.value)
    assert "missing (1)" in message and "backbone.norm0.weight" in message
    assert "unexpected (1)" in message and "backbone.extra" in message
    assert "query_embed.weight: expected (7, 32) float32, got (9, 32) float32" in message
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_the_model_computes_itself_may_be_missing(source):
    state = {
        name: value
        for name, value in source.state_dict().items()
        if not name.endswith(("relative_position_index", "empty_weight", "pixel_mean", "pixel_std"))
    }
    model = tiny_model()
    load_ovseg_weights(model, state)
    assert torch.equal(scores(model), scores(source))


def test_the_weights_of_classes_in_the_loss_are_no_weights(source):
    name = "criterion.empty_weight"
    own = tiny_model().state_dict()[name]
    model = tiny_model()
    load_ovseg_weights(model, source.state_dict() | {name: torch.full((172,), 3.0)})
    assert torch.equal(model.state_dict()[name], own)
    assert torch.equal(scores(model), scores(source))


def test_a_file_that_is_no_backbone_is_not_called_a_resnet(source):
    state = {"embeddings.patch_embeddings.projection.weight": torch.ones(1)}
    message = r"weights of the backbone \(D2SwinTransformer\) in the naming of a Swin .*embeddings"
    with pytest.raises(WeightsError, match=message):
        load_ovseg_weights(tiny_model(), state, allow_backbone_only=True)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_names_are_listed_without_loading(source, tmp_path, suffix):
    path = tmp_path / f"weights.{suffix}"
    state = {"module." + name: value for name, value in source.state_dict().items()}
    if suffix == "pth":
        torch.save({"model": state}, path)
    else:
        write_safetensors(path, state)
    assert sorted(read_names(path)) == sorted(source.state_dict())


def test_the_pixel_decoders_names_are_not_renamed_twice(source):
    # Without _metadata, as any plain dict: the original then loaded a random pixel decoder.
    state = dict(source.state_dict())
    assert upstream_names(state).keys() == state.keys()
    model = tiny_model()
    load_ovseg_weights(model, state)
    assert torch.equal(model.state_dict()[HEAD + "layer_1.weight"], state[HEAD + "layer_1.weight"])


def test_names_of_old_heads_are_renamed(source):
    old = {
        name.replace(HEAD, "sem_seg_head."): value for name, value in source.state_dict().items()
    }
    assert "sem_seg_head.layer_1.weight" in old
    model = tiny_model()
    load_ovseg_weights(model, old)
    assert torch.equal(scores(model), scores(source))


@pytest.mark.parametrize("depth", [0, 1])
def test_the_depth_of_the_mask_prompt_follows_the_checkpoint(source, depth):
    model = tiny_model(**{DEPTH: depth})
    load_ovseg_weights(model, source.state_dict())
    assert model.clip_adapter.clip_model.visual.mask_prompt_depth == 3
    assert not model.clip_adapter.clip_model.visual.mask_embedding.requires_grad
    assert torch.equal(scores(model), scores(source))


def test_a_failed_load_keeps_the_depth_of_the_mask_prompt(source):
    model = tiny_model(**{DEPTH: 1})
    state = source.state_dict() | {"backbone.extra": torch.zeros(1)}
    with pytest.raises(WeightsError):
        load_ovseg_weights(model, state)
    assert model.state_dict()[PROMPT].shape[0] == 1


def test_loading_forgets_encoded_texts(source):
    model = tiny_model()
    scores(model)
    load_ovseg_weights(model, source.state_dict())
    assert torch.equal(scores(model), scores(source))


def classifier_state(model) -> dict[str, torch.Tensor]:
    """What a Swin Transformer classifier's file holds."""
    state = {
        name.removeprefix("backbone."): value
        for name, value in model.state_dict().items()
        if name.startswith("backbone.") and not name.startswith("backbone.norm")
    }
    extra = {"norm.weight": torch.ones(128), "head.weight": torch.zeros(10, 128)}
    return state | extra | {"layers.0.blocks.1.attn_mask": torch.zeros(4, 16, 16)}


def test_a_pretrained_backbone_starts_training_but_is_no_full_checkpoint(source):
    model = tiny_model()
    norm = model.backbone.norm0.weight.clone()
    with pytest.raises(WeightsError, match="backbone alone"):
        load_ovseg_weights(model, {"model": classifier_state(source)})
    load_ovseg_weights(model, {"model": classifier_state(source)}, allow_backbone_only=True)
    name = "layers.1.blocks.0.attn.qkv.weight"
    assert torch.equal(model.backbone.state_dict()[name], source.backbone.state_dict()[name])
    assert torch.equal(model.backbone.norm0.weight, norm)


def test_a_converted_backbone_starts_training_too(source):
    state = source.state_dict()
    converted = {name: value for name, value in state.items() if name.startswith("backbone.")}
    model = tiny_model()
    with pytest.raises(WeightsError, match="backbone alone"):
        load_ovseg_weights(model, converted)
    load_ovseg_weights(model, converted, allow_backbone_only=True)
    assert torch.equal(model.backbone.norm0.weight, source.backbone.norm0.weight)
    name = "layers.1.blocks.0.attn.qkv.weight"
    assert torch.equal(model.backbone.state_dict()[name], source.backbone.state_dict()[name])


def test_a_backbone_of_another_width_is_refused(source):
    state = classifier_state(source)
    state["patch_embed.proj.weight"] = torch.zeros(8, 3, 4, 4)
    with pytest.raises(WeightsError, match=r"patch_embed.proj.weight: expected \(16, 3, 4, 4\)"):
        load_ovseg_weights(tiny_model(), state, allow_backbone_only=True)


@pytest.mark.parametrize("adapted", [True, False], ids=["adapted", "plain"])
def test_clip_starts_from_its_own_file(tmp_path, adapted):
    torch.manual_seed(8)
    clip = build_clip("ovseg-tiny", mask_prompt_depth=2)
    state = {name: torch.randn_like(value) for name, value in clip.state_dict().items()}
    if not adapted:
        del state["visual.mask_embedding"]
    write_safetensors(tmp_path / "clip.safetensors", state)
    path = str(tmp_path / "clip.safetensors")
    model = tiny_model(MODEL__CLIP_ADAPTER__CLIP_WEIGHTS=path)
    loaded = model.clip_adapter.clip_model.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in state.items())
    assert loaded["visual.mask_embedding"].shape[0] == (2 if adapted else 3)
