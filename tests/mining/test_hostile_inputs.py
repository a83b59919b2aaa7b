"""One bad input never stops a run of the miner: it is quarantined with its reason."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.data.captions.sources import open_source
from ovseg.mining.executors import run_mining
from ovseg.mining.parts import MiningConfig
from ovseg.mining.records import read_records
from ovseg.proposals import FileProposer
from tests.data.captions.source_files import picture, write, write_tar
from tests.mining.toy_mining import make_parts

CONFIG = MiningConfig(shard_size=4, max_pixels=5000)
CAPTION = b"a cat on the grass"
SOUND = [(f"{n}.{end}", c) for n in "ab" for end, c in (("png", picture(99)), ("txt", CAPTION))]


def mined(source: Path, output: Path, **options) -> tuple[dict, list[dict]]:
    make = options.pop("make_parts", make_parts)
    summary = run_mining(open_source(source, **options), CONFIG, output, make_parts=make)
    lines = (output / "quarantine.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    for count in (summary["images_in"],):
        parts = ("images_with_pairs", "images_without_pairs", "images_quarantined")
        assert count == sum(summary[name] for name in parts)
    assert summary["images_quarantined"] == len(entries)
    return summary, entries


def header(name: str, size: bytes) -> bytes:
    """A header of a tar with a size as it stands there."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.GNU_FORMAT))
    block[124:136] = size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


