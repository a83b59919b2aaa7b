"""What both backends promise; `test_contract.py` runs this file once per backend."""

from __future__ import annotations

import importlib
import logging
import os
import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from ovseg import d2
from ovseg.d2._lite.defaults import DEFAULTS
from ovseg.d2.checkpoint import DetectionCheckpointer
from ovseg.d2.config import CfgNode, configurable, get_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.engine import default_argument_parser, default_setup, launch
from ovseg.d2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
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
from ovseg.d2.structures import ImageList, Instances
from ovseg.d2.utils import PathManager, comm, log_first_n, setup_logger

CLOSED_LIST = {
    "checkpoint": {"DetectionCheckpointer"},
    "config": {"CfgNode", "configurable", "get_cfg"},
    "data": {"DatasetCatalog", "MetadataCatalog"},
    "engine": {"default_argument_parser", "default_setup", "launch"},
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


def test_building_registers_the_architectures_of_this_package():
    build_model(_contract_cfg())

    for name in ("OVSeg", "OVSegDEMO", "MaskFormer"):
        assert name in META_ARCH_REGISTRY


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


# ---------------------------------------------------------------- structures


def test_image_list_pads_bottom_and_right():
    images = [torch.ones(3, 5, 7), torch.full((3, 6, 2), 2.0)]
    batch = ImageList.from_tensors(images, 4, pad_value=-1.0)

    assert batch.tensor.shape == (2, 3, 8, 8)
    assert [tuple(size) for size in batch.image_sizes] == [(5, 7), (6, 2)]
    assert len(batch) == 2
    assert torch.equal(batch[1], images[1])
    assert batch.tensor[0, 0, 5:].eq(-1).all()
    assert batch.tensor[0, 0, :5, 7:].eq(-1).all()
    assert batch.tensor.eq(1).sum() == 3 * 5 * 7
    assert batch.to(torch.float64).tensor.dtype == torch.float64
    assert batch.device == torch.device("cpu")


def test_image_list_without_divisibility_pads_to_the_largest():
    batch = ImageList.from_tensors([torch.ones(5, 2), torch.ones(3, 6)])

    assert batch.tensor.shape == (2, 5, 6)


def test_image_list_obeys_padding_constraints():
    constraints = {"square_size": 10, "size_divisibility": 4}
    batch = ImageList.from_tensors([torch.ones(3, 5, 7)], 32, padding_constraints=constraints)

    assert batch.tensor.shape == (1, 3, 12, 12)


def _instances():
    return Instances(
        (4, 6), gt_classes=torch.tensor([3, 1, 2]), gt_masks=torch.eye(3).bool()[:, None]
    )


def test_instances_hold_fields_of_one_length():
    instances = _instances()

    assert len(instances) == 3
    assert instances.image_size == (4, 6)
    assert instances.has("gt_masks")
    assert not instances.has("scores")
    with pytest.raises(AssertionError):
        instances.scores = torch.zeros(2)
    with pytest.raises(AttributeError):
        _ = instances.scores
    instances.remove("gt_masks")
    assert list(instances.get_fields()) == ["gt_classes"]


def test_instances_are_selected_by_index_and_mask():
    instances = _instances()

    assert instances[1].gt_classes.tolist() == [1]
    assert instances[-1].gt_classes.tolist() == [2]
    assert instances[instances.gt_classes > 1].gt_classes.tolist() == [3, 2]
    assert instances[torch.tensor([2, 0])].gt_masks.shape == (2, 1, 3)
    with pytest.raises(IndexError):
        instances[3]


def test_instances_join_and_move():
    joined = Instances.cat([_instances(), _instances()[:1]])

    assert joined.gt_classes.tolist() == [3, 1, 2, 3]
    assert joined.to(torch.float64).gt_classes.dtype == torch.float64
    assert joined.gt_classes.dtype == torch.int64


def test_instances_may_be_empty_but_need_a_field_for_a_length():
    assert len(Instances((2, 2), gt_classes=torch.zeros(0, dtype=torch.int64))) == 0
    with pytest.raises(NotImplementedError):
        len(Instances((2, 2)))


# ---------------------------------------------------------------- data


def test_datasets_are_registered_once():
    DatasetCatalog.register("contract_set", lambda: [{"image_id": 1}])

    assert DatasetCatalog.get("contract_set") == [{"image_id": 1}]
    assert "contract_set" in DatasetCatalog.list()
    with pytest.raises(AssertionError):
        DatasetCatalog.register("contract_set", list)
    with pytest.raises(KeyError, match="no_such_set"):
        DatasetCatalog.get("no_such_set")
    DatasetCatalog.remove("contract_set")
    assert "contract_set" not in DatasetCatalog


def test_metadata_is_one_object_per_name_and_set_once():
    metadata = MetadataCatalog.get("contract_meta").set(stuff_classes=["a"], ignore_label=255)

    assert MetadataCatalog.get("contract_meta") is metadata
    assert metadata.name == "contract_meta"
    assert metadata.stuff_classes == ["a"]
    metadata.ignore_label = 255
    with pytest.raises(AssertionError):
        metadata.ignore_label = 0
    with pytest.raises(AttributeError, match="absent"):
        _ = metadata.absent
    assert metadata.get("absent", 5) == 5
    assert metadata.as_dict()["ignore_label"] == 255
    MetadataCatalog.remove("contract_meta")


# ---------------------------------------------------------------- checkpoint


def test_a_checkpoint_brings_back_model_optimizer_and_extras(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.125)
    DetectionCheckpointer(model, str(tmp_path), optimizer=optimizer).save("model_7", iteration=7)
    other = nn.Linear(2, 2)
    other_optimizer = torch.optim.AdamW(other.parameters(), lr=1.0)
    checkpointer = DetectionCheckpointer(other, str(tmp_path), optimizer=other_optimizer)

    assert checkpointer.has_checkpoint()
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_7.pth")
    extra = checkpointer.resume_or_load("", resume=True)
    assert extra["iteration"] == 7
    assert torch.equal(other.weight, model.weight)
    assert other_optimizer.param_groups[0]["lr"] == 0.125
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_7.pth"]


def test_a_plain_state_dict_with_ddp_names_loads(tmp_path):
    model = nn.Linear(2, 2)
    state = {f"module.{name}": value + 1 for name, value in model.state_dict().items()}
    expected = state["module.weight"].clone()
    torch.save(state, tmp_path / "plain.pth")
    DetectionCheckpointer(model).load(str(tmp_path / "plain.pth"))

    assert torch.equal(model.weight, expected)


def test_nothing_is_written_where_it_should_not(tmp_path):
    DetectionCheckpointer(nn.Linear(1, 1), str(tmp_path), save_to_disk=False).save("model")

    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- evaluation


class _Sum(DatasetEvaluator):
    def __init__(self, task):
        self.task, self.total = task, -1.0

    def reset(self):
        self.total = 0.0

    def process(self, inputs, outputs):
        self.total += sum(float(output) for output in outputs)

    def evaluate(self):
        return OrderedDict({self.task: {"sum": self.total}})


class _Doubler(nn.Module):
    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.modes = set()

    def forward(self, inputs):
        outputs = [self.factor * x for x in inputs]
        self.modes.add((self.training, outputs[0].requires_grad, outputs[0].is_inference()))
        return outputs


def test_inference_runs_without_gradients_and_restores_the_mode():
    model = _Doubler().train()
    loader = [[torch.tensor(1.0), torch.tensor(2.0)], [torch.tensor(3.0)]]

    assert inference_on_dataset(model, loader, _Sum("task")) == {"task": {"sum": 12.0}}
    assert model.training
    assert model.modes == {(False, False, False)}


def test_inference_takes_several_evaluators_or_none():
    loader = [[torch.tensor(1.0)]]

    results = inference_on_dataset(lambda inputs: inputs, loader, [_Sum("a"), _Sum("b")])
    assert results == {"a": {"sum": 1.0}, "b": {"sum": 1.0}}
    assert inference_on_dataset(lambda inputs: inputs, loader, None) == {}


def test_inference_calls_callbacks_in_order():
    calls = []
    names = ("on_start", "before_inference", "after_inference", "on_end")
    callbacks = {name: lambda name=name: calls.append(name) for name in names}
    inference_on_dataset(lambda inputs: inputs, [[torch.tensor(1.0)]] * 2, None, callbacks)

    assert calls == ["on_start", *names[1:3], *names[1:3], "on_end"]


def test_evaluators_must_not_report_under_one_name():
    with pytest.raises(AssertionError):
        DatasetEvaluators([_Sum("a"), _Sum("a")]).evaluate()


def test_main_metrics_are_logged_for_copying(caplog):
    with caplog.at_level(logging.INFO):
        print_csv_format(OrderedDict(sem_seg={"mIoU": 12.34567, "IoU-cat": 1.0}))

    assert [record.getMessage() for record in caplog.records] == [
        "copypaste: Task: sem_seg",
        "copypaste: mIoU",
        "copypaste: 12.3457",
    ]


def test_expected_results_are_verified():
    cfg = CfgNode({"TEST": CfgNode({"EXPECTED_RESULTS": []})})
    assert verify_results(cfg, {}) is True
    cfg.TEST.EXPECTED_RESULTS = [["sem_seg", "mIoU", 30.0, 0.5]]

    assert verify_results(cfg, {"sem_seg": {"mIoU": 30.5}}) is True
    for metrics in ({"mIoU": 30.6}, {"mIoU": float("nan")}, {}):
        with pytest.raises(SystemExit) as caught:
            verify_results(cfg, {"sem_seg": metrics})
        assert caught.value.code == 1


# ---------------------------------------------------------------- engine and utils


def test_the_parser_knows_the_usual_flags_and_their_short_forms():
    line = ["--config-file", "c.yaml", "--num-gpu", "2", "--eval-only", "SEED", "3"]
    args = default_argument_parser().parse_args(line)

    assert (args.config_file, args.num_gpus, args.eval_only) == ("c.yaml", 2, True)
    assert args.opts == ["SEED", "3"]
    assert (args.resume, args.num_machines, args.machine_rank) == (False, 1, 0)
    assert args.dist_url.startswith("tcp://127.0.0.1:")
    # One fixed port per user, so that a run left behind is noticed.
    assert args.dist_url == default_argument_parser().parse_args([]).dist_url


def test_setup_leaves_the_config_and_a_log_behind(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "out")
    default_setup(cfg, default_argument_parser().parse_args([]))
    saved = get_cfg()
    saved.merge_from_file(str(tmp_path / "out" / "config.yaml"))

    # As YAML: tuples inside lists come back as lists.
    assert yaml.safe_load(saved.dump()) == yaml.safe_load(cfg.dump())
    assert (tmp_path / "out" / "log.txt").stat().st_size > 0


def test_setup_seeds_the_generators(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.SEED = 11
    draws = []
    for _ in range(2):
        default_setup(cfg, default_argument_parser().parse_args([]))
        draws.append((random.random(), float(np.random.rand()), float(torch.rand(()))))

    assert draws[0] == draws[1]
    assert draws[0][2] == float(torch.rand((), generator=torch.Generator().manual_seed(11)))


def test_a_single_process_is_launched_in_place():
    seen = []
    launch(lambda *args: seen.append((os.getpid(), args)), 1, args=(1, 2))
    launch(lambda: seen.append((os.getpid(), ())), 0)

    assert seen == [(os.getpid(), (1, 2)), (os.getpid(), ())]


def test_communication_in_a_single_process_is_trivial():
    comm.synchronize()

    assert (comm.get_world_size(), comm.get_rank(), comm.get_local_rank()) == (1, 0, 0)
    assert comm.is_main_process()
    assert comm.all_gather("x") == ["x"]
    assert comm.gather({"a": 1}) == [{"a": 1}]
    assert comm.reduce_dict({"loss": torch.tensor(2.0)})["loss"] == 2.0


def test_a_message_is_logged_only_so_often(caplog):
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            log_first_n(logging.INFO, "from one line", n=2, name="contract")
        for text in ("a", "b", "a"):
            log_first_n(logging.INFO, text, name="contract", key="message")

    assert [record.getMessage() for record in caplog.records] == [
        "from one line",
        "from one line",
        "a",
        "b",
    ]


def test_a_logger_writes_to_its_folder(tmp_path):
    logger = setup_logger(str(tmp_path), distributed_rank=1, name="contract_file")
    logger.info("hello")

    assert "hello" in (tmp_path / "log.txt.rank1").read_text()


def test_paths_are_opened_through_the_path_manager(tmp_path):
    path = str(tmp_path / "a.txt")
    with PathManager.open(path, "w") as file:
        file.write("text")

    assert PathManager.isfile(path)
    assert PathManager.exists(path)
    assert PathManager.get_local_path(path) == path
