"""Optimizer, gradient clipping and learning rate schedules.

The rules per parameter are MaskFormer's (Cheng et al. 2021, section 4.1) as OVSeg trains with them;
the poly schedule is DeepLab's (Chen et al. 2017, section 4.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from fvcore.common.param_scheduler import (
    ConstantParamScheduler,
    CosineParamScheduler,
    LinearParamScheduler,
    MultiStepParamScheduler,
    ParamScheduler,
    PolynomialDecayParamScheduler,
)
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from ovseg.d2.config import CfgNode
from ovseg.training.muon import MuonAdamW

__all__ = [
    "build_gradient_clipper",
    "build_lr_scheduler",
    "build_optimizer",
    "parameter_groups",
    "split_matrices",
    "warmup_share_cosine",
]

NORM_TYPES = (
    nn.modules.batchnorm._BatchNorm,  # all batch norms, SyncBatchNorm too
    nn.GroupNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)
# Clips the gradients of parameters in place; returns their joint norm if it knows it.
GradientClipper = Callable[[Iterable[Tensor]], Tensor | None]
UNDECAYED_NAMES = ("relative_position_bias_table", "absolute_pos_embed")
TABLE_NAMES = ("relative_position_bias_table", "non_object_embedding")  # 2-D, one row per entry


def parameter_groups(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    backbone_multiplier: float = 1.0,
    weight_decay_norm: float = 0.0,
    weight_decay_embed: float = 0.0,
    weight_decay_bias: float | None = None,
) -> list[dict[str, object]]:
    """Collect the trainable parameters into one group per distinct (lr, weight decay).

    Args:
        model: any module; a parameter shared by several modules is taken where it is met first.
        lr: base learning rate.
        weight_decay: for everything that no rule below names.
        backbone_multiplier: factor on `lr` for modules with "backbone" in their name.
        weight_decay_norm: for the parameters of normalisation layers.
        weight_decay_embed: for `nn.Embedding`.
        weight_decay_bias: for other biases and for scalars such as a temperature; None takes
            `weight_decay`.

    Returns:
        Groups with the keys params, names, lr, weight_decay, in the model's order.

    Raises:
        ValueError: if no parameter requires a gradient.
    """
    groups: dict[tuple[float, float], dict[str, list]] = {}
    seen: set[Tensor] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            decay = weight_decay
            if name in UNDECAYED_NAMES:
                decay = 0.0
            elif isinstance(module, NORM_TYPES):
                decay = weight_decay_norm
            elif isinstance(module, nn.Embedding):
                decay = weight_decay_embed
            elif weight_decay_bias is not None and ("bias" in name or parameter.ndim == 0):
                decay = weight_decay_bias
            rate = lr * backbone_multiplier if "backbone" in module_name else lr
            group = groups.setdefault((rate, decay), {"params": [], "names": []})
            group["params"].append(parameter)
            group["names"].append(f"{module_name}.{name}" if module_name else name)
    if not groups:
        raise ValueError("the model has no trainable parameter; unfreeze at least one to train it")
    return [{**group, "lr": rate, "weight_decay": decay} for (rate, decay), group in groups.items()]


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Make the optimizer that `cfg.SOLVER` describes.

    Args:
        cfg: the full config.
        model: its trainable parameters are optimised. A model with rules of its own has
            `optimizer_groups()`, which returns what `parameter_groups` does.

    Raises:
        ValueError: for an unknown `SOLVER.OPTIMIZER`.
    """
    solver = cfg.SOLVER
    own = getattr(model, "optimizer_groups", None)
    groups = _groups_of_config(solver, model) if own is None else own()
    if solver.OPTIMIZER == "ADAMW":
        betas = (float(solver.ADAM_BETAS[0]), float(solver.ADAM_BETAS[1]))
        return torch.optim.AdamW(groups, lr=solver.BASE_LR, betas=betas, eps=solver.ADAM_EPS)
    if solver.OPTIMIZER == "SGD":
        return torch.optim.SGD(
            groups, lr=solver.BASE_LR, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV
        )
    if solver.OPTIMIZER == "MUON":
        matrices, others = split_matrices(
            model,
            groups,
            multiplier=solver.MUON_MULTIPLIER,
            convolutions=solver.MUON_CONVOLUTIONS,
        )
        return MuonAdamW(matrices=matrices, others=others)
    raise ValueError(
        f"SOLVER.OPTIMIZER: expected 'ADAMW', 'SGD' or 'MUON', got {solver.OPTIMIZER!r}"
    )


def _groups_of_config(solver: CfgNode, model: nn.Module) -> list[dict[str, object]]:
    return parameter_groups(
        model,
        lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        backbone_multiplier=solver.BACKBONE_MULTIPLIER,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_embed=solver.WEIGHT_DECAY_EMBED,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )


