from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from ovseg.config import get_default_cfg
from ovseg.training.muon import Muon, MuonAdamW, orthogonalise
from ovseg.training.optimizer import (
    build_gradient_clipper,
    build_lr_scheduler,
    build_optimizer,
    parameter_groups,
)


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.ones(3))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict(
            {"conv": nn.Conv2d(1, 2, 1), "norm": nn.GroupNorm(1, 2), "attn": Table()}
        )
        self.query = nn.Embedding(2, 3)
        self.head = nn.Linear(3, 3)
        self.non_object_embedding = nn.Parameter(torch.ones(1, 3))
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.shared = self.head


def solver_cfg(*opts):
    cfg = get_default_cfg()
    cfg.merge_from_list(list(opts))
    return cfg


def test_one_group_per_distinct_rate_and_decay_with_the_rules_per_parameter():
    cfg = solver_cfg("SOLVER.BASE_LR", 0.1, "SOLVER.WEIGHT_DECAY", 0.01)
    groups = build_optimizer(cfg, Net()).param_groups
    found = {(g["lr"], g["weight_decay"]): set(g["names"]) for g in groups}
    assert len(found) == len(groups) == 4
    slow = 0.1 * 0.1
    assert found[slow, 0.01] == {"backbone.conv.weight", "backbone.conv.bias"}
    assert found[slow, 0.0] == {
        "backbone.norm.weight",
        "backbone.norm.bias",
        "backbone.attn.relative_position_bias_table",
    }
    assert found[0.1, 0.01] == {"head.weight", "head.bias", "non_object_embedding"}
    assert found[0.1, 0.0] == {"query.weight"}


def test_biases_and_scalars_have_a_decay_of_their_own_where_one_is_set():
    net = Net()
    net.scale = nn.Parameter(torch.tensor(1.0))
    opts = ("SOLVER.BACKBONE_MULTIPLIER", 1.0, "SOLVER.WEIGHT_DECAY", 0.01)
    opts = (*opts, "SOLVER.WEIGHT_DECAY_BIAS", 0.5, "SOLVER.WEIGHT_DECAY_NORM", 0.1)
    groups = build_optimizer(solver_cfg(*opts), net).param_groups
    found = {g["weight_decay"]: set(g["names"]) for g in groups}
    assert found[0.5] == {"scale", "backbone.conv.bias", "head.bias"}
    assert found[0.1] == {"backbone.norm.weight", "backbone.norm.bias"}


def test_adamws_constants_can_be_set():
    opts = ("SOLVER.ADAM_BETAS", [0.9, 0.98], "SOLVER.ADAM_EPS", 1e-6)
    optimizer = build_optimizer(solver_cfg(*opts), Net())
    assert optimizer.defaults["betas"] == (0.9, 0.98) and optimizer.defaults["eps"] == 1e-6


def test_adamw_has_the_usual_constants_and_an_unknown_optimizer_is_refused():
    optimizer = build_optimizer(solver_cfg(), Net())
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.999) and optimizer.defaults["eps"] == 1e-8
    with pytest.raises(ValueError, match=r"OPTIMIZER.*'ADAMW', 'SGD' or 'MUON'.*'LION'"):
        build_optimizer(solver_cfg("SOLVER.OPTIMIZER", "LION"), Net())


def test_muon_steps_maps_between_features_and_adamw_tables_vectors_and_convolutions():
    optimizer = build_optimizer(
        solver_cfg("SOLVER.OPTIMIZER", "MUON", "SOLVER.MUON_MULTIPLIER", 3.0), Net()
    )
    muon, adamw = optimizer.parts
    assert [group["names"] for group in muon.param_groups] == [["head.weight"]]
    assert muon.param_groups[0]["lr"] == pytest.approx(3 * solver_cfg().SOLVER.BASE_LR)
    rest = {name for group in adamw.param_groups for name in group["names"]}
    assert {"query.weight", "non_object_embedding", "head.bias"} <= rest
    assert "backbone.attn.relative_position_bias_table" in rest and "head.weight" not in rest


