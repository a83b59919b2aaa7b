from __future__ import annotations

import pytest

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


@pytest.mark.skipif(memory._trim is None, reason="the C library is not glibc")
def test_what_is_free_goes_back():
    done = run_python("-c", HOLES)
    assert done.returncode == 0, done.stderr
    assert 200 < int(done.stdout) < 260  # of 229 MiB


@pytest.mark.skipif(memory._info is None, reason="the C library is not glibc")
def test_what_is_held_is_counted():
    before = memory.allocated_bytes()
    small, large = [bytearray(60_000) for _ in range(100)], bytearray(50_000_000)
    held = memory.allocated_bytes()
    assert 56_000_000 <= held - before < 57_000_000
    del small, large
    assert memory.allocated_bytes() - before < 1_000_000


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(memory, "_trim", None)
    monkeypatch.setattr(memory, "_info", None)
    assert memory.allocated_bytes() is None
    assert memory.return_free_memory() is False
