"""Muon for matrices and AdamW for all else, as one optimizer.

Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024), and Liu et
al., "Muon is scalable for LLM training" (2025), section 2.2, for the size of an update.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "MuonAdamW", "orthogonalise"]

# Of the quintic x -> a x + b x^3 + c x^5, whose iteration drives singular values towards 1.
_QUINTIC = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def orthogonalise(matrices: Tensor) -> Tensor:
    """Drives the singular values of matrices to between about 0.7 and 1.2.

    Every step of the iteration multiplies a matrix by a polynomial of its Gram matrix. These
    commute, so they are multiplied with one another first: a convolution's matrix is nine times as
    wide as its Gram matrix and would cost that much more.

    Args:
        matrices: (N, rows, columns).

    Returns:
        (N, rows, columns) float32.
    """
    a, b, c = _QUINTIC
    x = matrices.float()
    x = x.mT if x.shape[1] > x.shape[2] else x
    x = x / x.flatten(1).norm(dim=1).clamp(min=1e-7)[:, None, None]
    gram = x @ x.mT  # (N, r, r), r the shorter side
    identity = torch.eye(gram.shape[1], device=x.device)
    product = identity
    for _ in range(_ITERATIONS):
        factor = a * identity + torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        product = factor @ product
        gram = factor @ gram @ factor
    x = product @ x
    return x.mT if matrices.shape[1] > matrices.shape[2] else x


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum, which is Nesterov's.

    An update has the size of AdamW's. A convolution (out, in, h, w) counts as the matrix (out, in *
    h * w). `torch.optim.Muon` computes in bfloat16, one matrix after the other, and takes no
    convolution: on a CPU without bfloat16 it took half of a training step.

    Args:
        params: parameter groups, each with `lr` and `weight_decay`; tensors of 2 or 4 dimensions.
        momentum: share of the running mean that stays.
    """

    def __init__(self, params: list[dict[str, Any]], *, momentum: float = 0.95) -> None:
        super().__init__(params, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take a step; gradients are computed before."""
        for group in self.param_groups:
            same_shape: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    same_shape[parameter.flatten(1).shape].append(parameter)
            for shape, parameters in same_shape.items():
                updates = torch.stack([self._momentum(p, group["momentum"]) for p in parameters])
                step = group["lr"] * 0.2 * max(shape) ** 0.5
                for parameter, update in zip(parameters, orthogonalise(updates), strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(update.view_as(parameter), alpha=step)

    def _momentum(self, parameter: Tensor, momentum: float) -> Tensor:
        """Updates a parameter's running mean; returns what to step along, as a matrix."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        mean = state["momentum_buffer"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum).flatten(1)


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers behind one interface: Muon steps the matrices, AdamW everything else.

    Muon's update is scaled to the size of AdamW's, so that both can share a schedule.

    Args:
        matrices: parameter groups for Muon, each with `lr` and `weight_decay`.
        others: parameter groups for AdamW, likewise.
        betas: of AdamW.
        eps: of AdamW.
    """

    def __init__(
        self,
        *,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(Muon(matrices))
        if others:
            self.parts.append(torch.optim.AdamW(others, betas=betas, eps=eps))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        # These are the parts' own groups: a scheduler that sets a rate here sets it there.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Step both parts; gradients are computed before, a closure is not taken."""
        if closure is not None:
            raise ValueError("MuonAdamW.step: expected no closure; compute the gradients before")
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of both parts, and the groups of both in one list."""
        states = [part.state_dict() for part in self.parts]
        return {
            "parts": states,
            "param_groups": [group for state in states for group in state["param_groups"]],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()
