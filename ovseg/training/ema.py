"""Exponential moving average of the trainable parameters (Polyak averaging)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["ExponentialMovingAverage"]


class ExponentialMovingAverage:
    """Running average of a model's trainable parameters.

    Frozen parameters and buffers are not copied: they are the same in both models. Early in
    training the decay is lowered to `(1 + t) / (10 + t)`, so that the average forgets the random
    start.

    Args:
        model: the model whose trainable parameters are followed; not a DDP wrapper.
        decay: weight of the past in each update, in [0, 1).

    Raises:
        ValueError: if the decay is outside [0, 1).
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        if not 0.0 <= decay < 1.0:
            raise ValueError(
                f"SOLVER.EMA.DECAY: expected a number in [0, 1), got {decay}; 0.9998 is usual"
            )
        self.decay = decay
        self._live = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        self.restart()

    def restart(self) -> None:
        """Begin the average anew at the parameters' present values."""
        self.updates = 0
        self._average = {
            name: parameter.detach().float().clone() for name, parameter in self._live.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters' present values; call after each step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, parameter in self._live.items():
            self._average[name].lerp_(parameter.detach().float(), 1.0 - decay)
        self.updates += 1

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Within the block the model carries the averaged parameters."""
        trained = {name: parameter.detach().clone() for name, parameter in self._live.items()}
        self._copy(self._average)
        try:
            yield
        finally:
            self._copy(trained)

    @torch.no_grad()
    def _copy(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._live.items():
            parameter.copy_(values[name])

    def state_dict(self) -> dict[str, object]:
        """Plain state: numbers, texts and tensors."""
        return {"updates": self.updates, "parameters": dict(self._average)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: if the parameter names differ.
        """
        parameters = state["parameters"]
        assert isinstance(parameters, dict) and isinstance(state["updates"], int)
        if list(parameters) != list(self._average):
            differing = sorted(set(parameters) ^ set(self._average))
            raise ValueError(
                "the checkpoint's averaged parameters are not this model's trainable parameters; "
                f"differing names: {differing}"
            )
        for name, value in parameters.items():
            self._average[name].copy_(value)
        self.updates = state["updates"]
