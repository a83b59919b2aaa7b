from __future__ import annotations

import pytest
import torch

from ovseg.weights.backbones import convert_resnet, convert_swin
from ovseg.weights.load import WeightsError

ONE = torch.ones(1)


def test_swin_names_get_the_prefix_and_lose_the_classifier():
    names = [
        "patch_embed.proj.weight",
        "patch_embed.norm.bias",
        "layers.0.blocks.1.attn.relative_position_index",
        "layers.2.downsample.norm.weight",
    ]
    dropped = ["norm.weight", "norm.bias", "head.weight", "layers.0.blocks.1.attn_mask"]
    result = convert_swin(dict.fromkeys([*names, *dropped], ONE))
    assert list(result.state) == [f"backbone.{name}" for name in names]
    assert list(result.dropped) == dropped


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn3.running_var", "stem.conv3.norm.running_var"),
        ("layer1.0.conv2.weight", "res2.0.conv2.weight"),
        ("layer4.2.bn3.bias", "res5.2.conv3.norm.bias"),
        ("layer3.0.downsample.0.weight", "res4.0.shortcut.weight"),
        ("layer3.0.downsample.1.running_mean", "res4.0.shortcut.norm.running_mean"),
        ("stem.conv2.norm.weight", "stem.conv2.norm.weight"),
        ("res4.22.conv1.norm.running_mean", "res4.22.conv1.norm.running_mean"),
    ],
)
def test_both_resnet_namings_are_mapped(name, expected):
    assert list(convert_resnet({name: ONE}).state) == [f"backbone.{expected}"]


def test_resnet_classifier_and_counters_are_dropped():
    for names in (
        ["stem.fc.weight", "stem.conv1.norm.num_batches_tracked"],
        ["fc.bias", "bn1.num_batches_tracked"],
    ):
        result = convert_resnet(dict.fromkeys([*names, "conv1.weight"], ONE))
        assert list(result.state) == ["backbone.stem.conv1.weight"]
        assert list(result.dropped) == names


@pytest.mark.parametrize(
    ("convert", "state", "message"),
    [
        (convert_swin, {"layers.0.mixer.weight": ONE}, "Swin Transformer, got 1 of 1 names"),
        (convert_swin, {"norm.weight": ONE}, "got 0 of 1 names"),
        (convert_resnet, {"conv1.weight": ONE, "blocks.0.w": ONE}, r"none of it: blocks\.0\.w"),
    ],
)
def test_unknown_names_are_refused_not_guessed(convert, state, message):
    with pytest.raises(WeightsError, match=message):
        convert(state)
