from __future__ import annotations

import numpy as np
import pytest
import torch

from ovseg.config import load_cfg
from ovseg.d2.layers import ShapeSpec
from ovseg.d2.modeling import build_backbone
from ovseg.modeling.backbone.swin import D2SwinTransformer
from ovseg.modeling.backbone.window_attention import (
    SHIFT_MASK_VALUE,
    WindowAttention,
    relative_position_index,
    shift_mask,
    window_partition,
    window_reverse,
)
from tests.modeling.tiny import tiny_cfg


def swin(**overrides) -> D2SwinTransformer:
    return D2SwinTransformer(tiny_cfg(**overrides), ShapeSpec(channels=3)).eval()


@pytest.mark.parametrize("size", [(64, 96), (37, 50), (5, 3), (100, 33)])
def test_swin_features_have_the_rounded_up_sizes(size):
    features = swin()(torch.randn(1, 3, *size))
    for name, stride in (("res2", 4), ("res3", 8), ("res4", 16), ("res5", 32)):
        # every stage halves the side of the one before, rounding up
        expected = tuple(-(-side // stride) for side in size)
        assert tuple(features[name].shape[2:]) == expected
        assert features[name].shape[1] == 16 * stride // 4


def test_swin_treats_images_of_a_batch_independently():
    backbone = swin()
    images = torch.randn(2, 3, 45, 70)
    both = backbone(images)
    for index in range(2):
        alone = backbone(images[index : index + 1])
        for name, value in alone.items():
            torch.testing.assert_close(both[name][index : index + 1], value)


def test_windows_are_cut_row_by_row_and_put_back():
    x = torch.arange(2 * 4 * 6).view(2, 4, 6, 1)
    windows = window_partition(x, 2)
    assert windows.shape == (12, 4, 1)
    assert windows[1].flatten().tolist() == [2, 3, 8, 9]
    assert torch.equal(window_reverse(windows, 2, 4, 6), x)


def test_position_index_counts_row_offset_before_column_offset():
    index = relative_position_index(3)
    # token 0 is (0, 0), token 5 is (1, 2); offsets are shifted by 2 and rows have 5 entries
    assert index[0, 5].item() == (0 - 1 + 2) * 5 + (0 - 2 + 2)
    assert index[5, 0].item() == (1 + 2) * 5 + (2 + 2)
    assert index.diagonal().unique().tolist() == [12]


def test_shift_mask_matches_the_definition_by_slices():
    height, width, window, shift = 8, 12, 4, 2
    labels = np.zeros((height, width))
    count = 0
    edges = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
    for rows in edges:
        for columns in edges:
            labels[rows, columns] = count
            count += 1
    windows = labels.reshape(2, 4, 3, 4).transpose(0, 2, 1, 3).reshape(6, 16)
    expected = np.where(windows[:, None] != windows[:, :, None], SHIFT_MASK_VALUE, 0)
    mask = shift_mask(height, width, window, shift, torch.device("cpu"))
    assert np.array_equal(mask.numpy(), expected)


def test_window_attention_equals_its_formula():
    attention = WindowAttention(dim=8, heads=2, window=2).double()
    with torch.no_grad():
        attention.relative_position_bias_table.normal_()
    x, mask = torch.randn(6, 4, 8).double(), torch.randn(3, 4, 4).double()
    qkv = attention.qkv(x).view(6, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
    scores = (qkv[0] * 4**-0.5) @ qkv[1].transpose(-1, -2) + attention.position_bias()
    scores = scores + mask.repeat(2, 1, 1)[:, None]
    expected = attention.proj((scores.softmax(-1) @ qkv[2]).transpose(1, 2).reshape(6, 4, 8))
    torch.testing.assert_close(attention(x, mask), expected)


def test_swin_with_absolute_embedding_accepts_any_size():
    backbone = swin(MODEL__SWIN__APE=True, MODEL__SWIN__PRETRAIN_IMG_SIZE=32)
    assert backbone.absolute_pos_embed.shape == (1, 16, 8, 8)
    assert backbone(torch.randn(1, 3, 50, 34))["res5"].shape == (1, 128, 2, 2)


def test_swin_rejects_what_it_does_not_have():
    with pytest.raises(ValueError, match="PROJECTION"):
        swin(MODEL__SWIN__PROJECTION=True)
    with pytest.raises(ValueError, match="four stages"):
        swin(MODEL__SWIN__DEPTHS=[2, 2])
    with pytest.raises(ValueError, match="3 heads divide, got 16"):
        swin(MODEL__SWIN__NUM_HEADS=[3, 3, 3, 3])


def resnet(*opts):
    with torch.device("meta"):
        return build_backbone(load_cfg("ovseg_R101c", ["MODEL.RESNETS.DEPTH", 50, *opts]))


def test_resnet_freezes_stem_and_res2():
    trained = {name.split(".")[0] for name, p in resnet().named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}


def test_freezing_a_resnet_freezes_batch_norm_statistics_too():
    backbone = resnet("MODEL.RESNETS.NORM", "BN")
    kinds = {
        stage: type(getattr(backbone, stage)[0].conv1.norm).__name__ for stage in ("res2", "res3")
    }
    assert kinds == {"res2": "FrozenBatchNorm2d", "res3": "BatchNorm2d"}


def test_resnet_multi_grid_dilates_res5_and_keeps_its_stride():
    backbone = resnet()
    assert [block.conv2.dilation[0] for block in backbone.res5] == [1, 2, 4]
    assert backbone.output_shape()["res5"].stride == 32
    assert resnet("MODEL.RESNETS.RES5_DILATION", 2).output_shape()["res5"].stride == 16


def test_resnet_names_the_valid_choices():
    with pytest.raises(ValueError, match=r"DEPTH: expected one of \(50, 101, 152\), got 18"):
        resnet("MODEL.RESNETS.DEPTH", 18)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_networks_of_timm_give_features_by_their_strides(name):
    wanted = ["res1", "res2", "res5"] if name == "resnet18" else ["res2", "res3", "res5"]
    opts = ["MODEL.TIMM.NAME", name, "MODEL.TIMM.OUT_FEATURES", str(wanted)]
    opts += ["MODEL.BACKBONE.NAME", "TimmBackbone"]
    backbone = build_backbone(load_cfg("ovseg_swinB", opts)).eval()
    assert backbone.size_divisibility == 32
    features = backbone(torch.randn(1, 3, 64, 96))
    assert list(features) == wanted
    for feature, shape in backbone.output_shape().items():
        assert shape.stride == 2 ** int(feature[-1])
        size = (shape.channels, 64 // shape.stride, 96 // shape.stride)
        assert tuple(features[feature].shape[1:]) == size


def test_options_reach_the_network_of_timm():
    backbone = build_backbone(load_cfg("ovseg_tiny"))
    widths = [shape.channels for shape in backbone.output_shape().values()]
    assert widths == [32, 48, 96, 192, 320]
