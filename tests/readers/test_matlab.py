"""MATLAB files that end the process that reads them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from ovseg.data.prepare.pipeline import Task, prepare
from ovseg.readers import matlab
from ovseg.readers.limits import limited
from ovseg.readers.matlab import read_mat_labels

LABELS = np.array([[0, 3, 7], [65535, 2, 1]], np.uint16)
# A program that does on a word what SciPy does on a damaged file, whatever SciPy's version.
STAND_IN = """
import scipy.io
real = scipy.io.loadmat
def loadmat(file, **options):
    name = file.name
    if "crash" in name:
        import os, signal
        os.kill(os.getpid(), signal.SIGSEGV)
    if "hang" in name:
        import time
        time.sleep(600)
    if "eats" in name:
        bytearray(1 << 45)
    return real(file, **options)
scipy.io.loadmat = loadmat
"""


def write(path: Path, labels: np.ndarray = LABELS) -> Path:
    scipy.io.savemat(path, {"S": labels}, do_compression=True)
    return path


def convert(task: Task) -> list[np.ndarray]:
    return [read_mat_labels(task.sources[0], "S").astype(np.uint16)]


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(STAND_IN)
    known = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}{os.pathsep}{known}")
    matlab._READER.stop()
    yield
    matlab._READER.stop()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64, np.int32, ">u2"])
def test_matrices_come_back_as_they_are(tmp_path, dtype):
    labels = np.arange(300).reshape(20, 15).astype(dtype)
    found = read_mat_labels(write(tmp_path / "a.mat", labels), "S")
    assert found.dtype == np.int32
    assert np.array_equal(found, labels)


def test_a_large_matrix_comes_whole_and_the_process_is_kept(tmp_path):
    labels = np.random.default_rng(0).integers(0, 65536, (2000, 1501)).astype(np.uint16)
    assert np.array_equal(read_mat_labels(write(tmp_path / "a.mat", labels), "S"), labels)
    process = matlab._READER._process
    assert np.array_equal(read_mat_labels(write(tmp_path / "b.mat"), "S"), LABELS)
    assert matlab._READER._process is process


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (np.array([[0.5]]), "whole numbers"),
        (np.array([[float("nan")]]), "whole numbers"),
        (np.array([[1e300]]), "whole numbers"),
        (np.array([[-1]]), "whole numbers"),
        (np.array([["a"]]), r"expected a S \(H, W\) of numbers, got shape"),
        (np.zeros((2, 2, 2)), r"got shape \(2, 2, 2\)"),
        (np.zeros((0, 2)), r"got shape \(0, 2\)"),
    ],
)
def test_what_is_no_label_matrix_is_told(tmp_path, labels, reason):
    with pytest.raises(ValueError, match=rf"a\.mat: .*{reason}"):
        read_mat_labels(write(tmp_path / "a.mat", labels), "S")


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no\.mat: no such file"):
        read_mat_labels(tmp_path / "no.mat", "S")
    with pytest.raises(ValueError, match="got nothing"):
        read_mat_labels(write(tmp_path / "a.mat"), "T")
    whole = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"a\.mat: damaged, or no MATLAB file: ."):
        read_mat_labels(tmp_path / "a.mat", "S")


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_file_that_ends_its_reader_is_quarantined_and_the_others_are_read(tmp_path, workers):
    tasks = []
    for number in range(40):
        name = {3: "crash", 20: "hang", 21: "eats"}.get(number, "good")
        source = write(tmp_path / f"{number:02d}_{name}.mat")
        tasks.append(Task((source,), (tmp_path / "made" / f"{number}.png",)))
    os.environ["OVSEG_LIMIT_MATLAB_SECONDS"] = "6"
    try:
        report = prepare(tasks, convert, workers=workers)
    finally:
        del os.environ["OVSEG_LIMIT_MATLAB_SECONDS"]
    assert report.written == 37
    assert [Path(file).name for file, _ in report.failed] == [
        "03_crash.mat",
        "20_hang.mat",
        "21_eats.mat",
    ]
    reasons = [reason for _, reason in report.failed]
    assert "the process that read it ended" in reasons[0]
    assert reasons[1] == "damaged: not read within 6 seconds"


def test_a_file_that_claims_more_than_the_limit_is_refused(tmp_path):
    path = write(tmp_path / "a.mat", np.zeros((500, 500)))
    with limited(array_bytes=100_000), pytest.raises(ValueError, match="array bytes, got 2000000"):
        read_mat_labels(path, "S")


def test_no_changed_byte_ends_the_process(tmp_path):
    """One byte of the inside of a compressed matrix changed, as the file that ended SciPy had."""
    path = write(tmp_path / "a.mat")
    content = path.read_bytes()
    size = struct.unpack("<I", content[132:136])[0]
    inner = bytearray(zlib.decompress(content[136 : 136 + size]))
    outcomes = set()
    for place in range(0, len(inner), 3):
        changed = bytes(inner[:place]) + bytes([inner[place] ^ 0x81]) + bytes(inner[place + 1 :])
        packed = zlib.compress(changed)
        path.write_bytes(content[:132] + struct.pack("<I", len(packed)) + packed)
        try:
            outcomes.add(read_mat_labels(path, "S").shape)
        except ValueError as error:
            assert str(error).startswith(str(path))
            outcomes.add("refused")
    assert "refused" in outcomes
