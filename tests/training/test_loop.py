from __future__ import annotations

import json
import os
import signal

import pytest
import torch

from ovseg.training.checkpoint import read_checkpoint
from ovseg.training.interrupt import TrainingInterrupted
from ovseg.training.loop import train
from ovseg.training.step import NonFiniteLossError
from ovseg.utils.files import sha256_of
from tests.helpers import run_python, run_two_processes
from tests.training.toy import make_toy, toy_batch, toy_cfg, toy_loader

TOY = ("-m", "tests.training.toy", "--num-gpus", "0")


def metrics(folder):
    lines = (folder / "metrics.json").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(folder):
    return {line["iteration"]: line["total_loss"] for line in metrics(folder)}


@pytest.mark.parametrize("opts", [(), ("SOLVER.EMA.ENABLED", True, "SOLVER.AMP.ENABLED", True)])
def test_a_killed_run_resumes_to_bitwise_the_same_losses_and_weights(tmp_path, opts):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    cfg = toy_cfg(whole, *opts)
    train(cfg, make_toy(cfg), resume=False, make_loader=toy_loader)
    killed.mkdir()
    victim = run_python(*TOY, *map(str, opts), TOY_OUTPUT=str(killed), KILL_AT="8")
    assert victim.returncode == -9, victim.stderr
    assert sorted(losses(killed)) == list(range(8))  # three steps past the checkpoint
    # Cut the last line short, as a kill in the middle of a write does.
    file = killed / "metrics.json"
    file.write_text(file.read_text()[:-20])
    cfg = toy_cfg(killed, *opts)
    torch.manual_seed(99)  # nothing may depend on the state that a new process happens to have
    model = make_toy(toy_cfg(killed, "SEED", 77))
    train(cfg, model, resume=True, make_loader=toy_loader)
    assert losses(killed) == losses(whole)
    assert list(losses(killed)) == list(range(12))
    ours = read_checkpoint(killed / "model_0000011.pth")
    theirs = read_checkpoint(whole / "model_0000011.pth")
    assert torch.equal(ours["model"]["head.weight"], theirs["model"]["head.weight"])
    assert str(ours["optimizer"]) == str(theirs["optimizer"])
    assert str(ours["ema"]) == str(theirs["ema"])
    assert ours["scaler"] == theirs["scaler"]
    final = (folder / "model_final.safetensors" for folder in (killed, whole))
    assert next(final).read_bytes() == next(final).read_bytes()


def test_two_processes_reach_the_gradients_of_one_with_twice_the_batch(tmp_path):
    opts = ("SOLVER.MAX_ITER", "1", "SOLVER.ACCUMULATION_STEPS", "2")
    (tmp_path / "two").mkdir()
    run_two_processes(*TOY, *opts, TOY_OUTPUT=str(tmp_path / "two"), TOY_DROPOUT="0")
    cfg = toy_cfg(tmp_path / "one", "SOLVER.MAX_ITER", 1)
    model = make_toy(cfg, dropout=0.0)
    train(cfg, model, resume=False, make_loader=toy_loader)
    two = torch.load(tmp_path / "two" / "gradients.pth", weights_only=True)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            torch.testing.assert_close(two[name], parameter.grad, rtol=1e-5, atol=1e-6)
    assert losses(tmp_path / "two")[0] == pytest.approx(losses(tmp_path / "one")[0], rel=1e-6)


def test_training_reduces_the_loss_and_leaves_its_files(tmp_path):
    cfg = toy_cfg(tmp_path, "SOLVER.MAX_ITER", 60, "SOLVER.CHECKPOINT_PERIOD", 20)
    train(cfg, make_toy(cfg, dropout=0.0), resume=False, make_loader=toy_loader)
    curve = list(losses(tmp_path).values())
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5])
    assert {"lr", "time", "data_time", "loss_all", "loss_marked"} < metrics(tmp_path)[0].keys()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model_0000059.pth", "last_checkpoint", "model_final.safetensors"} < names
    assert any(name.startswith("events.out.tfevents") for name in names)


