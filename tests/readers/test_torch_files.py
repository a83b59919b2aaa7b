from __future__ import annotations

import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from ovseg.readers.limits import LimitError, limited
from ovseg.readers.torch_files import LEGACY_MAGIC
from ovseg.readers.weight_files import UNREADABLE, read_weight_file, weight_file_kind
from ovseg.weights.load import WeightsError, read_names, read_state_dict, write_safetensors


class Reference:
    """What pickles as a reference to a storage."""

    def __init__(self, *reference):
        self.reference = reference


class _Pickler(pickle._Pickler):  # the one in Python, whose functions a test may name by text
    def persistent_id(self, obj):
        return obj.reference if isinstance(obj, Reference) else None


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def program(content) -> bytes:
    out = io.BytesIO()
    _Pickler(out, protocol=2).dump(content)
    return out.getvalue()


def tensor(
    count, *, size=(2,), stride=(1,), offset=0, key="0", storage=torch.FloatStorage, view=()
):
    from collections import OrderedDict

    reference = Reference("storage", storage, key, "cpu", count, *([view] if view else []))
    return Call(
        torch._utils._rebuild_tensor_v2, reference, offset, size, stride, False, OrderedDict()
    )


def archive(path, content, data=b"\0" * 8, *, compression=zipfile.ZIP_STORED, script=False):
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("a/data.pkl", program(content))
        file.writestr("a/data/0", data)
        if script:
            file.writestr("a/constants.pkl", program(()))
    return path


def test_an_archive_made_by_hand_is_read(tmp_path):
    path = archive(tmp_path / "w.pth", {"a": tensor(2)}, struct.pack("<2f", 1, 2))
    assert read_state_dict(path)["a"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": tensor(10**9)}, "expected 1000000000 numbers of 4 bytes, but the entry has 8 bytes"),
        ({"a": tensor(-1)}, "reference to a storage"),
        ({"a": tensor(2, key="1")}, "lacks the entry data/1"),
        ({"a": tensor(2, size=(3,))}, "number 2 of a storage, which has 2"),
        ({"a": tensor(2, offset=2, size=(1,))}, "number 2 of a storage"),
        ({"a": tensor(2, stride=(-1,))}, "offset, size and strides"),
        ({"a": tensor(2, size=(2**40,), stride=(0,))}, "raise the limit by OVSEG_LIMIT_WEIGHT_R"),
    ],
)
def test_tensors_larger_than_their_storage_are_refused(tmp_path, content, message):
    with pytest.raises(WeightsError, match=message):
        read_state_dict(archive(tmp_path / "w.pth", content))


@pytest.mark.parametrize("script", [False, True])
def test_a_compressed_archive_of_zeros_is_refused_before_it_is_read(tmp_path, script):
    path = archive(
        tmp_path / "w.pth",
        {"a": tensor(2**23)},
        b"\0" * 2**25,
        compression=zipfile.ZIP_DEFLATED,
        script=script,
    )
    assert path.stat().st_size < 100_000
    with pytest.raises(WeightsError, match="at most 20 weight ratio, got"):
        read_state_dict(path)
    with limited(weight_ratio=10_000):
        if not script:
            assert read_state_dict(path)["a"].shape == (2,)


def test_entries_that_share_bytes_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a/data.pkl", program({"a": tensor(2)}))
        file.writestr("a/data/0", b"\0" * 8)
        file.writestr("a/data/1", b"\0" * 8)
        first = file.infolist()[1]
        file.infolist()[2].header_offset = first.header_offset
    with pytest.raises(WeightsError, match=r"overlap|Overlap"):
        read_state_dict(path)


def test_two_entries_of_one_name_are_refused(tmp_path):
    path = archive(tmp_path / "w.pth", {"a": tensor(2)})
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as file:
        file.writestr("a/data/0", b"\1" * 8)
    with pytest.raises(WeightsError, match="several entries of one name"):
        read_state_dict(path)


