from __future__ import annotations

import pytest
import torch

from ovseg.utils import memory
from tests.helpers import run_python

HOLES = """
from pathlib import Path
from ovseg.utils.memory import return_free_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
blocks = [bytearray(60_000) for _ in range(4000)]  # below the size that is mapped on its own
del blocks[: len(blocks) - 1]  # the last one keeps the heap's end
before = resident()
assert return_free_memory()
print((before - resident()) // 2**20)
"""

# oneDNN tells of every operation whether it was compiled (a miss) or kept (a hit).
SIZES = """
import sys
import torch
from torch.backends import mkldnn
from ovseg.utils.memory import bound_primitives
bound_primitives()
layer = torch.nn.Conv2d(8, 8, 3)
with mkldnn.verbose(mkldnn.VERBOSE_ON_CREATION), torch.no_grad():
    for size in [64, *range(65, 65 + int(sys.argv[1])), 64]:
        layer(torch.zeros(4, 8, size, 64))
"""


@pytest.mark.skipif(memory._trim is None, reason="the C library is not glibc")
def test_what_is_free_goes_back():
    done = run_python("-c", HOLES)
    assert done.returncode == 0, done.stderr
    assert 200 < int(done.stdout) < 260  # of 229 MiB


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "_trim", None)
    assert memory.return_free_memory() is False


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
@pytest.mark.parametrize(
    ("between", "given", "kept"), [(20, None, True), (60, None, False), (60, "1024", True)]
)
def test_compiled_operations_are_few_unless_more_are_asked_for(between, given, kept, monkeypatch):
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    given = {} if given is None else {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": given}
    done = run_python("-c", SIZES, str(between), **given)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "create:cache_" in line]
    convolutions = [line for line in lines if "cpu,convolution" in line]
    assert len(convolutions) == between + 2, done.stdout[:500]
    assert ("cache_hit" in convolutions[-1]) is kept
