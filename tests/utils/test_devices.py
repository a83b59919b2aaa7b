from __future__ import annotations

import pytest
import torch

from ovseg.utils.devices import pick_device


def test_names_and_devices_of_torch_are_taken():
    assert pick_device("cpu") == pick_device(torch.device("cpu")) == "cpu"


def test_nothing_falls_back_to_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device() == "cpu"
    for wanted in ("cuda", "cuda:1", torch.device("cuda", 0)):
        with pytest.raises(ValueError, match=r"'cuda.*was asked for, but torch sees no GPU"):
            pick_device(wanted)


def test_gpus_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [pick_device(name) for name in (None, "cuda", "cuda:1")] == ["cuda", "cuda", "cuda:1"]
    with pytest.raises(ValueError, match=r"sees 2 GPU\(s\); use 'cuda:0' to 'cuda:1'"):
        pick_device("cuda:2")


def test_apples_gpu_is_taken_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("mps") == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'mps' was asked for, but torch has no access"):
        pick_device("mps")


@pytest.mark.parametrize("wanted", ["gpu", "", 1.5])
def test_what_is_no_device_is_refused(wanted):
    with pytest.raises(ValueError, match="expected 'cpu', 'cuda', 'cuda:N' or 'mps', got"):
        pick_device(wanted)