@pytest.mark.parametrize("shape", [(6, 6), (4, 50), (50, 4)])
def test_orthogonalising_keeps_directions_and_evens_out_their_sizes(shape):
    torch.manual_seed(0)
    matrices = torch.randn(2, *shape)
    left, sizes, right = torch.linalg.svd(matrices, full_matrices=False)
    found = left.mT @ orthogonalise(matrices) @ right.mT
    diagonal = found.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(found, torch.diag_embed(diagonal), rtol=0, atol=1e-3)
    large = sizes > 0.05 * sizes.amax(1, keepdim=True)
    assert bool(((diagonal > 0.6) & (diagonal < 1.3))[large].all())


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon from 2.9 on")
def test_muon_steps_as_torchs_does_but_for_bfloat16():
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 20), (20, 8), (8, 20), (7, 7))]
    torchs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    settings = {"lr": 0.1, "weight_decay": 0.3}
    steps = (
        Muon([{"params": ours, **settings}]),
        torch.optim.Muon([{"params": torchs, **settings}], adjust_lr_fn="match_rms_adamw"),
    )
    for _ in range(3):
        for one, other in zip(ours, torchs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        for optimizer in steps:
            optimizer.step()
    size = 0.1 * 0.2 * 20**0.5  # of a step along one direction
    torch.testing.assert_close(ours, torchs, rtol=0, atol=0.05 * size)


def test_muon_takes_a_convolution_as_the_matrix_of_its_outputs():
    torch.manual_seed(0)
    convolution = nn.Parameter(torch.randn(4, 3, 2, 2))
    matrix = nn.Parameter(convolution.detach().flatten(1).clone())
    convolution.grad = torch.randn(4, 3, 2, 2)
    matrix.grad = convolution.grad.flatten(1)
    for parameter in (convolution, matrix):
        Muon([{"params": [parameter], "lr": 0.1, "weight_decay": 0.0}]).step()
    torch.testing.assert_close(convolution.flatten(1), matrix, rtol=0, atol=1e-6)


def test_convolutions_are_muons_where_they_are_asked_for_but_not_depthwise_ones():
    net = nn.Sequential(nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=4))
    opts = ("SOLVER.OPTIMIZER", "MUON", "SOLVER.MUON_CONVOLUTIONS", True)
    muon, adamw = build_optimizer(solver_cfg(*opts), net).parts
    assert [group["names"] for group in muon.param_groups] == [["0.weight"]]
    rest = {name for group in adamw.param_groups for name in group["names"]}
    assert rest == {"0.bias", "1.weight", "1.bias"}


def test_muon_and_adamw_share_a_schedule_and_continue_from_their_state():
    torch.manual_seed(0)
    weight, bias = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(4))

    def make(parameters):
        return MuonAdamW(
            matrices=[{"params": parameters[:1], "lr": 0.1, "weight_decay": 0.0}],
            others=[{"params": parameters[1:], "lr": 0.2, "weight_decay": 0.0}],
        )

    optimizer = make([weight, bias])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)

    def step(parameters, optimizer):
        for index, parameter in enumerate(parameters):
            parameter.grad = torch.full_like(parameter, index + 1.0) + parameter.detach()
        optimizer.step()

    step([weight, bias], optimizer)
    schedule.step()
    assert [group["lr"] for part in optimizer.parts for group in part.param_groups] == [0.05, 0.1]
    copies = [nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())]
    other = make(copies)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert other.param_groups[0] is other.parts[0].param_groups[0]
    step([weight, bias], optimizer)
    step(copies, other)
    torch.testing.assert_close(copies, [weight, bias], rtol=0, atol=0)


def test_a_model_with_rules_of_its_own_gives_the_groups():
    model = nn.Linear(3, 2)
    model.optimizer_groups = lambda: [
        {"params": [model.weight], "names": ["weight"], "lr": 0.5, "weight_decay": 0.25}
    ]
    cfg = solver_cfg("SOLVER.ADAM_BETAS", [0.9, 0.98], "SOLVER.ADAM_EPS", 1e-6)
    [group] = build_optimizer(cfg, model).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.25)
    assert (group["betas"], group["eps"]) == ((0.9, 0.98), 1e-6)


def test_warming_up_over_a_share_is_followed_by_a_whole_cosine():
    cfg = solver_cfg(
        *("SOLVER.LR_SCHEDULER_NAME", "WarmupShareCosineLR", "SOLVER.WARMUP_SHARE", 0.2),
        *("SOLVER.MAX_ITER", 10, "SOLVER.BASE_LR", 1.0),
    )
    found = rates(cfg, 12)
    assert found[:2] == pytest.approx([0.5, 1.0])
    assert found[5] == pytest.approx(0.5)  # in the middle of what is left
    assert found[9:] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)


def test_a_frozen_model_cannot_be_trained():
    with pytest.raises(ValueError, match="no trainable parameter"):
        parameter_groups(nn.Linear(1, 1).requires_grad_(False), lr=1.0, weight_decay=0.0)


def rates(cfg, iterations):
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    seen = []
    for _ in range(iterations):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return seen


WARM, LAST, POWER, GAMMA, STEPS, END = 23, 211, 0.9, 0.3, (60, 61, 150), 0.01
DECAYS = {
    "WarmupPolyLR": lambda i: (1 - i / LAST) ** POWER,
    "WarmupMultiStepLR": lambda i: GAMMA ** sum(step <= i for step in STEPS),
    "WarmupCosineLR": lambda i: END + (1 - END) * (1 + math.cos(math.pi * i / LAST)) / 2,
}


def schedule_cfg(name, *opts):
    return solver_cfg(
        *("SOLVER.LR_SCHEDULER_NAME", name, "SOLVER.BASE_LR", 0.5, "SOLVER.MAX_ITER", LAST),
        *("SOLVER.WARMUP_ITERS", WARM, "SOLVER.WARMUP_FACTOR", 1e-3, "SOLVER.GAMMA", GAMMA),
        # The last step lies beyond the run, where it has no effect.
        *("SOLVER.STEPS", (*STEPS, LAST), "SOLVER.BASE_LR_END", 0.5 * END, *opts),
    )


