"""What both backends promise of configs, registries, models and layers; see `test_contract.py`."""

from __future__ import annotations

import importlib
import os
import sys

import pytest
import torch
from torch import nn

from ovseg import d2
from ovseg.d2._lite.defaults import DEFAULTS
from ovseg.d2.checkpoint import DetectionCheckpointer
from ovseg.d2.config import CfgNode, configurable, get_cfg
from ovseg.d2.engine import launch
from ovseg.d2.layers import Conv2d, ShapeSpec, get_norm
from ovseg.d2.modeling import (
    BACKBONE_REGISTRY,
    META_ARCH_REGISTRY,
    SEM_SEG_HEADS_REGISTRY,
    Backbone,
    Registry,
    build_backbone,
    build_model,
    build_sem_seg_head,
)
from ovseg.d2.structures import ImageList

CLOSED_LIST = {
    "checkpoint": {"DetectionCheckpointer"},
    "config": {"CfgNode", "configurable", "get_cfg"},
    "data": {"DatasetCatalog", "MetadataCatalog"},
    "engine": {"default_setup", "launch"},
    "evaluation": {
        "DatasetEvaluator",
        "DatasetEvaluators",
        "inference_on_dataset",
        "print_csv_format",
        "verify_results",
    },
    "layers": {"Conv2d", "ShapeSpec", "get_norm"},
    "modeling": {
        "Registry",
        "META_ARCH_REGISTRY",
        "BACKBONE_REGISTRY",
        "SEM_SEG_HEADS_REGISTRY",
        "Backbone",
        "build_model",
        "build_backbone",
        "build_sem_seg_head",
    },
    "structures": {"ImageList", "Instances"},
    "utils": {"setup_logger", "log_first_n", "PathManager", "comm"},
}


# ---------------------------------------------------------------- the choice


def test_the_backend_is_the_one_asked_for_and_stays(monkeypatch):
    asked = os.environ["OVSEG_D2"]
    assert d2.backend() == asked
    monkeypatch.setenv("OVSEG_D2", "lite" if asked == "real" else "real")
    assert d2.backend() == asked


@pytest.mark.parametrize("module", sorted(CLOSED_LIST))
def test_a_module_offers_exactly_the_names_of_the_closed_list(module):
    offered = importlib.import_module(f"ovseg.d2.{module}")

    assert set(offered.__all__) == CLOSED_LIST[module]
    assert all(hasattr(offered, name) for name in offered.__all__)


def test_names_come_from_one_backend_only():
    home = "detectron2." if d2.backend() == "real" else "ovseg.d2._lite."
    for thing in (CfgNode, Conv2d, ImageList, DetectionCheckpointer, Backbone, launch):
        assert thing.__module__.startswith(home)


# ---------------------------------------------------------------- config


def test_get_cfg_gives_independent_configs():
    first = get_cfg()
    first.MODEL.WEIGHTS = "changed"
    first.INPUT.CROP.SIZE.append(1)

    assert get_cfg().MODEL.WEIGHTS == ""
    assert get_cfg().INPUT.CROP.SIZE == [0.9, 0.9]


def test_defaults_agree_with_the_lite_ones():
    def compare(expected, actual, path):
        for key, value in expected.items():
            if isinstance(value, dict):
                compare(value, actual[key], f"{path}{key}.")
            else:
                assert actual[key] == value, f"{path}{key}"
                assert type(actual[key]) is type(value), f"{path}{key}"

    compare(DEFAULTS, get_cfg(), "")


def test_a_config_merges_lists_and_freezes():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.BASE_LR", "0.5", "INPUT.MIN_SIZE_TRAIN", "(3, 4)"])
    cfg.freeze()

    assert cfg.SOLVER.BASE_LR == 0.5
    assert cfg.INPUT.MIN_SIZE_TRAIN == (3, 4)
    with pytest.raises(AttributeError):
        cfg.SEED = 1


class _Part:
    @configurable
    def __init__(self, *, width, depth=2):
        self.width, self.depth = width, depth

    @classmethod
    def from_config(cls, cfg, scale=1):
        return {"width": cfg.WIDTH * scale}


class _PartOfPart(_Part):
    @classmethod
    def from_config(cls, cfg):
        return {"width": -cfg.WIDTH, "depth": 9}


def test_configurable_classes_take_arguments_or_a_config():
    cfg = CfgNode({"WIDTH": 5})

    assert (_Part(width=3).width, _Part(width=3).depth) == (3, 2)
    assert (_Part(cfg).width, _Part(cfg, depth=7).depth) == (5, 7)
    assert _Part(cfg, scale=4).width == 20
    assert _Part(cfg=cfg).width == 5
    assert (_PartOfPart(cfg).width, _PartOfPart(cfg).depth) == (-5, 9)


def test_configurable_functions_take_arguments_or_a_config():
    @configurable(from_config=lambda cfg, kind: {"a": cfg.A, "b": kind})
    def build(a, b, c=0):
        return a, b, c

    assert build(1, 2) == (1, 2, 0)
    assert build(CfgNode({"A": 7}), kind="k", c=3) == (7, "k", 3)


