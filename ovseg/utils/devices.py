"""The device that a run is to use: what was asked for, or an error that says why not."""

from __future__ import annotations

import torch

__all__ = ["pick_device"]


def pick_device(wanted: str | torch.device | None = None) -> str:
    """Check a device, or choose one.

    Args:
        wanted: "cpu", "cuda", "cuda:1", "mps" or a `torch.device`; None for the first GPU of CUDA
            where there is one, else the CPU.

    Returns:
        The device's name as torch takes it.

    Raises:
        ValueError: torch knows no such device, or this machine has none; nothing falls back to
            another one.
    """
    if wanted is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(wanted)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device: expected 'cpu', 'cuda', 'cuda:N' or 'mps', got {wanted!r}"
        ) from error
    name = str(device)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"device: {name!r} was asked for, but torch sees no GPU; use 'cpu'")
        count = torch.cuda.device_count()
        if device.index is not None and device.index >= count:
            raise ValueError(
                f"device: {name!r} was asked for, but torch sees {count} GPU(s); "
                f"use 'cuda:0' to 'cuda:{count - 1}'"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError(
            f"device: {name!r} was asked for, but torch has no access to Apple's GPU; use 'cpu'"
        )
    return name
