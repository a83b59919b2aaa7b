from __future__ import annotations

import io
import pickle
import struct

import numpy as np
import pytest

from ovseg.readers.limits import LimitError, limited
from ovseg.readers.pickled_arrays import read_plain_pickle
from ovseg.readers.pickles import Machine
from tests.helpers import run_python

READ = "import sys, pathlib; from ovseg.readers.pickled_arrays import read_plain_pickle as read; "
CAPPED = (
    "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30, 3 * 2**30));"
    f"{READ}\ntry:\n    print(read(pathlib.Path(sys.argv[1])))\n"
    "except Exception as error:\n    print(type(error).__name__, error)\n"
)


def written(tmp_path, content: bytes):
    path = tmp_path / "index.pkl"
    path.write_bytes(content)
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def dtype_with_state(code: str, state: bytes) -> bytes:
    return b"cnumpy\ndtype\n(" + text(code) + b"I0\nI1\ntR" + state + b"b"


def array_of(dtype: bytes, shape: bytes, content: bytes) -> bytes:
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\nt"
        + text("b")
        + b"tR(I1\n"
        + shape
        + dtype
        + b"I00\n"
        + content
        + b"tb."
    )


VALUES = {
    "floats": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">i2"),
    "texts": np.array(["a", "äö"]),
    "bytes": np.array([b"a", b"bc"]),
    "truths": np.array([True, False]),
    "objects": np.array(["a", 3, None], dtype=object),
    "none": np.zeros((0, 3)),
    "number": np.int64(-3),
    "list": [np.float32(0.5), {"a": (1, 2.5, True, None, b"x", b"")}, 2**70, {1, 2}],
}


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_plain_values_come_back_from_every_protocol(tmp_path, protocol):
    values = {k: v for k, v in VALUES.items() if protocol >= 4 or k != "list"}
    got = read_plain_pickle(written(tmp_path, pickle.dumps(values, protocol=protocol)))
    assert list(got) == list(values)
    for name, value in values.items():
        if isinstance(value, np.ndarray):
            assert got[name].dtype == value.dtype
            assert got[name].tolist() == value.tolist()
        else:
            assert got[name] == value


def test_one_array_in_two_places_is_read_once(tmp_path):
    array = np.arange(3.0)
    first, second = read_plain_pickle(written(tmp_path, pickle.dumps([array, array])))
    assert first is second
    assert first.tolist() == [0, 1, 2]


def test_bytes_never_become_addresses_of_objects(tmp_path):
    """A type of objects whose state denies that it is one made NumPy follow raw bytes."""
    state = b"(I3\n" + text("|") + b"NNNI8\nI8\nI0\nt"
    path = written(
        tmp_path,
        array_of(dtype_with_state("O8", state), b"(I1\nt", text("AAAAAAAA")),
    )
    run = run_python("-c", f"{READ}print(repr(read(pathlib.Path(sys.argv[1]))))", str(path))
    assert run.returncode == 1  # and not by a signal
    assert "UnpicklingError" in run.stderr


@pytest.mark.parametrize(
    ("dtype", "shape", "content", "message"),
    [
        (("V8", b"(I3\n" + text("|") + b"NNNI8\nI1\nI0\nt"), b"(I1\nt", "AAAAAAAA", "type 'V8'"),
        (("M8", b"(I4\n" + text("<") + b"NNNI-1\nI-1\nI0\nt"), b"(I1\nt", "AAAAAAAA", "type 'M8'"),
        (("f4", b"(I3\n" + text("<") + b"NNNI8\nI4\nI0\nt"), b"(I1\nt", "AAAA", "another size"),
        (("f4", b"(I3\n" + text("<") + b"(tNNI-1\nI-1\nI0\nt"), b"(I1\nt", "AAAA", "with fields"),
        (("f4", b"(I3\n" + text("<") + b"NNNI-1\nI-1\nI0\nt"), b"(I9\nt", "AAAA", "4 bytes for 9"),
        (("f4", b"(I3\n" + text("<") + b"NNNI-1\nI-1\nI0\nt"), b"(I-1\nt", "AAAA", "without a sh"),
        (("S0", b"(I3\n" + text("|") + b"NNNI0\nI1\nI0\nt"), b"(I999999999\nt", "", "of no size"),
        (("U1", b"(I3\n" + text("<") + b"NNNI4\nI4\nI0\nt"), b"(I1\nt", "AAAA", "does not exist"),
    ],
)  # fmt: skip
def test_descriptions_that_make_no_array_are_refused(tmp_path, dtype, shape, content, message):
    path = written(tmp_path, array_of(dtype_with_state(*dtype), shape, text(content)))
    with pytest.raises(pickle.UnpicklingError, match=message):
        read_plain_pickle(path)


