from __future__ import annotations

import math
import os

import pytest
import torch

from ovseg.utils import threads
from tests.helpers import run_python


def _groups(tmp_path, own, **files):
    for name, text in files.items():
        file = tmp_path / name.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "own").write_text(own)
    return threads._quota(tmp_path, tmp_path / "own")


@pytest.mark.parametrize(("text", "cores"), [("150000 100000\n", 1.5), ("max 100000\n", math.inf)])
def test_the_quota_of_version_2_is_read(tmp_path, text, cores):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "cpu.max").write_text(text)
    assert _groups(tmp_path, "0::/job\n") == cores


def test_the_smallest_quota_on_the_way_counts(tmp_path):
    for folder, text in (("a", "100000 100000"), ("a/b", "400000 100000")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "cpu.max").write_text(text)
    assert _groups(tmp_path, "0::/a/b\n") == 1


def test_the_quota_of_version_1_is_read(tmp_path):
    files = {"cpu__cpu.cfs_quota_us": "300000\n", "cpu__cpu.cfs_period_us": "100000\n"}
    assert _groups(tmp_path, "2:cpu,cpuacct:/job\n1:memory:/x\n", **files) == 3
    files["cpu__cpu.cfs_quota_us"] = "-1\n"
    assert _groups(tmp_path, "2:cpu,cpuacct:/job\n", **files) == math.inf


def test_a_machine_without_control_groups_has_no_quota(tmp_path):
    assert threads._quota(tmp_path / "none", tmp_path / "none") == math.inf


def test_usable_cores_are_bounded_by_affinity_and_quota(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    monkeypatch.setattr(threads, "_quota", lambda root, own: math.inf)
    assert threads.usable_cores() == 6
    monkeypatch.setattr(threads, "_quota", lambda root, own: 2.5)
    assert threads.usable_cores() == 3
    monkeypatch.setattr(threads, "_quota", lambda root, own: 0.1)
    assert threads.usable_cores() == 1


def test_threads_are_reduced_and_never_raised(monkeypatch):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        monkeypatch.setattr(threads, "usable_cores", lambda: 2)
        assert threads.bound_threads() == torch.get_num_threads() == 2
        torch.set_num_threads(1)
        assert threads.bound_threads() == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("code", "given", "expected"),
    [("", None, "PASSIVE"), ("import torch", None, "None"), ("", "ACTIVE", "ACTIVE")],
)
def test_waiting_threads_yield_unless_it_is_too_late_or_said_otherwise(code, given, expected):
    script = (
        f"import os\nos.environ.pop('OMP_WAIT_POLICY', None)\n{code}\n"
        + (f"os.environ['OMP_WAIT_POLICY'] = {given!r}\n" if given else "")
        + "from ovseg.utils.threads import share_cores\nshare_cores()\n"
        "print(os.environ.get('OMP_WAIT_POLICY'))"
    )
    assert run_python("-c", script).stdout.strip() == expected
