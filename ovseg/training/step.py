"""One optimizer step: micro-batches forward and backward, then clip, step and schedule."""

from __future__ import annotations

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LRScheduler

from ovseg.d2.config import CfgNode
from ovseg.training.distributed import mean_over_ranks
from ovseg.training.optimizer import GradientClipper

__all__ = ["NonFiniteLossError", "TrainingStep", "autocast_dtype", "split_batch"]

logger = logging.getLogger(__name__)

AUXILIARY = re.compile(r"_\d+$")  # ending of the losses of a decoder's inner layers
AMP_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class NonFiniteLossError(FloatingPointError):
    """A loss or gradient is infinite or not a number; the parameters are as before the step."""


def autocast_dtype(cfg: CfgNode) -> torch.dtype | None:
    """The dtype of automatic mixed precision, None where it is off.

    Raises:
        ValueError: for an unknown `SOLVER.AMP.DTYPE`.
    """
    amp = cfg.SOLVER.AMP
    if amp.DTYPE not in AMP_DTYPES:
        raise ValueError(
            f"SOLVER.AMP.DTYPE: expected one of {sorted(AMP_DTYPES)}, got {amp.DTYPE!r}"
        )
    return AMP_DTYPES[amp.DTYPE] if amp.ENABLED else None


def split_batch(batch: Sequence[Any], parts: int) -> list[Sequence[Any]]:
    """Cut a batch into `parts` micro-batches of equal size, in order.

    Raises:
        ValueError: if the batch does not divide.
    """
    if len(batch) % parts:
        raise ValueError(
            f"SOLVER.ACCUMULATION_STEPS is {parts}, which does not divide the {len(batch)} images "
            "that each process gets per step; SOLVER.IMS_PER_BATCH must be a multiple of "
            "processes x ACCUMULATION_STEPS"
        )
    size = len(batch) // parts
    return [batch[start : start + size] for start in range(0, len(batch), size)]