def split_matrices(
    model: nn.Module,
    groups: Iterable[Mapping[str, Any]],
    *,
    multiplier: float,
    convolutions: bool = False,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Split parameter groups into what Muon steps and what AdamW steps.

    Args:
        model: owns the parameters.
        groups: with the keys params, names, lr, weight_decay.
        multiplier: factor on the learning rate of Muon's share.
        convolutions: whether Muon steps convolutions, too, but for depthwise ones.

    Returns:
        Groups of weights that map features to features, and groups of all the rest: vectors,
        convolutions unless they are asked for, and tables of embeddings, whose rows are not
        directions of a map.
    """
    embeddings = [m for m in model.modules() if isinstance(m, nn.Embedding)]
    tables = {id(p) for module in embeddings for p in module.parameters()}
    matrices: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for group in groups:
        pairs = list(zip(group["names"], group["params"], strict=True))
        is_map = [
            (p.ndim == 2 or (convolutions and p.ndim == 4 and p.shape[1] > 1))
            and id(p) not in tables
            and n.rsplit(".", 1)[-1] not in TABLE_NAMES
            for n, p in pairs
        ]
        for chosen, factor, target in ((True, multiplier, matrices), (False, 1.0, others)):
            kept = [pair for pair, found in zip(pairs, is_map, strict=True) if found is chosen]
            if kept:
                names, parameters = zip(*kept, strict=True)
                part = {"params": list(parameters), "names": list(names)}
                target.append({**group, **part, "lr": group["lr"] * factor})
    return matrices, others


def build_gradient_clipper(cfg: CfgNode) -> GradientClipper | None:
    """Make the function that clips gradients in place, or None where clipping is off.

    `full_model` scales all gradients by one factor so that their joint L2 norm is at most
    CLIP_VALUE, and returns that norm; `norm` and `value` act on each parameter alone, as in
    Detectron2.

    Raises:
        ValueError: for an unknown `SOLVER.CLIP_GRADIENTS.CLIP_TYPE`.
    """
    clip = cfg.SOLVER.CLIP_GRADIENTS
    if not clip.ENABLED or clip.CLIP_VALUE <= 0:
        return None
    limit, norm_type = float(clip.CLIP_VALUE), float(clip.NORM_TYPE)

    def clip_full_model(parameters: Iterable[Tensor]) -> Tensor:
        return nn.utils.clip_grad_norm_(list(parameters), limit)

    def clip_each_norm(parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            nn.utils.clip_grad_norm_(parameter, limit, norm_type)

    def clip_each_value(parameters: Iterable[Tensor]) -> None:
        nn.utils.clip_grad_value_(parameters, limit)

    kinds: dict[str, GradientClipper] = {
        "full_model": clip_full_model,
        "norm": clip_each_norm,
        "value": clip_each_value,
    }
    if clip.CLIP_TYPE not in kinds:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE: expected one of {sorted(kinds)}, "
            f"got {clip.CLIP_TYPE!r}"
        )
    return kinds[clip.CLIP_TYPE]


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LambdaLR:
    """Make the schedule that `SOLVER.LR_SCHEDULER_NAME` names; step it once per iteration.

    While training warms up, the factor of the warm-up multiplies that of the decay, which runs over
    all iterations; POLY_LR_CONSTANT_ENDING bounds the poly decay from below afterwards.
    WarmupShareCosineLR has the warm-up first and the whole cosine after it, see
    `warmup_share_cosine`.

    Args:
        cfg: the full config.
        optimizer: its learning rates are scaled.

    Raises:
        ValueError: for an unknown schedule or warm-up method; for a step at 0 or one given twice.
    """
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME == "WarmupShareCosineLR":
        return LambdaLR(
            optimizer,
            lambda step: warmup_share_cosine(
                step, steps=solver.MAX_ITER, share=solver.WARMUP_SHARE
            ),
        )
    warmup, decay = _warmup(solver), _decay(solver)
    poly = solver.LR_SCHEDULER_NAME == "WarmupPolyLR"
    ending = solver.POLY_LR_CONSTANT_ENDING if poly else 0.0

    def multiplier(iteration: int) -> float:
        # The last call comes after the last step, or far after it where MAX_ITER was lowered.
        factor = decay(min(iteration / solver.MAX_ITER, 1.0))
        if iteration < solver.WARMUP_ITERS:
            return warmup(iteration / solver.WARMUP_ITERS) * factor
        return max(factor, ending)

    return LambdaLR(optimizer, multiplier)


def warmup_share_cosine(step: int, *, steps: int, share: float) -> float:
    """Factor on the learning rate: linear over a share of the run, then half a cosine to 0.

    Args:
        step: from 0. The first one has the rate of the end of its own step, not 0; the last one 0.
        steps: of the run.
        share: of the run that warms up, in [0, 1).

    Returns:
        The factor, in [0, 1].
    """
    progress = min((step + 1) / steps, 1.0)
    if progress < share:
        return progress / share
    return 0.5 * (1 + math.cos(math.pi * (progress - share) / (1 - share)))


def _warmup(solver: CfgNode) -> ParamScheduler:
    if solver.WARMUP_METHOD == "linear":
        return LinearParamScheduler(solver.WARMUP_FACTOR, 1.0)
    if solver.WARMUP_METHOD == "constant":
        return ConstantParamScheduler(solver.WARMUP_FACTOR)
    raise ValueError(
        f"SOLVER.WARMUP_METHOD: expected 'linear' or 'constant', got {solver.WARMUP_METHOD!r}"
    )


def _decay(solver: CfgNode) -> ParamScheduler:
    name = solver.LR_SCHEDULER_NAME
    if name == "WarmupPolyLR":
        return PolynomialDecayParamScheduler(1.0, solver.POLY_LR_POWER)
    if name == "WarmupCosineLR":
        return CosineParamScheduler(1.0, solver.BASE_LR_END / solver.BASE_LR)
    if name == "WarmupMultiStepLR":
        steps = sorted(step for step in solver.STEPS if step < solver.MAX_ITER)
        factors = [solver.GAMMA**taken for taken in range(len(steps) + 1)]
        return MultiStepParamScheduler(factors, num_updates=solver.MAX_ITER, milestones=steps)
    raise ValueError(
        "SOLVER.LR_SCHEDULER_NAME: expected 'WarmupPolyLR', 'WarmupMultiStepLR', "
        f"'WarmupCosineLR' or 'WarmupShareCosineLR', got {name!r}"
    )