def test_evaluation_runs_when_due_and_at_the_end_on_the_averaged_weights(tmp_path):
    cfg = toy_cfg(tmp_path, "TEST.EVAL_PERIOD", 5, "SOLVER.EMA.ENABLED", True)
    model = make_toy(cfg)
    seen, told_weights = [], []

    def evaluate(cfg, model, weights):
        told_weights.append(weights)
        seen.append(model.head.weight.detach().clone())
        model.eval()
        return {"toy_val": {"sem_seg": {"mIoU": 10.0 * len(seen)}}}

    results = train(cfg, model, resume=False, make_loader=toy_loader, evaluate=evaluate)
    assert results == {"toy_val": {"sem_seg": {"mIoU": 30.0}}}
    told = [(m["iteration"], m["toy_val/sem_seg/mIoU"]) for m in metrics(tmp_path) if len(m) == 2]
    assert told == [(4, 10.0), (9, 20.0), (11, 30.0)]
    assert model.training and not torch.equal(seen[-1], model.head.weight)
    names = [weights["name"] for weights in told_weights]
    assert names == [f"iteration {n} of {tmp_path}" for n in (5, 10)] + ["model_final.safetensors"]
    assert told_weights[-1]["sha256"] == sha256_of(tmp_path / "model_final.safetensors")
    assert len({weights["sha256"] for weights in told_weights}) == 3
    averaged = read_checkpoint(tmp_path / "model_0000011.pth")["ema"]["parameters"]
    assert torch.equal(averaged["head.weight"], seen[-1])


def test_a_finished_run_that_is_resumed_only_evaluates(tmp_path):
    cfg = toy_cfg(tmp_path)
    train(cfg, make_toy(cfg), resume=False, make_loader=toy_loader)
    before = losses(tmp_path)

    def untouched(cfg, *, start_iteration):
        assert start_iteration == 12
        yield from ()

    results = train(
        cfg,
        make_toy(cfg),
        resume=True,
        make_loader=untouched,
        evaluate=lambda cfg, model, weights: {"d": {}},
    )
    assert results == {"d": {}} and losses(tmp_path) == before


def test_a_new_run_in_an_old_folder_starts_over_and_keeps_the_old_metrics(tmp_path):
    cfg = toy_cfg(tmp_path)
    loaded = []
    for _ in range(2):
        train(
            cfg,
            make_toy(cfg),
            resume=False,
            make_loader=toy_loader,
            initialise=lambda: loaded.append(True),
        )
    assert loaded == [True, True]
    assert (tmp_path / "metrics.1.json").read_text().count("\n") == 12
    assert list(losses(tmp_path)) == list(range(12))
    train(cfg, make_toy(cfg), resume=True, make_loader=toy_loader, initialise=loaded.clear)
    assert loaded == [True, True]


def test_a_diverging_run_names_the_iteration_and_keeps_its_checkpoint(tmp_path):
    cfg = toy_cfg(tmp_path)

    def poisoned(cfg, *, start_iteration):
        for iteration in range(start_iteration, 12):
            batch = toy_batch(cfg, iteration)
            batch[0]["row"] = batch[0]["row"] * (float("nan") if iteration == 7 else 1.0)
            yield batch

    with pytest.raises(NonFiniteLossError, match=r"iteration 7: .*loss_all = nan"):
        train(cfg, make_toy(cfg), resume=False, make_loader=poisoned)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    assert list(losses(tmp_path)) == list(range(7))


def interrupting(at):
    """A loader that presses Ctrl-C while the batch of an iteration is made."""

    def make(cfg, *, start_iteration=0):
        for offset, batch in enumerate(toy_loader(cfg, start_iteration=start_iteration)):
            if start_iteration + offset in at:
                os.kill(os.getpid(), signal.SIGINT)
            yield batch

    return make


def test_an_interrupted_run_saves_its_step_and_resumes_to_the_same_losses(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    cfg = toy_cfg(whole)
    train(cfg, make_toy(cfg), resume=False, make_loader=toy_loader)
    cfg = toy_cfg(cut)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(TrainingInterrupted):
        train(cfg, make_toy(cfg), resume=False, make_loader=interrupting([7]))
    assert signal.getsignal(signal.SIGINT) is before
    assert (cut / "last_checkpoint").read_text() == "model_0000007.pth"
    assert not (cut / "model_final.safetensors").exists()
    train(cfg, make_toy(cfg), resume=True, make_loader=toy_loader)
    assert losses(cut) == losses(whole)


def test_an_interrupted_evaluation_keeps_the_steps_before_it(tmp_path):
    cfg = toy_cfg(tmp_path, "TEST.EVAL_PERIOD", 3)

    def evaluate(cfg, model, weights):
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("still evaluating")

    with pytest.raises(TrainingInterrupted):
        train(cfg, make_toy(cfg), resume=False, make_loader=toy_loader, evaluate=evaluate)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000002.pth"


def test_after_an_interruption_the_process_ends_with_130_and_no_traceback(tmp_path):
    done = run_python(*TOY, TOY_OUTPUT=str(tmp_path), INTERRUPT_AT="6")
    assert done.returncode == 130 and "Traceback" not in done.stderr
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000006.pth"


def test_two_processes_stop_together_when_one_is_interrupted(tmp_path):
    opts = ("--num-gpus", "2", "--dist-url", "auto")
    done = run_python(*TOY[:2], *opts, TOY_OUTPUT=str(tmp_path), INTERRUPT_AT="6", timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000006.pth"
