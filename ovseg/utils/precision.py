"""What a device computes fast."""

from __future__ import annotations

import torch

__all__ = ["has_fast_bf16"]


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 in hardware; elsewhere it would be slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())