def test_a_flipped_bit_in_a_file_of_torch_is_told(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.full((1000,), 3.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(struct.pack("<f", 3.0) * 4) + 400] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="Bad CRC-32"):
        read_state_dict(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_everything_that_a_checkpoint_holds_comes_back(tmp_path, zipped):
    base = torch.arange(12, dtype=torch.float64).view(3, 4)
    content = {
        "model": {"w": nn.Parameter(base.float()), "half": base.half(), "bf": base.bfloat16()},
        "rows": base[1:, ::2],
        "truth": torch.tensor([True, False]),
        "complex": torch.tensor([1 + 2j]),
        "unsigned": torch.tensor([1, 65535], dtype=torch.uint16),
        "eight": torch.tensor([0.5]).to(torch.float8_e4m3fn),
        "nothing": torch.empty(0, 3),
        "scalar": torch.tensor(7),
        "plain": [1, 2.5, "x", None, (1, 2), {"k": torch.Size([2, 3])}],
        "number": np.float64(0.25),
    }
    path = tmp_path / "c.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    got = read_weight_file(path, weight_file_kind(path))
    assert got["plain"] == [1, 2.5, "x", None, (1, 2), {"k": (2, 3)}]
    assert got["number"] == 0.25
    for name, expected in {**content, **content["model"]}.items():
        if isinstance(expected, torch.Tensor):
            found = {**got, **got["model"]}[name]
            assert found.dtype == expected.dtype and found.shape == expected.shape
            assert torch.equal(found.double() if name == "eight" else found,
                               expected.double() if name == "eight" else expected)  # fmt: skip


def test_old_files_that_announce_more_than_they_hold_are_refused(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(5)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    count = content.index(b"cpu") + 3
    place = content.index(b"K\x05", count)
    path.write_bytes(content[:place] + b"J\xff\xff\xff\x7f" + content[place + 2 :])
    with pytest.raises(WeightsError, match="announces more than 8589934588 bytes"):
        read_state_dict(path)


def legacy(path, content, keys, data=b"", **system):
    """A file in the form before torch 1.6: magic number, protocol, system, content, keys."""
    parts = (LEGACY_MAGIC, 1001, {"little_endian": True} | system)
    head = b"".join(pickle.dumps(part, protocol=2) for part in parts)
    path.write_bytes(head + program(content) + pickle.dumps(keys, protocol=2) + data)
    return path


FOUR = struct.pack("<q4f", 4, 1, 2, 3, 4)  # a storage: how many numbers, then those


def test_parts_of_a_storage_are_read_from_where_they_begin(tmp_path):
    content = {"whole": tensor(4, size=(4,)), "part": tensor(4, view=("1", 1, 2))}
    state = read_state_dict(legacy(tmp_path / "w.pth", content, ["0"], FOUR))
    assert state["whole"].tolist() == [1, 2, 3, 4] and state["part"].tolist() == [2, 3]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ({"a": tensor(4)}, {"little_endian": False}, "big-endian"),
        ({"a": tensor(4), "b": tensor(5)}, {}, "two types or sizes"),
        ({"a": tensor(4, view=("1", 3, 2))}, {}, "number 1 of a storage, which has 1"),
        ({"a": tensor(4, view=5)}, {}, "damaged: cannot unpack"),
        ({"a": tensor(4, key="1")}, {}, "list of storages is not that of the tensors"),
        ({"a": tensor(3)}, {}, "the storage 0 has two sizes"),
    ],
)
def test_old_files_that_contradict_themselves_are_refused(tmp_path, content, options, message):
    with pytest.raises(WeightsError, match=message):
        read_state_dict(legacy(tmp_path / "w.pth", content, ["0"], FOUR, **options))


def test_an_old_file_that_ends_early_is_refused(tmp_path):
    path = legacy(tmp_path / "w.pth", {"a": tensor(4)}, ["0"], FOUR[:-3])
    with pytest.raises(WeightsError, match="13 bytes where 16 were announced"):
        read_state_dict(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Call(torch.device, 3), "the name of a device"),
        (Call(torch.Size, ["x"]), "the sizes of a tensor"),
        (Reference("x"), "the reference to a storage"),
        (Call(torch._utils._rebuild_tensor_v2, 3, 0, (1,), (1,)), "a storage, got int"),
    ],
)
def test_parts_of_tensors_that_are_none_are_refused(tmp_path, content, message):
    with pytest.raises(WeightsError, match=f"expected {message}"):
        read_state_dict(archive(tmp_path / "w.pth", {"a": content}))


def test_tensors_in_a_plain_pickle_are_read(tmp_path):
    path = tmp_path / "w.pkl"
    weights = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(3).half()}
    path.write_bytes(pickle.dumps({"model": weights}, protocol=2))
    state = read_state_dict(path, allow_pickle=True)
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in weights)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (3, "expected the bytes of a storage"),
        (b"abc", "the file is damaged"),
        (pickle.dumps(1), "ends too early"),
    ],
)
def test_tensors_in_a_plain_pickle_that_are_none_are_refused(tmp_path, data, message):
    path = tmp_path / "w.pkl"
    path.write_bytes(program({"a": Call(torch.storage._load_from_bytes, data)}))
    with pytest.raises(WeightsError, match=message):
        read_state_dict(path, allow_pickle=True)


def test_names_are_listed_without_reading_numbers(tmp_path):
    path = archive(tmp_path / "w.pth", {"a": tensor(2)})
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\0" * 8, b"\1" * 8, 1))
    assert read_names(path) == ["a"]


def test_modules_of_a_torchscript_archive_that_repeat_each_other_are_refused(tmp_path):
    path = tmp_path / "s.pt"
    new = b"c__torch__\nM\n)\x81"
    # Each module holds the one before it twice: 2^40 names.
    inner = new + b"}b"
    for _ in range(40):
        inner = inner + b"q\x01" + b"0" + new + b"}(U\x01ah\x01U\x01bh\x01ub"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("s/data.pkl", b"\x80\x02" + inner + b".")
        file.writestr("s/constants.pkl", program(()))
    with pytest.raises(WeightsError, match="200000 weight names"):
        read_state_dict(path)


@pytest.mark.parametrize("kind", ["torch", "legacy", "safetensors", "torchscript"])
def test_damaged_files_raise_nothing_unexpected(tmp_path, kind):
    path = tmp_path / "w"
    state = {"a": torch.arange(20.0), "b.c": torch.ones(2, 3)}
    if kind == "safetensors":
        write_safetensors(path, state)
    elif kind == "torchscript":
        archive(path, state and {"a": tensor(2)}, script=True)
    else:
        torch.save({"model": state}, path, _use_new_zipfile_serialization=kind == "torch")
    whole, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for turn in range(60):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), size=4):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged if turn % 4 else damaged[: rng.integers(len(damaged))])
        try:
            read_state_dict(path)
        except WeightsError:
            refused += 1
    assert refused > 20


def test_errors_of_readers_are_listed():
    assert issubclass(LimitError, UNREADABLE)