def test_configurable_refuses_a_class_without_from_config():
    class Bare:
        @configurable
        def __init__(self, a):
            self.a = a

    with pytest.raises((TypeError, AttributeError)):
        Bare(CfgNode({"A": 1}))


# ---------------------------------------------------------------- modeling


def test_a_registry_registers_once_and_names_what_is_missing():
    registry = Registry("THING")

    @registry.register()
    class Thing:
        pass

    assert registry.get("Thing") is Thing
    assert "Thing" in registry
    with pytest.raises(AssertionError):
        registry.register(Thing)
    with pytest.raises(KeyError, match="Absent"):
        registry.get("Absent")


@BACKBONE_REGISTRY.register()
class ContractBackbone(Backbone):
    def __init__(self, cfg, input_shape):
        super().__init__()
        self.conv = nn.Conv2d(input_shape.channels, 4, 2, stride=2)
        self._out_features = ["res2"]
        self._out_feature_channels = {"res2": 4}
        self._out_feature_strides = {"res2": 2}

    def forward(self, images):
        return {"res2": self.conv(images)}


@SEM_SEG_HEADS_REGISTRY.register()
class ContractHead(nn.Module):
    def __init__(self, cfg, input_shape):
        super().__init__()
        self.out = nn.Conv2d(input_shape["res2"].channels, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, 1)


@META_ARCH_REGISTRY.register()
class ContractModel(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.backbone = build_backbone(cfg)
        self.head = build_sem_seg_head(cfg, self.backbone.output_shape())


def _contract_cfg():
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.META_ARCHITECTURE = "ContractModel"
    cfg.MODEL.BACKBONE.NAME = "ContractBackbone"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "ContractHead"
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 6
    return cfg


def test_a_model_is_built_from_registered_parts():
    model = build_model(_contract_cfg())

    assert model.backbone(torch.zeros(1, 3, 8, 8))["res2"].shape == (1, 4, 4, 4)
    assert model.head.out.weight.shape == (6, 4, 1, 1)
    assert model.backbone.output_shape() == {"res2": ShapeSpec(channels=4, stride=2)}
    assert model.backbone.size_divisibility == 0
    assert model.backbone.padding_constraints == {}


def test_a_registered_architecture_is_built_without_importing_another():
    build_model(_contract_cfg())

    assert not [name for name in sys.modules if name.startswith("ovseg.modeling")]


def test_an_unknown_architecture_is_refused():
    cfg = _contract_cfg()
    cfg.MODEL.META_ARCHITECTURE = "NoSuchModel"

    with pytest.raises(KeyError, match="NoSuchModel"):
        build_model(cfg)


# ---------------------------------------------------------------- layers


def test_conv_applies_norm_then_activation():
    conv = Conv2d(1, 32, 1, bias=False, norm=get_norm("GN", 32), activation=torch.relu)
    x = torch.randn(2, 1, 3, 3)
    expected = nn.functional.conv2d(x, conv.weight)
    expected = torch.relu(nn.functional.group_norm(expected, 32, conv.norm.weight, conv.norm.bias))

    assert torch.allclose(conv(x), expected)
    assert list(conv.state_dict()) == ["weight", "norm.weight", "norm.bias"]


def test_norms_are_found_by_name():
    assert get_norm("", 8) is None
    assert get_norm(None, 8) is None
    assert get_norm("GN", 64).num_groups == 32
    assert isinstance(get_norm("BN", 8), nn.BatchNorm2d)
    assert isinstance(get_norm("SyncBN", 8), nn.SyncBatchNorm)
    assert isinstance(get_norm(nn.Identity, 8), nn.Identity)
    with pytest.raises(KeyError):
        get_norm("NoSuchNorm", 8)


def test_layer_norm_works_on_channels():
    x = torch.randn(2, 5, 3, 4)
    expected = (x - x.mean(1, keepdim=True)) / (
        x.var(1, keepdim=True, unbiased=False) + 1e-6
    ).sqrt()

    assert torch.allclose(get_norm("LN", 5)(x), expected, atol=1e-5)


def test_frozen_batch_norm_holds_buffers_and_never_adapts():
    norm = get_norm("FrozenBN", 2)
    norm.weight.copy_(torch.tensor([2.0, 3.0]))
    norm.bias.copy_(torch.tensor([1.0, -1.0]))
    norm.running_mean.copy_(torch.tensor([0.5, 0.0]))
    norm.running_var.copy_(torch.tensor([4.0, 1.0]) - norm.eps)
    x = torch.randn(2, 2, 3, 3)
    expected = torch.stack([(x[:, 0] - 0.5) / 2 * 2 + 1, x[:, 1] * 3 - 1], dim=1)

    assert list(norm.state_dict()) == ["weight", "bias", "running_mean", "running_var"]
    assert list(norm.parameters()) == []
    for mode in (True, False):
        norm.train(mode)
        assert torch.allclose(norm(x), expected, atol=1e-5)
        assert torch.allclose(norm(x.clone().requires_grad_()), expected, atol=1e-5)


def test_a_fresh_frozen_batch_norm_is_the_identity():
    x = torch.randn(1, 3, 2, 2)

    assert torch.allclose(get_norm("FrozenBN", 3)(x), x, atol=1e-6)