@pytest.mark.parametrize("method", ["linear", "constant"])
@pytest.mark.parametrize("name", DECAYS)
def test_the_warm_up_multiplies_the_decay_at_every_iteration(name, method):
    def warm(i):
        if i >= WARM:
            return 1.0
        return 1e-3 if method == "constant" else 1e-3 * (1 - i / WARM) + i / WARM

    expected = [0.5 * warm(i) * DECAYS[name](i) for i in range(LAST)]
    found = rates(schedule_cfg(name, "SOLVER.WARMUP_METHOD", method), LAST)
    assert found == pytest.approx(expected, rel=1e-12)


def test_poly_schedule_ends_on_a_constant_if_asked():
    # The warm-up is longer than it takes the decay to fall below the constant.
    opts = ("SOLVER.POLY_LR_CONSTANT_ENDING", 0.3, "SOLVER.WARMUP_ITERS", 180)
    found = rates(schedule_cfg("WarmupPolyLR", *opts), LAST)
    assert found[180:] == [0.15] * (LAST - 180)
    assert found[179] == pytest.approx(
        0.5 * (1e-3 / 180 + 179 / 180) * (1 - 179 / LAST) ** 0.9, rel=1e-12
    )
    assert found[179] < 0.15
    # It is a rule of the poly schedule alone.
    stepped = rates(schedule_cfg("WarmupMultiStepLR", *opts), LAST)
    assert stepped[-1] == pytest.approx(0.5 * GAMMA**3)


def test_a_run_that_goes_on_beyond_its_last_iteration_keeps_the_last_rate():
    found = rates(schedule_cfg("WarmupCosineLR"), LAST + 3)
    assert found[LAST:] == pytest.approx([0.5 * END] * 3)
    assert rates(schedule_cfg("WarmupPolyLR"), LAST + 2)[LAST:] == [0.0, 0.0]


@pytest.mark.parametrize("name", DECAYS)
def test_a_schedule_continues_from_its_state(name):
    cfg = schedule_cfg(name)
    whole = rates(cfg, LAST)
    optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=cfg.SOLVER.BASE_LR)
    first = build_lr_scheduler(cfg, optimizer)
    for _ in range(70):
        optimizer.step()
        first.step()
    other = torch.optim.SGD([nn.Parameter(torch.ones(1))], lr=cfg.SOLVER.BASE_LR)
    second = build_lr_scheduler(cfg, other)
    other.load_state_dict(optimizer.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert other.param_groups[0]["lr"] == whole[70]
    other.step()
    second.step()
    assert other.param_groups[0]["lr"] == whole[71]


def test_unknown_schedule_is_refused_with_the_valid_names():
    with pytest.raises(ValueError, match=r"WarmupPolyLR.*'Cyclic'"):
        rates(solver_cfg("SOLVER.LR_SCHEDULER_NAME", "Cyclic"), 1)
    with pytest.raises(ValueError, match=r"WARMUP_METHOD.*'linear' or 'constant'.*'burnin'"):
        rates(solver_cfg("SOLVER.WARMUP_METHOD", "burnin"), 1)


def clipped(*opts):
    first, second = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))
    first.grad, second.grad = torch.tensor([3.0, 0.0]), torch.tensor([-4.0])
    clip = build_gradient_clipper(solver_cfg("SOLVER.CLIP_GRADIENTS.ENABLED", True, *opts))
    clip(p for p in (first, second))
    return first.grad.tolist(), second.grad.tolist()


def test_full_model_clipping_scales_all_gradients_by_one_factor():
    kind = ("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", "full_model")
    # NORM_TYPE is ignored: the norm is L2, 5 here, whatever it says.
    first, second = clipped(
        *kind, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 1.0, "SOLVER.CLIP_GRADIENTS.NORM_TYPE", 1.0
    )
    assert first == pytest.approx([0.6, 0.0], abs=1e-5)
    assert second == pytest.approx([-0.8], abs=1e-5)
    first, second = clipped(*kind, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 10.0)
    assert (first, second) == ([3.0, 0.0], [-4.0])


def test_clipping_per_parameter_by_norm_and_by_value():
    limit = ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 2.0, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE")
    first, second = clipped(*limit, "norm")
    assert first == pytest.approx([2.0, 0.0], abs=1e-5)
    assert second == pytest.approx([-2.0], abs=1e-5)
    assert clipped(*limit, "value") == ([2.0, 0.0], [-2.0])
    with pytest.raises(ValueError, match=r"CLIP_TYPE.*full_model.*'all'"):
        clipped(*limit, "all")


def test_clipping_is_off_by_default():
    assert build_gradient_clipper(solver_cfg()) is None
