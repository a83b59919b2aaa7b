from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from ovseg.readers.arrays import map_npy, read_npz
from ovseg.readers.limits import LimitError, limited


def npy_header(shape: str, descr: str = "'|u1'", version: bytes = b"\x01\x00") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY" + version + struct.pack("<H", len(text) + 1) + text + b"\n"


def npz(path, content: bytes):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("masks.npy", content)
    return path


def test_arrays_come_back_as_numpy_reads_them(tmp_path):
    rng = np.random.default_rng(0)
    given = {
        "masks": rng.random((3, 4, 5)) > 0.5,
        "names": np.array(["a", "caf\udce9"]),
        "empty": np.zeros((0, 3)),
        "scalar": np.array(7),
        "columns": np.asfortranarray(rng.random((4, 3))),
    }
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **given)
        found = read_npz(tmp_path / "a.npz")
        assert found.keys() == given.keys()
        assert all(np.array_equal(found[name], given[name]) for name in given)
        assert found["columns"].flags.f_contiguous
        assert list(read_npz(tmp_path / "a.npz", ["scalar"])) == ["scalar"]


@pytest.mark.parametrize(
    "content",
    [
        npy_header("(100000, 100000)") + b"x",
        npy_header("(4, -5)"),
        npy_header("(4,)", "'|O'") + bytes(32),
        npy_header("(99999999,)", "'|S0'"),
        npy_header("(2,)", "'<f8'", b"\x09\x00"),
        npy_header("(" * 3000 + ")" * 3000),
        npy_header("(4,), __import__('os')"),
        npy_header("((4,)"),
        b"\x93NUMPY",
        b"",
    ],
    ids=[
        "large",
        "negative",
        "objects",
        "no_size",
        "version",
        "nested",
        "call",
        "open",
        "cut",
        "empty",
    ],
)
def test_headers_are_not_believed(tmp_path, content):
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"a\.npz: (not usable as arrays|masks: expected at most)"):
        read_npz(npz(tmp_path / "a.npz", content))
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npy: not usable as an array"):
        map_npy(tmp_path / "a.npy")
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


def test_a_bomb_is_refused_by_its_header(tmp_path):
    path = npz(tmp_path / "a.npz", npy_header("(50000000,)") + bytes(50_000_000))
    assert path.stat().st_size < 100_000
    with limited(array_bytes=40_000_000), pytest.raises(LimitError, match="got 50000000"):
        read_npz(path)


def test_any_damage_names_the_file(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, masks=np.random.default_rng(0).random((5, 6, 7)))
    content = path.read_bytes()
    refused = 0
    for place in range(0, len(content), 7):
        path.write_bytes(content[:place] + b"\xff\xff" + content[place + 2 :])
        try:
            read_npz(path, ["masks"])
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused > 100


def test_a_missing_array_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", other=np.zeros(3))
    with pytest.raises(ValueError, match=r"expected an array 'masks', got \['other'\]"):
        read_npz(tmp_path / "a.npz", ["masks"])
    with pytest.raises(FileNotFoundError):
        read_npz(tmp_path / "b.npz")


def test_a_mapped_array_equals_the_saved_one(tmp_path):
    rows = np.random.default_rng(0).random((30, 4))
    buffer = io.BytesIO()
    np.save(buffer, rows)
    (tmp_path / "a.npy").write_bytes(buffer.getvalue())
    assert np.array_equal(map_npy(tmp_path / "a.npy"), rows)
    assert isinstance(map_npy(tmp_path / "a.npy"), np.memmap)
