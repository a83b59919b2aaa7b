"""Reading damaged files in child processes that may die, hang or grow, and be told of."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import random
import resource
import signal
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovseg.readers import matlab
from tests.fuzz.damage import damaged
from tests.fuzz.doors import DOORS, Door, write_companions

__all__ = ["BAD", "OUTCOMES", "Finding", "attempt", "read_all", "watch"]

OUTCOMES = ("refused", "accepted equal", "accepted different", "silent")
OUTCOMES += ("crash", "hang", "memory", "traceback")
BAD = OUTCOMES[3:]
"""`silent` is another content behind a checksum that was not written anew."""

SECONDS = 10
_START_SECONDS = 300
_EXTRA_BYTES = 2**30
_ADDRESS_BYTES = 4 * 2**30
_CONTEXT = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Finding:
    """What came of one input.

    Args:
        number: of the input.
        outcome: one of `OUTCOMES`.
        text: of the error, or what else is to be told.
        data: the input; kept of bad ones only.
    """

    number: int
    outcome: str
    text: str = ""
    data: bytes = b""


def read_all(name: str, seed: int, numbers: Sequence[int]) -> Iterator[Finding]:
    """Damage the file of a door and read it, many times.

    Args:
        name: of the door.
        seed: all damage follows from it, the door and the number.
        numbers: of the inputs.

    Yields:
        What came of each, in their order.
    """
    door = DOORS[name]

    def make(number: int, whole: bytes) -> tuple[bytes, bool]:
        return damaged(whole, door.form, random.Random(f"{seed} {name} {number}"))

    with tempfile.TemporaryDirectory(prefix="ovseg_fuzz_") as folder:
        write_companions(Path(folder))
        path = Path(folder) / door.file
        door.make(path)
        whole = path.read_bytes()
        yield from watch(
            lambda number, tell: _read_one(door, path, whole, *make(number, whole), tell),
            numbers,
            of=lambda number: make(number, whole)[0],
        )


def watch(
    work: Callable[[int, Callable[[], None]], tuple[str, str]],
    numbers: Sequence[int],
    *,
    of: Callable[[int], bytes],
    seconds: float = SECONDS,
) -> Iterator[Finding]:
    """Do something for each number in a child process, and in a new one after each death.

    Args:
        work: gives outcome and text; calls its second argument when the time begins to count.
        numbers: what to do it for.
        of: the input of a number, kept where the outcome is bad.
        seconds: after which it hangs.

    Yields:
        What came of each number, in their order.
    """
    left = list(numbers)
    while left:
        ours, theirs = _CONTEXT.Pipe()
        child = _CONTEXT.Process(target=_serve, args=(work, left, theirs), daemon=False)
        child.start()
        theirs.close()
        ended = False
        while left and not ended:
            outcome, text = _answer(ours, child.pid or 0, seconds)
            ended = outcome in ("crash", "hang", "memory")
            if outcome == "hang" and child.pid is not None:
                os.kill(child.pid, signal.SIGKILL)
            if outcome == "crash":
                child.join()
                text = f"ended with {child.exitcode}"
            number = left.pop(0)
            yield Finding(number, outcome, text, of(number) if outcome in BAD else b"")
        ours.close()
        child.join()


def _answer(pipe: Connection, child: int, seconds: float) -> tuple[str, str]:
    try:
        if not pipe.poll(_START_SECONDS):
            return "hang", "it did not begin"
        pipe.recv()
        worked, waited = _processor_seconds(child), 0.0
        # On a busy machine time may pass without any for the child.
        while not pipe.poll(seconds):
            waited += seconds
            if waited > 5 * seconds or _processor_seconds(child) - worked > seconds / 2:
                return "hang", f"more than {waited:g} seconds"
        outcome, text = pipe.recv()
        return outcome, text
    except EOFError:
        return "crash", ""


def _processor_seconds(process: int) -> float:
    with suppress(OSError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


def _serve(work: Callable[..., tuple[str, str]], numbers: Sequence[int], pipe: Connection) -> None:
    warnings.simplefilter("ignore")
    logging.disable()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_memory("VmSize") + _ADDRESS_BYTES, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # A WebP of few bytes may rightly hold 268 megapixels, which take more than a gigabyte.
    os.environ.setdefault("OVSEG_LIMIT_PICTURE_PIXELS", "5e7")
    for number in numbers:
        start: list[int] = []

        def begin(start: list[int] = start) -> None:
            start.append(_memory("VmHWM"))
            pipe.send("begin")

        outcome, text = work(number, begin)
        grown = _memory("VmHWM") - start[0]
        if grown > _EXTRA_BYTES:
            outcome, text = "memory", f"{grown >> 20} MiB more; {outcome} {text}"
        pipe.send((outcome, text))
        if outcome == "memory":
            break
    matlab._READER.stop()


def _memory(field: str) -> int:
    """Of this process, and of the one that reads MATLAB files."""
    reader = matlab._READER._process
    total = 0
    for process in ("self", *([str(reader.pid)] if reader else [])):
        with suppress(OSError):
            for line in Path(f"/proc/{process}/status").read_text().splitlines():
                if line.startswith(f"{field}:"):
                    total += int(line.split()[1]) * 1024
    return total


_KNOWN: dict[Path, str] = {}


def _read_one(
    door: Door, path: Path, whole: bytes, data: bytes, resealed: bool, tell: Callable[[], None]
) -> tuple[str, str]:
    reader = matlab._READER._process
    if path not in _KNOWN or (path.suffix == ".mat" and (reader is None or reader.poll())):
        path.write_bytes(whole)
        _KNOWN[path] = _fingerprint(door.read(path))  # also loads what the reader needs
    path.write_bytes(data)
    tell()
    outcome, text, value = attempt(door, path)
    if outcome == "accepted":
        equal = _fingerprint(value) == _KNOWN[path]
        changed = "silent" if door.checked and not resealed else "accepted different"
        outcome = "accepted equal" if equal else changed
    return outcome, text


def attempt(door: Door, path: Path) -> tuple[str, str, Any]:
    """Read a file as the package does.

    Args:
        door: how.
        path: of the name that the door has.

    Returns:
        "accepted", "refused", "memory" or "traceback", the text of the error, and what was read.
    """
    try:
        return "accepted", "", door.read(path)
    except Exception as error:  # noqa: BLE001 - what it is decides
        text = f"{type(error).__name__}: {error}"
        link: BaseException | None = error
        while link is not None:
            if isinstance(link, MemoryError) or "can't allocate memory" in str(link):
                return "memory", text, None
            link = link.__cause__
        if not isinstance(error, (ValueError, OSError, *door.errors)):
            return "traceback", text, None
        if path.name not in text:
            return "traceback", f"it does not name the file: {text}", None
        return "refused", text, None


def _fingerprint(value: Any) -> str:
    total = hashlib.sha256()
    _add(value, total.update)
    return total.hexdigest()


def _add(value: Any, add: Callable[[bytes], object]) -> None:
    if isinstance(value, torch.Tensor):
        add(f"{value.dtype}".encode())
        value = value.contiguous().reshape(-1).view(torch.uint8).numpy().reshape(-1, *value.shape)
    if isinstance(value, np.ndarray) and value.dtype != object:
        add(f"{value.shape} {value.dtype}".encode() + value.tobytes())
    elif isinstance(value, dict):
        for key, inner in value.items():
            add(repr(key).encode())
            _add(inner, add)
    elif isinstance(value, (list, tuple)):
        add(f"{len(value)}".encode())
        for inner in value:
            _add(inner, add)
    else:
        add(repr(value).encode("utf-8", "surrogatepass"))
