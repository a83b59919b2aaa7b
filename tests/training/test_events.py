from __future__ import annotations

import json
import logging
import math
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from ovseg.training.events import JsonLines, Progress, TensorBoard, WandB, make_writers
from ovseg.training.loop import flatten_results


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_each_write_is_one_json_line_with_its_iteration(tmp_path):
    writer = JsonLines(tmp_path / "metrics.json")
    writer.write(19, {"total_loss": 2.5, "lr": 1e-4})
    writer.write(39, {"total_loss": 2.25})
    writer.close()
    assert lines(tmp_path / "metrics.json") == [
        {"iteration": 19, "total_loss": 2.5, "lr": 1e-4},
        {"iteration": 39, "total_loss": 2.25},
    ]


def test_numbers_that_json_does_not_have_become_null(tmp_path):
    writer = JsonLines(tmp_path / "metrics.json")
    writer.write(3, {"IoU-pond": math.nan, "loss": math.inf, "lr": 0.5})
    writer.close()
    text = (tmp_path / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert json.loads(text) == {"iteration": 3, "IoU-pond": None, "loss": None, "lr": 0.5}


def test_a_resumed_run_drops_what_its_checkpoint_does_not_know(tmp_path):
    path = tmp_path / "metrics.json"
    path.write_text('{"iteration": 4}\n{"iteration": 9}\n{"iteration": 14}\n{"iterat')
    writer = JsonLines(path, start=10)
    writer.write(14, {"total_loss": 1.0})
    writer.close()
    assert [line["iteration"] for line in lines(path)] == [4, 9, 14]


def test_a_new_run_sets_earlier_metrics_aside_one_after_the_other(tmp_path):
    for iteration in range(3):
        writer = JsonLines(tmp_path / "metrics.json")
        writer.write(iteration, {})
        writer.close()
    assert lines(tmp_path / "metrics.1.json") == [{"iteration": 0}]
    assert lines(tmp_path / "metrics.2.json") == [{"iteration": 1}]
    assert lines(tmp_path / "metrics.json") == [{"iteration": 2}]


def test_tensorboard_holds_the_points(tmp_path):
    writer = TensorBoard(tmp_path)
    writer.write(3, {"total_loss": 0.5})
    writer.write(4, {"total_loss": 0.25})
    writer.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("total_loss")
    assert [(event.step, event.value) for event in events] == [(3, 0.5), (4, 0.25)]


def test_progress_tells_time_left_and_medians(caplog):
    progress = Progress(max_iter=30, start=10, window=3)
    for loss in (100.0, 5.0, 1.0, 3.0):
        progress.observe({"total_loss": loss, "time": 0.5, "data_time": 0.1})
    progress._began -= 8.0  # as if the four iterations had taken eight seconds more
    progress.pause(4.0)  # half of them spent in an evaluation
    with caplog.at_level(logging.INFO, logger="ovseg"):
        progress.write(13, {"total_loss": 3.0, "lr": 6e-5})
    message = caplog.messages[-1]
    assert "eta: 0:00:16  iter: 14/30  total_loss: 3  time: 0.5000  data_time: 0.1000" in message
    assert message.endswith("lr: 6e-05")


class FakeRun:
    id = "abc"

    def __init__(self):
        self.logged = []

    def log(self, scalars, step):
        self.logged.append((step, scalars))

    def finish(self):
        self.logged.append("finished")


def test_wandb_is_used_only_where_installed_and_configured_and_resumes_its_run(
    tmp_path, monkeypatch
):
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    asked = []

    def init(**kwargs):
        asked.append(kwargs)
        return FakeRun()

    module = types.ModuleType("wandb")
    module.__spec__ = types.SimpleNamespace(name="wandb")
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    options = {"wandb_project": "p", "wandb_name": None, "config": {"A": 1}}
    assert not WandB.configured()
    assert len(make_writers(tmp_path, start=0, **options)) == 2
    monkeypatch.setenv("WANDB_MODE", "offline")
    writer = make_writers(tmp_path, start=0, **options)[-1]
    writer.write(4, {"total_loss": 1.0})
    writer.close()
    assert writer._run.logged == [(4, {"total_loss": 1.0}), "finished"]
    make_writers(tmp_path, start=5, **options)
    assert [kwargs["id"] for kwargs in asked] == [None, "abc"]
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert not WandB.configured()


def test_results_are_flattened_under_their_full_names():
    results = {"val": {"sem_seg": {"mIoU": 1, "IoU-sky": 2.0}}}
    assert flatten_results(results) == pytest.approx(
        {"val/sem_seg/mIoU": 1.0, "val/sem_seg/IoU-sky": 2.0}
    )


def test_a_full_disk_is_told_with_the_file(tmp_path):
    writer = JsonLines(tmp_path / "metrics.json")
    writer._file.close()
    writer._file = open("/dev/full", "a", encoding="utf-8")  # noqa: SIM115
    message = r"metrics\.json: could not be written: No space left on device; .* make room"
    with pytest.raises(OSError, match=message):
        writer.write(19, {"total_loss": 2.5})
    with pytest.raises(OSError, match=message):
        writer.close()