@pytest.mark.parametrize(
    "content",
    [
        b"(lr\xff\xff\xff\xff.",  # a place in the memo that would make a table of 64 GB
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.",  # bytes that are not there
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x0f).",
        b"\x80\x05\x96\x00\x00\x00\x00\x02\x00\x00\x00.",
        b"}" + b"(K\x01K\x01t" + b"2\x86" * 60 + b"K\x01s.",  # a key whose hash takes 2^60 steps
        # The same text made into bytes over and over: 4 KB of steps for each GB.
        b"\x80\x02"
        + text("a" * 2**20)
        + b"q\x010"
        + b"]c_codecs\nencode\nq\x020"
        + b"h\x02h\x01\x85Ra" * 4000
        + b".",
        b"\x80\x04\x97.",
        b"\x82\x01.",
        b"]a.",
        b"(",
        b"0.",
        b"h\x07.",
        b"I" + b"9" * 5000 + b"\n.",
        b"\x80\x02c__builtin__\nbytes\n)\x81K\x01b.",
    ],
)
def test_bombs_and_nonsense_take_neither_memory_nor_time(tmp_path, content):
    run = run_python("-c", CAPPED, str(written(tmp_path, content)), timeout=60)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(("UnpicklingError", "[]", "()")), run.stdout


def test_the_number_of_steps_is_limited(tmp_path):
    path = written(tmp_path, b"]" * 2000 + b".")
    with limited(pickle_objects=1000), pytest.raises(LimitError, match="1000 pickle objects"):
        read_plain_pickle(path)


def test_a_file_of_one_byte_lists_stays_below_a_gigabyte(tmp_path):
    run = run_python("-c", CAPPED, str(written(tmp_path, b"\x8f" * 20_000_000 + b".")), timeout=120)
    assert run.stdout.startswith("LimitError"), run.stdout + run.stderr


def test_names_are_told_and_never_imported(tmp_path):
    path = written(tmp_path, b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.")
    with pytest.raises(pickle.UnpicklingError, match=r"asks for os\.system"):
        read_plain_pickle(path)


def test_a_thousand_damaged_pickles_are_read_or_refused():
    rng = np.random.default_rng(0)
    whole = pickle.dumps(VALUES, protocol=4)
    refused = 0
    from ovseg.readers.pickled_arrays import ARRAYS

    for _ in range(1000):
        damaged = bytearray(whole)
        for place in rng.integers(0, len(whole), size=3):
            damaged[place] = rng.integers(256)
        try:
            Machine(io.BytesIO(damaged), ARRAYS).run()
        except (pickle.UnpicklingError, LimitError):
            refused += 1
    assert refused > 300


NEW = b"ccollections\nOrderedDict\n)}"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        (b"S'a\\x41'\n.", "aA"),
        (b"(icollections\nOrderedDict\n.", {}),
        (NEW + b"\x92.", {}),
        (pickle.dumps([b"", b"x"], protocol=2), [b"", b"x"]),
    ],
)
def test_instructions_of_old_and_rare_pickles_are_known(tmp_path, content, value):
    assert read_plain_pickle(written(tmp_path, content)) == value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Sabc\n.", "a text without quotes"),
        (NEW + text("a") + b"I1\ns\x92.", "keywords for what takes none"),
        (b"c_codecs\nencode\n(" + text("a") + text("utf8") + b"tR.", "expected a text in latin1"),
        (b"ccollections\nOrderedDict\n(I1\ntR.", "expected pairs of keys and values"),
        (b"}(" + text("a") + b"u.", "a key without its value"),
        (b"}((" + b"I1\n" * 2000 + b"tI1\nu.", "a tuple of many values as a key"),
        (b"}((N(ttI1\nu.", "a tuple as a key"),
        (b"}(I" + b"9" * 30 + b"\nI1\nu.", "a int as a key"),
    ],
)
def test_what_no_weight_file_says_is_refused_in_its_words(tmp_path, content, message):
    with pytest.raises(pickle.UnpicklingError, match=message):
        read_plain_pickle(written(tmp_path, content))
