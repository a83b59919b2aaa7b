"""Muon for matrices and AdamW for all else, as one optimizer."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["MuonAdamW"]


class MuonAdamW(torch.optim.Optimizer):
    """Two optimizers behind one interface: Muon steps the matrices, AdamW everything else.

    Muon's update is scaled to the size of AdamW's, so that both can share a schedule (Liu et al.
    2025, "Muon is scalable for LLM training", section 2.2).

    Args:
        matrices: parameter groups whose parameters are all 2-D, each with `lr` and `weight_decay`.
        others: parameter groups for AdamW, likewise.
        betas: of AdamW.
        eps: of AdamW.

    Raises:
        RuntimeError: if torch is older than 2.9, the first release with Muon.
    """

    def __init__(
        self,
        *,
        matrices: list[dict[str, Any]],
        others: list[dict[str, Any]],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise RuntimeError(
                f"Muon: expected torch 2.9 or newer, got {torch.__version__}; upgrade torch or "
                "train with SOLVER.OPTIMIZER ADAMW"
            )
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, adjust_lr_fn="match_rms_adamw"))
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
