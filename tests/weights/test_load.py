from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors
import torch
from torch import nn

from ovseg.weights.load import (
    WeightsError,
    load_strict,
    read_state_dict,
    require_finite,
    write_safetensors,
)
from ovseg.weights.record import load_named

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64)}


class _Attack:
    """What a malicious file would hold: unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


class _Scripted(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2))
        self.scale = nn.Parameter(torch.tensor(4.5))
        self.register_buffer("input_resolution", torch.tensor(224))
        self.tied = self.layers[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x) * self.scale


def _assert_same(got, expected):
    assert set(got) == set(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"state_dict": OrderedDict(state), "epoch": 3, "optimizer": {"lr": 1.0}},
        lambda state: {"model": {f"module.{name}": tensor for name, tensor in state.items()}},
    ],
    ids=["plain", "model", "state_dict", "ddp"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_containers_and_prefixes_are_taken_off(tmp_path, wrap, zipped):
    path = tmp_path / "weights.pth"
    torch.save(wrap(STATE), path, _use_new_zipfile_serialization=zipped)
    _assert_same(read_state_dict(path), STATE)


def test_a_prefix_that_not_all_names_have_stays(tmp_path):
    state = {"module.a": torch.ones(1), "b": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")
    assert set(read_state_dict(tmp_path / "w.pth")) == {"module.a", "b"}


def test_safetensors_are_told_by_content_not_by_name(tmp_path):
    path = tmp_path / "weights.bin"
    write_safetensors(path, STATE, {"content": "test"})
    _assert_same(read_state_dict(path), STATE)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_torchscript_is_read_without_running_it(tmp_path, monkeypatch, dtype):
    module = torch.jit.script(_Scripted().to(dtype))
    path = tmp_path / "archive.pt"
    torch.jit.save(module, str(path))
    expected = dict(module.state_dict())
    monkeypatch.setattr(torch.jit, "load", None)
    _assert_same(read_state_dict(path), expected)


@pytest.mark.parametrize("protocol", [2, 4])
def test_pickles_of_arrays_are_read_only_on_request(tmp_path, protocol):
    path = tmp_path / "R-103.pkl"
    content = {
        "model": {
            "array": np.arange(6, dtype=np.float32).reshape(2, 3),
            "strided": torch.arange(6.0).view(2, 3).t(),
            "parameter": nn.Parameter(torch.ones(2)),
        },
        "__author__": "third_party",
        "matching_heuristics": True,
    }
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(WeightsError, match=r"read only on request.*--allow-pickle"):
        read_state_dict(path)
    state = read_state_dict(path, allow_pickle=True)
    assert state["array"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert state["strided"].tolist() == [[0, 3], [1, 4], [2, 5]]
    assert state["parameter"].tolist() == [1, 1]


def test_code_in_a_file_is_never_run(tmp_path):
    made = tmp_path / "made"
    plain, saved = tmp_path / "a.pkl", tmp_path / "a.pth"
    plain.write_bytes(pickle.dumps({"model": {"a": _Attack(made)}}))
    torch.save({"a": _Attack(made)}, saved)
    with pytest.raises(WeightsError, match=r"mkdir, which is neither a tensor"):
        read_state_dict(plain, allow_pickle=True)
    with pytest.raises(WeightsError, match=r"mkdir") as error:
        read_state_dict(saved)
    assert "weights_only" not in str(error.value)  # no advice to switch the check off
    assert not made.exists()


def test_code_inside_a_tensor_of_a_pickle_is_never_run(tmp_path):
    made = tmp_path / "made"

    class Storage:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (pickle.dumps(_Attack(made), protocol=2),)

    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"a": Storage()}))
    with pytest.raises(WeightsError):
        read_state_dict(path, allow_pickle=True)
    assert not made.exists()


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_code_in_a_torchscript_archive_is_never_run(tmp_path):
    made = tmp_path / "made"
    path = tmp_path / "archive.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Attack(made)))
        archive.writestr("archive/constants.pkl", pickle.dumps(()))
    with pytest.raises(WeightsError, match="mkdir"):
        read_state_dict(path)
    assert not made.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "which is none"),
        (b"<!DOCTYPE html><html>quota exceeded</html>", "a web page saved under this name"),
        (b"PK\x03\x04 broken", "which is none"),
        (b"\x40\0\0\0\0\0\0\0{broken", "cannot be read as safetensors"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(path)


def test_a_truncated_file_is_an_error(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, STATE)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="cannot be read as safetensors"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "expected a dict of tensors in .* got list"),
        ({}, "empty state dict"),
        ({"a": torch.ones(1), "lr": 0.1}, r"1 of 2 values are not \('lr' is float\)"),
    ],
)
def test_what_is_not_a_state_dict_is_refused(tmp_path, content, message):
    path = tmp_path / "w.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=message):
        read_state_dict(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsError, match=r"absent\.pth, but there is none"):
        read_state_dict(tmp_path / "absent.pth")


def test_shared_and_strided_tensors_are_written(tmp_path):
    base = torch.arange(6.0).view(2, 3)
    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"a": base, "b": base, "rows": base[1], "t": base.t(), "s": base[0, 0]})
    state = read_state_dict(path)
    assert torch.equal(state["b"], base)
    assert torch.equal(state["rows"], base[1])
    assert torch.equal(state["t"], base.t())
    assert state["s"].shape == ()


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, STATE)
    with pytest.raises(Exception, match="meta"):
        write_safetensors(path, {"a": torch.ones(2, device="meta")})
    _assert_same(read_state_dict(path), STATE)
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_strict_loading_lists_every_problem_and_changes_nothing():
    module = nn.Linear(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    state = {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}
    with pytest.raises(WeightsError) as error:
        load_strict(module, state)
    message = str(error.value)
    assert "missing (1):\n    bias" in message
    assert "unexpected (1):\n    extra" in message
    assert "weight: expected (2, 3) float32, got (2, 4) float32" in message
    _assert_same(module.state_dict(), before)


def test_long_lists_are_cut_but_counted():
    with pytest.raises(WeightsError, match=r"unexpected \(25\):[^.]*\n    \.\.\. and 5 more"):
        load_strict(nn.Identity(), {f"k{i:02d}": torch.zeros(1) for i in range(25)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_are_cast_to_the_module(dtype):
    module = nn.Linear(3, 2)
    load_strict(module, {"weight": torch.full((2, 3), 0.5, dtype=dtype), "bias": torch.ones(2)})
    assert module.weight.dtype == torch.float32
    assert module.weight.unique().tolist() == [0.5]


def test_integers_for_floats_are_refused():
    with pytest.raises(WeightsError, match=r"bias: expected \(2,\) float32, got \(2,\) int64"):
        load_strict(nn.Linear(3, 2), {"weight": torch.ones(2, 3), "bias": STATE["b"]})


def test_recomputable_names_may_be_missing_but_not_misshaped():
    module = nn.BatchNorm1d(2)
    state = {"weight": torch.full((2,), 3.0), "bias": torch.ones(2)}
    load_strict(module, state, recomputable=["running_*", "num_batches_tracked"])
    assert module.weight.tolist() == [3, 3]
    with pytest.raises(WeightsError, match=r"missing \(1\):\n    num_batches_tracked"):
        load_strict(module, state, recomputable=["running_*"])
    with pytest.raises(WeightsError, match="running_mean: expected"):
        load_strict(
            module,
            {**state, "running_mean": torch.zeros(3)},
            recomputable=["running_*", "num_batches_tracked"],
        )


def test_the_same_content_gives_the_same_bytes(tmp_path):
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, 2).half()}
    metadata = {f"key {i}": 'ä "quoted"' for i in range(8)}
    write_safetensors(tmp_path / "one", tensors, metadata)
    write_safetensors(
        tmp_path / "two", dict(reversed(tensors.items())), dict(reversed(metadata.items()))
    )
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    with safetensors.safe_open(tmp_path / "one", "pt") as file:
        assert {k: v for k, v in file.metadata().items() if k != "ovseg_digest"} == metadata
        assert torch.equal(file.get_tensor("b"), tensors["b"])


def test_a_flipped_bit_in_a_file_of_ours_is_told(tmp_path):
    path = tmp_path / "w.safetensors"
    write_safetensors(path, STATE, {"content": "test"})
    whole = path.read_bytes()
    for place in (len(whole) - 1, whole.index(b"test")):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(WeightsError, match=r"w\.safetensors.* the digest differs"):
            read_state_dict(path)


def test_a_file_without_a_digest_is_read_as_before(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.torch.save_file(STATE, path, metadata={"content": "another program's"})
    _assert_same(read_state_dict(path), STATE)


def test_numbers_that_are_none_are_refused_with_their_names():
    module = nn.BatchNorm1d(2)
    module.register_buffer("attention_mask", torch.tensor([0.0, -torch.inf]))
    require_finite(module, source="w.pth")
    module.running_mean[1] = torch.nan
    with torch.no_grad():
        module.weight[0] = -torch.inf
    with pytest.raises(WeightsError) as error:
        require_finite(module, source="w.pth")
    assert "expected finite weights in w.pth, got NaN or infinity in 2 tensors" in str(error.value)
    assert "weight: from -inf to 1\n" in str(error.value)
    assert "running_mean: from nan to nan" in str(error.value)


def test_a_model_is_not_loaded_for_answering_with_numbers_that_are_none(tmp_path):
    class Model(nn.Linear):
        has_own_weights = True

        def load_weights(self, path):
            load_strict(self, read_state_dict(path))

    path = tmp_path / "w.safetensors"
    write_safetensors(path, {"weight": torch.full((2, 3), torch.nan), "bias": torch.ones(2)})
    with pytest.raises(WeightsError, match=r"w\.safetensors.*1 tensors:\n.*\n    weight: from nan"):
        load_named(Model(3, 2), str(path), path=path)


def test_keys_that_are_no_names_are_refused(tmp_path):
    torch.save({0: torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match="got a key that is int"):
        read_state_dict(tmp_path / "w.pth")