HEADERS = {
    "negative": header("x.png", b"\xff" * 10 + b"\xfe\x00"),  # -512
    "absurd": header("x.png", b"\x80" + b"\x7f" + b"\xff" * 10),
    "large": header("x.png", b"77777777777\0"),
    "back_to_the_start": header("x.png", b"\xff" * 10 + b"\xf8\x00"),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_sizes_in_headers_of_tars_that_cannot_be(tmp_path, kind):
    path = write_tar(tmp_path / "in" / "x.tar", SOUND)
    content = path.read_bytes()[: 512 * 8]
    path.write_bytes(content + HEADERS[kind] + bytes(1024))

    summary, entries = mined(path, tmp_path / "out")

    assert summary["images_with_pairs"] == 2
    assert {entry["kind"] for entry in entries} == {"picture"}
    assert 1 <= len(entries) <= 2


@pytest.mark.parametrize(
    "attributes",
    [
        {"GNU.sparse.map": "0,x"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"},
        {"GNU.sparse.size": "-5", "GNU.sparse.map": "0,1"},
        {"size": "-512"},
        {"size": "99999999999999999999"},
    ],
)
def test_sparse_and_extended_headers_of_tars(tmp_path, attributes):
    path = tmp_path / "in" / "x.tar"
    write_tar(path, SOUND)
    with tarfile.open(tmp_path / "y.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("c.png")
        info.pax_headers = attributes
        tar.addfile(info)
    path.write_bytes(path.read_bytes()[: 512 * 8] + (tmp_path / "y.tar").read_bytes())

    summary, entries = mined(path, tmp_path / "out")

    assert summary["images_with_pairs"] == 2
    assert len(entries) <= 2


def test_places_in_a_tar_that_cannot_be(tmp_path):
    write_tar(tmp_path / "x.tar", SOUND)
    places = ["x.tar#a@0+99999999999999999999", "x.tar#a@99999999999999999999+4", "x.tar#a@0+"]
    places += [f"x.tar#a@0+{'9' * 5000}", "x.tar#a@512+999999999999"]
    rows = "".join(f"{place}\ta cat\n" for place in places)
    write(tmp_path / "t.tsv", "filepath\ttitle\n" + rows)

    _, entries = mined(tmp_path / "t.tsv", tmp_path / "out")

    assert [entry["kind"] for entry in entries] == ["picture"] * 5
    assert "the tar ends after" in entries[0]["reason"]


@pytest.mark.parametrize("column", ["jpg", "caption"])
def test_a_damaged_page_of_a_table(tmp_path, column):
    pictures = [picture(n) for n in range(8)]
    captions = [f"a cat on the grass {os.urandom(200).hex()}" for _ in range(8)]
    path = write(tmp_path / "t.parquet", b"")
    table = pa.table({"jpg": pictures, "caption": captions})
    pq.write_table(table, path, row_group_size=4, use_dictionary=False, compression="gzip")
    group = pq.read_metadata(path).row_group(1)
    chunk = group.column(table.column_names.index(column))
    content = bytearray(path.read_bytes())
    end = chunk.data_page_offset + chunk.total_compressed_size
    content[end - 40 : end - 8] = b"\xff" * 32
    path.write_bytes(content)

    summary, entries = mined(path, tmp_path / "out")

    assert summary["images_with_pairs"] == 4
    assert len(entries) == 4
    assert all("row group 1 cannot be read" in entry["reason"] for entry in entries)
    assert str(tmp_path) not in entries[0]["reason"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("1.npz", b"PK\x03\x04" + b"\xff" * 60),
        ("1.npz", None),
        ("1.json", b"[" * 100_000 + b"]" * 100_000),
        ("1.json", b'{"a": ' * 100_000),
        ("1.json", b'[{"size": [4, 6], "counts": [1, 2]}]'),
        ("1.json", b'[{"size": [4, 6], "counts": "0"}]'),
        ("1.json", b"[[[NaN, 1, 2, 3, 4, 5]]]"),
        ("1.json", b"17"),
        ("1.json", b"\xff\xfe"),
    ],
)
def test_damaged_files_of_regions(tmp_path, name, content):
    for number in range(3):
        write(tmp_path / "in" / f"{number}.png", picture(40 * number))
        write(tmp_path / "in" / f"{number}.txt", CAPTION)
    regions = tmp_path / "regions"
    regions.mkdir()
    for number in (0, 2):
        np.savez_compressed(regions / f"{number}.npz", masks=np.ones((1, 4, 6), bool))
    if content is None:  # the array's bytes are damaged, its header is not
        np.savez_compressed(regions / name, masks=np.random.default_rng(0).random((9, 4, 6)) > 0.5)
        damaged = bytearray((regions / name).read_bytes())
        damaged[120:160] = bytes(40)
        content = bytes(damaged)
    (regions / name).write_bytes(content)

    def make():
        return dataclasses.replace(make_parts(), proposer=FileProposer(regions))

    summary, entries = mined(tmp_path / "in", tmp_path / "out", make_parts=make)

    assert [entry["kind"] for entry in entries] == ["regions"]
    assert entries[0]["image_id"] == "1"
    assert summary["images_in"] == 3


def test_captions_nested_without_end(tmp_path):
    write(tmp_path / "in" / "a.png", picture(5))
    write(tmp_path / "in" / "a.json", b'{"caption": ' + b"[" * 200_000)
    write(tmp_path / "in" / "b.png", picture(5))
    write(tmp_path / "in" / "b.txt", CAPTION)
    summary, entries = mined(tmp_path / "in", tmp_path / "out")
    assert [entry["kind"] for entry in entries] == ["caption"]
    assert summary["images_in"] == 2


def test_pictures_beyond_the_miners_limit_are_not_decoded(tmp_path, monkeypatch):
    size = struct.pack(">IIBBBBB", 8000, 8000, 8, 2, 0, 0, 0)
    blocks = [(b"IHDR", size), (b"IDAT", zlib.compress(bytes(1000)))]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in blocks
    ]
    write(tmp_path / "in" / "a.png", b"\x89PNG\r\n\x1a\n" + b"".join(chunks))
    write(tmp_path / "in" / "a.txt", CAPTION)
    _, entries = mined(tmp_path / "in", tmp_path / "out")
    assert "8000 x 8000 pixels, the limit is 5000" in entries[0]["reason"]


def test_names_that_are_not_utf_8_and_pipes(tmp_path, caplog):
    caplog.set_level("DEBUG", "ovseg")
    folder = tmp_path / "in"
    write(folder / "b.png", picture(9))
    write(folder / "b.txt", CAPTION)
    name = os.fsencode(folder) + b"/caf\xe9"
    for ending, content in ((b".png", picture(7)), (b".txt", CAPTION)):
        Path(os.fsdecode(name + ending)).write_bytes(content)
    os.mkfifo(folder / "c.png")
    write(folder / "c.txt", CAPTION)

    summary, entries = mined(folder, tmp_path / "out")

    assert summary["images_with_pairs"] == 1
    assert [entry["image_id"] for entry in entries] == ["c", "caf\udce9"]
    assert "regular file" in entries[0]["reason"]
    assert "caf  quarantined" in caplog.text and caplog.text.encode()  # a log file takes it
    assert set(read_records(tmp_path / "out")["image_id"].to_pylist()) == {"b"}
