"""What both backends promise of data, checkpoints, evaluation and runs; see `test_contract.py`."""

from __future__ import annotations

import logging
import os
import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from ovseg.d2.arguments import default_argument_parser
from ovseg.d2.checkpoint import DetectionCheckpointer
from ovseg.d2.config import CfgNode, get_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.engine import default_setup, launch
from ovseg.d2.evaluation import (
    DatasetEvaluator,
    DatasetEvaluators,
    inference_on_dataset,
    print_csv_format,
    verify_results,
)
from ovseg.d2.structures import ImageList, Instances
from ovseg.d2.utils import PathManager, comm, log_first_n, setup_logger

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
