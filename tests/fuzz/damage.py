"""Damage of every kind, drawn at random: to bytes, to values, and behind checksums."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import yaml

__all__ = ["damaged"]

_EDGES = (0, 1, 127, 128, 255, 256, 512, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
_EDGES += (2**40, 2**63 - 1, 2**63, 2**64 - 1)
_DEEP = "a place for a deep list"
_VALUES = (
    *(float("nan"), float("inf"), 1e308, -1, 0, 2**31, 2**63, 10**30, 0.5, True, None, "", "\0"),
    *("é\ud800", "a\nb", "../../etc/passwd", "~nobody-of-that-name/x", "/dev/zero", "$HOME", "1e9"),
    *("x" * 100_000, [], {}, [[]], [None], {"": {"": []}}, [1, "a", None], [0.5] * 1000, _DEEP),
)


def damaged(data: bytes, form: str, rng: random.Random) -> tuple[bytes, bool]:
    """Damage the content of a file.

    Args:
        data: a valid one.
        form: what it is, see `tests.fuzz.doors.Door`.
        rng: what is done is drawn from it alone.

    Returns:
        The damaged content, and whether its checksums were made anew.
    """
    within = {**dict.fromkeys(_TEXTS, damage_values), **_RESEALED}.get(form)
    if within is not None and rng.random() < 0.6:
        try:
            return within(data, form, rng), form in _RESEALED
        except Exception:  # noqa: BLE001
            pass  # of an input that was damaged before, as coverage-guided fuzzing has them
    return damage_bytes(data, rng), False


def damage_bytes(data: bytes, rng: random.Random) -> bytes:
    """Do one to three things to some bytes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        data = rng.choice(_DAMAGES)(bytearray(data or b"\0"), rng)
    return data


def _place(data: bytes, rng: random.Random) -> int:
    """Anywhere; headers and directories more often than the rest."""
    end = len(data)
    start, stop = rng.choice(((0, end), (0, min(end, 64)), (max(end - 96, 0), end)))
    return rng.randrange(start, stop)


def _flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 2, 8))):
        data[_place(data, rng)] ^= 1 << rng.randrange(8)
    return bytes(data)


def _overwrite(data: bytearray, rng: random.Random) -> bytes:
    place = _place(data, rng)
    data[place : place + 4] = rng.choice((bytes(4), b"\xff" * 4, rng.randbytes(4)))
    return bytes(data)


def _edge(data: bytearray, rng: random.Random) -> bytes:
    place, width = _place(data, rng), rng.choice((1, 2, 4, 8))
    number = rng.choice(_EDGES) & (1 << 8 * width) - 1
    data[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
    return bytes(data)


def _cut(data: bytearray, rng: random.Random) -> bytes:
    return bytes(data[: rng.randrange(len(data))])


def _insert(data: bytearray, rng: random.Random) -> bytes:
    place = _place(data, rng)
    data[place:place] = rng.randbytes(rng.choice((1, 2, 17, 300)))
    return bytes(data)


def _splice(data: bytearray, rng: random.Random) -> bytes:
    """Take a part out and put it somewhere: over others, between others, twice, or nowhere."""
    place, other = _place(data, rng), _place(data, rng)
    part = data[place : place + rng.choice((1, 8, 64, 512))]
    kind = rng.randrange(4)
    if kind in (0, 1):
        del data[place : place + len(part)]
    if kind != 0:
        data[other : other + (len(part) if kind == 3 else 0)] = part
    return bytes(data)


_DAMAGES: tuple[Callable[[bytearray, random.Random], bytes], ...] = (
    *(_flip, _overwrite, _edge, _edge, _cut, _insert, _splice),
)


def _dump_csv(rows: Any) -> str:
    stream = io.StringIO()
    for row in rows if isinstance(rows, list) else [rows]:
        csv.writer(stream, delimiter="\t").writerow(row if isinstance(row, list) else [row])
    return stream.getvalue()


_TEXTS: dict[str, tuple[Callable[[str], Any], Callable[[Any], str]]] = {
    "json": (json.loads, json.dumps),
    "jsonl": (
        lambda text: [json.loads(line) for line in text.splitlines()],
        lambda rows: "\n".join(map(json.dumps, rows if isinstance(rows, list) else [rows])),
    ),
    "yaml": (yaml.safe_load, lambda values: yaml.safe_dump(values, sort_keys=False)),
    "csv": (lambda text: [line.split("\t") for line in text.splitlines()], _dump_csv),
}


def damage_values(data: bytes, form: str, rng: random.Random) -> bytes:
    """Replace, repeat, take out or rename values of a document."""
    load, dump = _TEXTS[form]
    content = load(data.decode())
    for _ in range(rng.choice((1, 1, 2))):
        content = _change(content, rng)
    depth = rng.choice((150, 3000, 100_000))
    text = dump(content).replace(json.dumps(_DEEP), _DEEP).replace(_DEEP, "[" * depth + "]" * depth)
    return text.encode("utf-8", "surrogatepass")


def _change(value: Any, rng: random.Random) -> Any:
    inside = (
        list(value)
        if isinstance(value, dict)
        else range(len(value or ()))
        if isinstance(value, list)
        else ()
    )
    if not inside or rng.random() < 0.15:
        return rng.choice(_VALUES)
    key, kind = rng.choice(inside), rng.randrange(8)
    if kind == 0:
        del value[key]
    elif kind == 1 and isinstance(value, dict):
        value[rng.choice(("", "x" * 1000, "id", "__class__", "1"))] = value.pop(key)
    elif kind == 1:
        value.insert(key, value[key])
    else:
        value[key] = _change(value[key], rng)
    return value


def _in_zip(data: bytes, form: str, rng: random.Random) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(stream, "w") as new:
        members = old.infolist()
        chosen = rng.choice([info for info in members if info.file_size])
        for info in members:
            content = old.read(info)
            new.writestr(info, damage_bytes(content, rng) if info is chosen else content)
    return stream.getvalue()


def _in_png(data: bytes, form: str, rng: random.Random) -> bytes:
    changed, out, place = bytearray(damage_bytes(data, rng)), data[:8], 8
    while len(head := changed[place : place + 8]) == 8:
        length = struct.unpack(">I", head[:4])[0]
        body = bytes(changed[place + 4 : place + 8 + length])
        out += bytes(head[:4]) + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return out


def _in_tar(data: bytes, form: str, rng: random.Random) -> bytes:
    """Damage headers only, and write their sums anew."""
    changed = bytearray(data)
    heads = [n for n in range(0, len(data), 512) if data[n + 257 : n + 262] == b"ustar"]
    place = rng.choice(heads)
    # Name, mode, size and so on; then the kind, the link and what follows.
    start, width = rng.choice(((0, 100), (100, 8), (124, 12), (124, 12), (156, 1), (345, 155)))
    header = bytearray(data[place : place + 512])
    number = rng.choice((*_EDGES, -512, -1))
    fields = (rng.randbytes(width), tarfile.itn(number, 12, tarfile.GNU_FORMAT))
    fields += (b"\xff" * (width - 2) + b"\xfe\x00", b"x", b"L", b"S", b"g", b"0", b"2")
    header[start : start + width] = rng.choice(fields)[:width].ljust(width, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    changed[place : place + 512] = header
    return bytes(changed)


_RESEALED = {"zip": _in_zip, "png": _in_png, "tar": _in_tar}
