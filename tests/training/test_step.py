from __future__ import annotations

import copy

import pytest
import torch

from ovseg.training.optimizer import build_gradient_clipper, build_lr_scheduler, build_optimizer
from ovseg.training.step import NonFiniteLossError, TrainingStep, autocast_dtype, split_batch
from tests.training.toy import make_toy, toy_batch, toy_cfg


def step_of(cfg, model, **kwargs):
    optimizer = build_optimizer(cfg, model)
    return TrainingStep(
        model=model, optimizer=optimizer, scheduler=build_lr_scheduler(cfg, optimizer), **kwargs
    )


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def test_accumulated_gradients_equal_those_of_the_whole_batch(tmp_path):
    cfg = toy_cfg(tmp_path)
    whole = make_toy(cfg, dropout=0.0).double()
    parts = copy.deepcopy(whole)
    batch = [{**item, "row": item["row"].double()} for item in toy_batch(cfg, 0)]
    # Two of the first four images are not marked, one of the last four: divisors differ.
    batch[0]["marked"] = False
    losses = step_of(cfg, whole)(batch, iteration=0)
    cut = step_of(cfg, parts, accumulation=2)(batch, iteration=0)
    assert cut == pytest.approx(losses, rel=1e-12)
    for name, gradient in gradients(whole).items():
        torch.testing.assert_close(gradients(parts)[name], gradient, rtol=1e-12, atol=1e-12)


def test_without_weights_micro_batches_are_averaged_evenly(tmp_path):
    cfg = toy_cfg(tmp_path)
    model = make_toy(cfg, dropout=0.0, weighted=False)
    batch = toy_batch(cfg, 0)
    with torch.no_grad():
        each = [model(part) for part in split_batch(batch, 2)]
    mean = {name: float(each[0][name] + each[1][name]) / 2 for name in each[0]}
    losses = step_of(cfg, model, accumulation=2)(batch, iteration=0)
    assert losses["loss_marked"] == pytest.approx(mean["loss_marked"], rel=1e-6)
    assert losses["total_loss"] == pytest.approx(sum(mean.values()), rel=1e-6)


def test_an_indivisible_batch_is_refused():
    with pytest.raises(ValueError, match=r"3.*does not divide the 8 images"):
        split_batch(list(range(8)), 3)
    assert split_batch(list(range(4)), 2) == [[0, 1], [2, 3]]


def test_a_non_finite_loss_stops_before_any_parameter_changes(tmp_path):
    cfg = toy_cfg(tmp_path)
    model = make_toy(cfg, dropout=0.0)
    before = copy.deepcopy(model.state_dict())
    batch = toy_batch(cfg, 0)
    batch[0]["marked"] = float("inf")
    with pytest.raises(NonFiniteLossError, match=r"iteration 41: .*got loss_marked = (nan|inf)"):
        step_of(cfg, model)(batch, iteration=41)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_non_finite_step_is_skipped_if_asked_and_the_schedule_goes_on(tmp_path, caplog):
    cfg = toy_cfg(tmp_path)
    model = make_toy(cfg, dropout=0.0)
    step = step_of(cfg, model, skip_non_finite=True)
    before, rate = copy.deepcopy(model.state_dict()), step.scheduler.get_last_lr()
    batch = toy_batch(cfg, 0)
    batch[0]["marked"] = float("inf")
    step(batch, iteration=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert step.scheduler.get_last_lr() != rate and "step skipped" in caplog.text
    step(toy_batch(cfg, 1), iteration=1)
    assert not torch.equal(model.head.weight, before["head.weight"])


def test_a_model_is_told_after_each_step_so_that_it_can_keep_bounds(tmp_path):
    cfg = toy_cfg(tmp_path)
    model = make_toy(cfg, dropout=0.0)
    model.after_step = lambda: model.head.bias.data.fill_(0.25)
    step_of(cfg, model)(toy_batch(cfg, 0), iteration=0)
    assert model.head.bias.item() == 0.25


def test_an_error_of_the_model_about_diverging_names_the_iteration(tmp_path):
    cfg = toy_cfg(tmp_path)
    model = make_toy(cfg)

    def diverge(batch):
        raise FloatingPointError("the matching cost is not finite")

    model.divisor = diverge
    with pytest.raises(NonFiniteLossError, match="iteration 7: the matching cost is not finite"):
        step_of(cfg, model)(toy_batch(cfg, 0), iteration=7)


def test_a_non_finite_gradient_stops_a_step_whose_losses_are_finite(tmp_path):
    kind = ("SOLVER.CLIP_GRADIENTS.ENABLED", True, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    cfg = toy_cfg(tmp_path, *kind)
    model = make_toy(cfg)
    model.head.bias.register_hook(lambda gradient: gradient * float("inf"))
    clip = build_gradient_clipper(cfg)
    with pytest.raises(NonFiniteLossError, match=r"iteration 3: .*gradient is inf"):
        step_of(cfg, model, clip=clip)(toy_batch(cfg, 0), iteration=3)
    healthy = step_of(cfg, make_toy(cfg), clip=clip)(toy_batch(cfg, 0), iteration=0)
    assert 0 < healthy["grad_norm"] < 1e3


def test_frozen_parameters_stay_and_clipping_acts_on_the_summed_gradient(tmp_path):
    cfg = toy_cfg(tmp_path)
    model = make_toy(cfg)
    frozen = model.frozen.weight.clone()
    seen = []

    def clip(parameters):
        seen.append(sum(1 for _ in parameters))

    step_of(cfg, model, clip=clip, accumulation=4)(toy_batch(cfg, 0), iteration=0)
    assert seen == [6]
    assert torch.equal(model.frozen.weight, frozen) and model.frozen.weight.grad is None


@pytest.mark.parametrize("name", ["float16", "bfloat16"])
def test_mixed_precision_steps_close_to_full_precision(tmp_path, name):
    cfg = toy_cfg(tmp_path, "SOLVER.AMP.ENABLED", True, "SOLVER.AMP.DTYPE", name)
    full = make_toy(cfg, dropout=0.0)
    mixed = copy.deepcopy(full)
    step = step_of(cfg, mixed, amp_dtype=autocast_dtype(cfg))
    assert step.scaler.is_enabled() == (name == "float16")
    exact = step_of(cfg, full)(toy_batch(cfg, 0), iteration=0)
    rough = step(toy_batch(cfg, 0), iteration=0)
    assert rough["total_loss"] != exact["total_loss"]
    assert rough["total_loss"] == pytest.approx(exact["total_loss"], rel=0.03)
    moved = mixed.head.weight.detach() - full.head.weight.detach()
    assert float(moved.abs().max()) < 0.05
    assert mixed.head.weight.dtype == torch.float32


def test_amp_is_off_by_default_and_an_unknown_dtype_is_refused(tmp_path):
    assert autocast_dtype(toy_cfg(tmp_path)) is None
    with pytest.raises(ValueError, match=r"AMP.DTYPE.*bfloat16.*'float8'"):
        autocast_dtype(toy_cfg(tmp_path, "SOLVER.AMP.DTYPE", "float8"))
