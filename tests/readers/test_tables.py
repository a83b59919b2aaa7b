"""Parquet tables whose pages are damaged or claim too much."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.readers.limits import LimitError, limited
from ovseg.readers.tables import ParquetTable, TableError, read_parquet

TABLE = pa.table(
    {
        "image": [bytes([n % 251]) * (n % 40) for n in range(3000)],
        "caption": [f"a cat of number {n % 7}" if n % 3 else None for n in range(3000)],
        "many": [[f"{n}", "x"] * (n % 4) for n in range(3000)],
        "both": [{"bytes": b"ab", "path": f"{n}"} for n in range(3000)],
    }
)


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["none", "snappy", "zstd", "gzip"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_tables_of_every_writer_option_come_back(tmp_path, version, compression, dictionary):
    path = tmp_path / "a.parquet"
    pq.write_table(
        TABLE,
        path,
        compression=compression,
        data_page_version=version,
        use_dictionary=dictionary,
        row_group_size=1100,
        data_page_size=2000,
        write_page_index=True,
    )
    assert read_parquet(path).equals(TABLE)
    with ParquetTable(path) as table:
        assert len(table) == 3000
        assert table.rows_of_groups == [1100, 1100, 800]
        assert table.read_group(1, ["caption"]).num_rows == 1100


def test_a_page_that_claims_gigabytes_is_refused_before_it_is_decompressed(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [b"x" * 1000]}), path, use_dictionary=False, compression="gzip")
    content = path.read_bytes()
    start = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    # type 0, then the bytes after decompression: 1004, as a number of two bytes in zigzag.
    assert content[start : start + 3] == b"\x15\x00\x15"
    honest = content[start + 3 : start + 5]
    claimed = (honest[0] | 0x80).to_bytes(1, "little") + b"\x7f"
    path.write_bytes(content[: start + 3] + claimed + content[start + 5 :])
    with pytest.raises(TableError, match=r"a\.parquet: a: its pages claim 1 values in \d+ bytes"):
        read_parquet(path)


def test_a_damaged_page_names_the_file(tmp_path):
    path = tmp_path / "a.parquet"
    noise = np.random.default_rng(0).bytes(3000)
    pq.write_table(pa.table({"a": [noise]}), path, use_dictionary=False, compression="gzip")
    content = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(0)
    end = chunk.data_page_offset + chunk.total_compressed_size
    for place in (4, 8, end - 3000, end - 8):
        damaged = bytearray(content)
        damaged[place : place + 4] = b"\xff\xff\xff\xff"
        path.write_bytes(damaged)
        with pytest.raises(TableError, match=r"a\.parquet"):
            read_parquet(path)


def test_columns_and_groups_beyond_the_limits_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(TABLE, path)
    with limited(table_rows=2999), pytest.raises(LimitError, match="2999 table rows, got 3000"):
        read_parquet(path)
    with limited(table_bytes=999), pytest.raises(LimitError, match="999 table bytes"):
        read_parquet(path)


def test_column_of_few_bytes_and_many_rows_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    word = pa.DictionaryArray.from_arrays(np.zeros(30_000_000, np.int8), [b"x"])
    pq.write_table(pa.table({"a": word}), path, row_group_size=30_000_000)
    assert path.stat().st_size < 100_000  # a run of one value; the pages' headers take most
    with pytest.raises(LimitError, match="table rows, got 30000000"):
        read_parquet(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" * 100, b"\0" * 500])
def test_what_is_no_table_is_told(tmp_path, content):
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    with pytest.raises(TableError, match=r"a\.parquet: not a readable parquet file"):
        read_parquet(path)


def test_a_table_without_rows_is_read(tmp_path):
    empty = pa.table({"text": pa.array([], pa.string()), "number": pa.array([], pa.int64())})
    pq.write_table(empty, tmp_path / "empty.parquet", compression="zstd")
    assert read_parquet(tmp_path / "empty.parquet").schema.names == ["text", "number"]
    pq.write_table(empty, tmp_path / "plain.parquet", use_dictionary=False)
    assert read_parquet(tmp_path / "plain.parquet").num_rows == 0
