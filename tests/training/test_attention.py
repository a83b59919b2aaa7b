from __future__ import annotations

import pytest
import torch
from torch.backends.cuda import flash_sdp_enabled, math_sdp_enabled  # of all devices

from ovseg.training.attention import attention_for_training


@pytest.mark.parametrize(
    ("device", "bf16", "recomputed", "plain"),
    [
        ("cpu", True, False, True),
        ("cpu", False, False, False),
        ("cpu", True, True, False),
        ("cuda", True, False, False),
    ],
)
def test_plain_attention_is_for_bfloat16_steps_on_a_cpu(device, bf16, recomputed, plain):
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        attention_for_training(torch.device(device), recomputed=recomputed),
    ):
        assert math_sdp_enabled()
        assert flash_sdp_enabled() is not plain
    assert flash_sdp_enabled()
