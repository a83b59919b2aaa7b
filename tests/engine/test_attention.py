from __future__ import annotations

import pytest
import torch
from torch.nn.attention import SDPBackend
from torch.nn.attention import _cur_sdpa_kernel_backends as backends_in_use

from ovseg.engine.attention import attention_for_training


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
    before = backends_in_use()
    with (
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
        attention_for_training(torch.device(device), recomputed=recomputed),
    ):
        inside = backends_in_use()
    assert (inside == [SDPBackend.MATH]) is plain
    assert backends_in_use() == before
