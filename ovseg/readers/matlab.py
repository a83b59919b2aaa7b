"""Matrices in MATLAB files, which a process of its own reads.

SciPy's reader trusts the file: one changed byte may end the process, or make it ask for all the
memory. The process is kept for the files that follow; where it dies, hangs or outgrows its memory,
the file is refused and the next one gets a new process.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from ovseg.readers.files import require_regular
from ovseg.readers.limits import limits, require_within

__all__ = ["read_mat_labels"]

_LINE = 1 << 16
_READY = b"!"
_START_SECONDS = 300
_KINDS = "uif"


def read_mat_labels(path: Path, variable: str) -> np.ndarray:
    """Read a label matrix of a MATLAB file.

    Args:
        path: file of MATLAB 5 to 7.2.
        variable: name of the matrix.

    Returns:
        (H, W) int32, values in [0, 65535].

    Raises:
        ValueError: the file is missing or damaged, or has no such matrix.
    """
    try:
        require_within("array_bytes", require_regular(path).st_size, of=str(path))
    except FileNotFoundError as error:
        raise ValueError(f"{path}: no such file; unpack its archive again") from error
    except OSError as error:
        raise ValueError(f"{path}: damaged, or no MATLAB file: {error}") from error
    found = _matrix(path, variable)
    if isinstance(found, str) or found.ndim != 2 or found.size == 0:
        what = found if isinstance(found, str) else f"shape {found.shape} of {found.dtype}"
        raise ValueError(f"{path}: expected a {variable} (H, W) of numbers, got {what}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(f"{path}: expected whole numbers in 0-65535 in {variable}")
    if found.min() < 0 or found.max() > 65535 or (found.astype(np.int32) != found).any():
        raise ValueError(f"{path}: expected whole numbers in 0-65535 in {variable}")
    return found.astype(np.int32)


def serve() -> None:
    """Answer requests on the standard streams until the first one ends; what the process does.

    A request is a line of JSON [path, variable]. The answer is a line of JSON, with the bytes of
    the matrix behind it where it says so.
    """
    import scipy.io

    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    answers.write(_READY)
    answers.flush()
    for line in requests:
        path, variable = json.loads(line)
        data = b""
        try:
            with open(path, "rb") as file:
                content = scipy.io.loadmat(file, variable_names=[variable])
            matrix = content.get(variable)
            if matrix is None:
                answer: dict[str, Any] = {"no": "nothing"}
            elif matrix.dtype.kind not in _KINDS or matrix.ndim != 2:
                answer = {"no": f"shape {matrix.shape} of {matrix.dtype}"}
            else:
                matrix = np.ascontiguousarray(matrix).astype(matrix.dtype.newbyteorder("="))
                answer = {"dtype": matrix.dtype.str, "shape": matrix.shape}
                data = matrix.tobytes()
        except Exception as error:  # noqa: BLE001 - it is told, and the reader raises it
            answer = {"error": str(error)[:1000] or type(error).__name__}
        answers.write(json.dumps(answer).encode() + b"\n" + data)
        answers.flush()


class _ReaderProcess:
    """The process that reads; one at a time asks it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, path: Path, variable: str) -> tuple[dict[str, Any], bytes]:
        """Give the answer and the matrix's bytes; OSError or TimeoutError where there is none."""
        with self._lock:
            try:
                process = self._started()
                assert process.stdin is not None and process.stdout is not None
                until = time.monotonic() + limits().matlab_seconds
                request = json.dumps([str(path.absolute()), variable])
                process.stdin.write(request.encode() + b"\n")
                process.stdin.flush()
                line, _, data = _receive(process.stdout, until, _LINE, line=True).partition(b"\n")
                answer = json.loads(line)
                if "dtype" in answer:
                    size = np.dtype(answer["dtype"]).itemsize * int(np.prod(answer["shape"]))
                    require_within("array_bytes", size, of=str(path))
                    data += _receive(process.stdout, until, size - len(data))
                return answer, data
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._owner != os.getpid() or self._process.poll() is not None:
            self.stop()
            memory = limits().matlab_memory
            program = (
                "import resource, sys\n"
                f"sys.path[:] = {sys.path!r}\n"
                f"resource.setrlimit(resource.RLIMIT_AS, ({memory}, {memory}))\n"
                "resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n"
                "from ovseg.readers.matlab import serve\n"
                "serve()\n"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # Its threads would each reserve memory, and there is nothing for them to do.
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                bufsize=0,
            )
            self._owner = os.getpid()
            assert self._process.stdout is not None
            # Its imports do not count as time of the file.
            _receive(self._process.stdout, time.monotonic() + _START_SECONDS, 1)
        return self._process


_READER = _ReaderProcess()
atexit.register(_READER.stop)


def _matrix(path: Path, variable: str) -> np.ndarray | str:
    """The matrix, or what is there instead of one."""
    try:
        answer, data = _READER.ask(path, variable)
    except TimeoutError as error:
        raise ValueError(
            f"{path}: damaged: not read within {limits().matlab_seconds} seconds"
        ) from error
    except OSError as error:
        raise ValueError(
            f"{path}: damaged, or no MATLAB file: the process that read it ended ({error})"
        ) from error
    if "error" in answer:
        raise ValueError(f"{path}: damaged, or no MATLAB file: {answer['error']}")
    if "no" in answer:
        return str(answer["no"])
    return np.frombuffer(data, answer["dtype"]).reshape(answer["shape"])


def _receive(stream: IO[bytes], until: float, most: int, *, line: bool = False) -> bytes:
    """Read so many bytes, or until a line has ended; not longer than until some time."""
    parts: list[bytes] = []
    left = most
    while left > 0:
        ready, _, _ = select.select([stream], [], [], max(until - time.monotonic(), 0))
        if not ready:
            raise TimeoutError
        part = os.read(stream.fileno(), min(left, 1 << 20))
        if not part:
            raise OSError("no answer")
        parts.append(part)
        left -= len(part)
        if line and b"\n" in part:
            break
    return b"".join(parts)
