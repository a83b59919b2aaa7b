from __future__ import annotations

import logging

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from ovseg.training.checkpoint import RunCheckpoint, latest_checkpoint, read_checkpoint
from ovseg.training.ema import ExponentialMovingAverage
from ovseg.training.optimizer import build_lr_scheduler, build_optimizer
from tests.helpers import run_python
from tests.training.toy import make_toy, toy_cfg


def checkpoint_of(folder, *opts, **kwargs):
    cfg = toy_cfg(folder, *opts)
    model = make_toy(cfg)
    optimizer = build_optimizer(cfg, model)
    return RunCheckpoint(
        directory=folder,
        model=model,
        optimizer=optimizer,
        scheduler=build_lr_scheduler(cfg, optimizer),
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        **kwargs,
    )


def test_only_the_newest_checkpoints_are_kept_and_the_pointer_names_the_last(tmp_path):
    checkpoint = checkpoint_of(tmp_path, keep=2)
    (tmp_path / "model_0000900.pth").write_bytes(b"of an earlier, longer run")
    (tmp_path / "model_best.pth").write_bytes(b"someone's own")
    for iteration in (4, 9, 14):
        checkpoint.save(iteration)
    names = sorted(path.name for path in tmp_path.glob("*.pth"))
    assert names == [
        "model_0000009.pth",
        "model_0000014.pth",
        "model_0000900.pth",
        "model_best.pth",
    ]
    assert latest_checkpoint(tmp_path) == tmp_path / "model_0000014.pth"


def test_a_failed_write_leaves_the_previous_checkpoint_in_force(tmp_path, monkeypatch):
    checkpoint = checkpoint_of(tmp_path)
    checkpoint.save(4)

    def break_off(state, file):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(9)
    monkeypatch.undo()
    assert [path.name for path in sorted(tmp_path.glob("*.pth"))] == ["model_0000004.pth"]
    assert checkpoint_of(tmp_path).resume() == 5


def test_what_a_killed_save_left_is_swept_on_resume(tmp_path):
    checkpoint_of(tmp_path).save(4)
    (tmp_path / ".model_0000009.x1y2.pth").write_bytes(b"half")
    checkpoint_of(tmp_path).resume()
    assert not list(tmp_path.glob(".model_*"))


def test_without_a_checkpoint_resume_starts_at_zero_and_a_lost_one_is_an_error(tmp_path):
    assert checkpoint_of(tmp_path).resume() == 0
    (tmp_path / "last_checkpoint").write_text("model_0000004.pth")
    with pytest.raises(FileNotFoundError, match=r"model_0000004.pth.*remove .*last_checkpoint"):
        checkpoint_of(tmp_path).resume()


def test_checkpoints_hold_plain_types_under_the_key_that_other_tools_read(tmp_path):
    path = checkpoint_of(tmp_path).save(4)
    state = torch.load(path, weights_only=True)
    assert set(state["model"]) == set(make_toy(toy_cfg(tmp_path)).state_dict())
    torch.save({"model": {}}, tmp_path / "model_0000009.pth")
    with pytest.raises(
        ValueError, match=r"training checkpoint of format 1, got None.*MODEL.WEIGHTS"
    ):
        read_checkpoint(tmp_path / "model_0000009.pth")


def test_optimizer_groups_of_another_recipe_are_refused(tmp_path):
    checkpoint_of(tmp_path).save(4)
    other = checkpoint_of(tmp_path, "SOLVER.BACKBONE_MULTIPLIER", 1.0)
    with pytest.raises(ValueError, match="BACKBONE_MULTIPLIER"):
        other.resume()


def test_a_changed_batch_is_told_on_resume(tmp_path, caplog):
    checkpoint_of(tmp_path, facts={"SOLVER.IMS_PER_BATCH": 8}).save(4)
    with caplog.at_level(logging.WARNING, logger="ovseg"):
        checkpoint_of(tmp_path, facts={"SOLVER.IMS_PER_BATCH": 16}).resume()
    assert "SOLVER.IMS_PER_BATCH was 8 before the interruption and is 16 now" in caplog.text


def test_final_weights_are_those_the_model_carries(tmp_path):
    checkpoint = checkpoint_of(tmp_path)
    with torch.no_grad():
        checkpoint.model.head.bias.fill_(7.0)
    path = checkpoint.save_final()
    assert load_file(path)["head.bias"].tolist() == [7.0]