class TrainingStep:
    """Takes optimizer steps on a model that maps a batch to a dict of weighted losses.

    With `accumulation` > 1 the batch of one step is cut into micro-batches whose gradients are
    added. A loss that is a mean over images is simply averaged. OVSeg's losses divide by the number
    of masks or of weighted queries in the batch instead; a model says so with
    `micro_batch_weights(micro_batches)`, one dict (loss name -> weight) per micro-batch, and the
    gradient is then exactly that of the whole batch. A name stands for its auxiliary losses, too
    (`loss_ce` for `loss_ce_0`).

    A model that keeps parameters in bounds has `after_step()`, which is called after each step.

    Args:
        model: the module to call, a DDP wrapper or the model itself.
        optimizer: over the model's trainable parameters.
        scheduler: stepped once per call.
        clip: clips gradients in place, or None.
        accumulation: micro-batches per step.
        amp_dtype: autocast dtype or None; float16 scales the loss.
        skip_non_finite: a step with a loss or gradient that is not finite changes no parameter and
            raises nothing.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        clip: GradientClipper | None = None,
        accumulation: int = 1,
        amp_dtype: torch.dtype | None = None,
        skip_non_finite: bool = False,
    ) -> None:
        if accumulation < 1:
            raise ValueError(f"SOLVER.ACCUMULATION_STEPS: expected at least 1, got {accumulation}")
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.clip = clip
        self.accumulation = accumulation
        self.amp_dtype = amp_dtype
        self.skip_non_finite = skip_non_finite
        self.after_step = getattr(getattr(model, "module", model), "after_step", None)
        self.device_type = next(model.parameters()).device.type
        self.scaler = torch.amp.GradScaler(self.device_type, enabled=amp_dtype is torch.float16)

    def __call__(self, batch: Sequence[Any], *, iteration: int) -> dict[str, float]:
        """Take one step.

        Args:
            batch: this process's inputs of the step, as the model takes them.
            iteration: named in errors.

        Returns:
            The losses before the step, averaged over micro-batches and processes, `total_loss`,
            and `grad_norm` where clipping knows it.

        Raises:
            NonFiniteLossError: on every process, before any parameter changes.
        """
        self.optimizer.zero_grad(set_to_none=True)
        try:
            sums = self._accumulate(split_batch(batch, self.accumulation))
        except FloatingPointError as error:
            raise NonFiniteLossError(f"iteration {iteration}: {error}") from error
        losses = mean_over_ranks(sums)
        losses["total_loss"] = sum(losses.values())
        try:
            _check_finite(losses, iteration)
            losses.update(self._clip(iteration))
        except NonFiniteLossError as error:
            if not self.skip_non_finite:
                raise
            logger.warning("step skipped, SOLVER.SKIP_NON_FINITE is set: %s", error)
        else:
            self._step()
        with warnings.catch_warnings():
            # The scaler skips a first step whose gradients overflow; torch takes it for a mistake.
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
            self.scheduler.step()
        return losses

    def _step(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.after_step is not None:
            self.after_step()

    def _clip(self, iteration: int) -> dict[str, float]:
        """Clip the gradients; report their norm where it is known."""
        if self.clip is None:
            return {}
        self.scaler.unscale_(self.optimizer)
        norm = self.clip(p for group in self.optimizer.param_groups for p in group["params"])
        if norm is None:
            return {}
        if math.isfinite(norm):
            return {"grad_norm": float(norm)}
        if self.scaler.is_enabled():  # it skips the step and lowers its scale
            return {}
        raise NonFiniteLossError(
            f"iteration {iteration}: the losses are finite, but the norm of the gradient is "
            f"{float(norm)}; lower SOLVER.BASE_LR or train without SOLVER.AMP. The last checkpoint "
            "is from before this step"
        )

    def _accumulate(self, micro_batches: list[Sequence[Any]]) -> dict[str, Tensor]:
        """Add up gradients and weighted losses of the micro-batches."""
        weights = self._loss_weights(micro_batches)
        sums: dict[str, Tensor] = {}
        for index, micro_batch in enumerate(micro_batches):
            last = index == len(micro_batches) - 1
            with self._synchronised(last):
                with torch.autocast(
                    self.device_type, self.amp_dtype, enabled=self.amp_dtype is not None
                ):
                    losses = self.model(micro_batch)
                even = 1.0 / len(micro_batches)
                parts = {
                    name: loss * weights[index].get(AUXILIARY.sub("", name), even)
                    for name, loss in losses.items()
                }
                self.scaler.scale(sum(parts.values())).backward()
            for name, part in parts.items():
                sums[name] = sums.get(name, 0.0) + part.detach()
        return sums

    def _loss_weights(self, micro_batches: list[Sequence[Any]]) -> list[Mapping[str, float]]:
        """Weight of each micro-batch in each loss; a loss without an entry weighs evenly."""
        owner = getattr(self.model, "module", self.model)
        weigh = getattr(owner, "micro_batch_weights", None)
        if len(micro_batches) == 1 or weigh is None:
            return [{} for _ in micro_batches]
        return weigh(micro_batches)

    def _synchronised(self, last: bool) -> contextlib.AbstractContextManager:
        """Gradients travel between processes once per step, with the last micro-batch."""
        if isinstance(self.model, DistributedDataParallel) and not last:
            return self.model.no_sync()
        return contextlib.nullcontext()


def _check_finite(losses: Mapping[str, float], iteration: int) -> None:
    wrong = {name: value for name, value in losses.items() if not math.isfinite(value)}
    if wrong:
        raise NonFiniteLossError(
            f"iteration {iteration}: expected finite losses, got "
            + ", ".join(f"{name} = {value}" for name, value in wrong.items())
            + f" (all losses: {dict(losses)}). Lower SOLVER.BASE_LR, lengthen SOLVER.WARMUP_ITERS, "
            "clip gradients, or train with SOLVER.AMP.DTYPE bfloat16 or without AMP; the last "
            "checkpoint is from before this step"
        )