def test_average_follows_its_recurrence_and_gives_the_weights_back():
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.0)
    ema = ExponentialMovingAverage(model, decay=0.15)
    expected = 0.0
    for step, value in enumerate((1.0, 2.0, 4.0)):
        nn.init.constant_(model.weight, value)
        ema.update()
        decay = min(0.15, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    with ema.applied():
        assert model.weight.item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 4.0


def test_average_refuses_other_parameters_and_a_decay_of_one():
    ema = ExponentialMovingAverage(nn.Linear(1, 1), decay=0.5)
    with pytest.raises(ValueError, match=r"differing names: \['bias'\]"):
        ema.load_state_dict(
            ExponentialMovingAverage(nn.Linear(1, 1, bias=False), decay=0).state_dict()
        )
    with pytest.raises(ValueError, match=r"EMA.DECAY.*\[0, 1\).*1.0"):
        ExponentialMovingAverage(nn.Linear(1, 1), decay=1.0)


def flip(path, value):
    """Change a number and write the archive anew, so that its checksums fit."""
    state = torch.load(path, weights_only=True)
    state["optimizer"]["param_groups"][0]["lr"] = value
    torch.save(state, path)


def test_a_damaged_checkpoint_is_named_with_the_older_ones_beside_it(tmp_path):
    checkpoint = checkpoint_of(tmp_path)
    for iteration in (4, 9, 14):
        checkpoint.save(iteration)
    newest = tmp_path / "model_0000014.pth"
    whole = newest.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"\0" * len(whole), whole[:-30]):
        newest.write_bytes(damaged)
        with pytest.raises(ValueError, match="the checkpoint is damaged") as error:
            checkpoint_of(tmp_path).resume()
        assert str(newest) in str(error.value)
        assert "Beside it lie model_0000009.pth, model_0000004.pth: write" in str(error.value)
        assert str(tmp_path / "last_checkpoint") in str(error.value)
    (tmp_path / "last_checkpoint").write_text("model_0000009.pth\n")
    assert checkpoint_of(tmp_path).resume() == 10


def test_a_bit_that_flipped_in_a_checkpoint_is_told_and_not_resumed_from(tmp_path):
    path = checkpoint_of(tmp_path).save(4)
    whole = path.read_bytes()
    weight = torch.load(path, weights_only=True)["model"]["head.weight"].numpy().tobytes()
    place = whole.index(weight)
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
    with pytest.raises(ValueError, match=r"model_0000004\.pth: the checkpoint is damaged"):
        checkpoint_of(tmp_path).resume()
    path.write_bytes(whole)
    flip(path, 0.25)
    with pytest.raises(ValueError, match=r"the digest differs\. No older one lies beside it"):
        checkpoint_of(tmp_path).resume()


def test_a_checkpoint_without_a_digest_is_resumed_as_before(tmp_path):
    path = checkpoint_of(tmp_path).save(4)
    state = torch.load(path, weights_only=True)
    del state["ovseg_digest"]
    torch.save(state, path)
    assert checkpoint_of(tmp_path).resume() == 5


def test_a_checkpoint_that_lacks_a_part_says_which(tmp_path):
    path = checkpoint_of(tmp_path).save(4)
    torch.save({"format": 1, "model": {}}, path)
    with pytest.raises(ValueError, match=r"lacks iteration, optimizer, .*start over"):
        checkpoint_of(tmp_path).resume()


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"../../elsewhere.pth", b"", b"x" * 5000])
def test_a_pointer_to_nowhere_is_told(tmp_path, content):
    (tmp_path / "last_checkpoint").write_bytes(content)
    with pytest.raises(FileNotFoundError, match="last_checkpoint names"):
        latest_checkpoint(tmp_path)


FULL_DISK = """
import resource, sys
from pathlib import Path
from tests.training.test_checkpoint import checkpoint_of
from ovseg.weights.load import write_safetensors
folder = Path(sys.argv[1])
checkpoint = checkpoint_of(folder)
checkpoint.save(4)
import torch
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
for write in (
    lambda: checkpoint.save(9),
    lambda: write_safetensors(folder / "w.safetensors", {"a": torch.ones(10**5)}),
):
    try:
        write()
    except OSError as error:
        print(error)
"""


@pytest.mark.parametrize("room", ["10", "700"])
def test_a_full_disk_is_told_with_file_and_folder_and_leaves_nothing_half_written(tmp_path, room):
    run = run_python("-c", FULL_DISK, str(tmp_path), room)
    lines = run.stdout.splitlines()
    assert len(lines) == 2, run.stdout + run.stderr
    for line, name in zip(lines, ("model_0000009.pth", "w.safetensors"), strict=True):
        assert line.startswith(f"{tmp_path / name}: could not be written: ")
        assert "File too large" in line
        assert f"MiB are free in {tmp_path}" in line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["last_checkpoint", "model_0000004.pth"]
    assert checkpoint_of(tmp_path).resume() == 5
