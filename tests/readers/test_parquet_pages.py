from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.readers.parquet_pages import column_pages, page_totals

# Thrift's compact protocol: a byte of (step to the field, kind), then the value; 0 ends a struct.
# Whole numbers are zigzag: 6 is written as 12. Fields 2 and 3 are the sizes of a page, the values
# are field 1 of the struct that is field 5.
SIZES = b"\x15\x00\x15\x0c\x15\x08"
DATA_PAGE = b"\x2c\x15\x14\x00\x00"


def totals(*headers: bytes) -> tuple[int, int]:
    content = b"".join(header + b"page" for header in headers)
    return page_totals(io.BytesIO(b"PAR1" + content + b"rest"), 4, len(content))


def test_pages_are_added_up():
    assert totals(SIZES + DATA_PAGE) == (10, 6)
    assert totals(SIZES + DATA_PAGE, SIZES + DATA_PAGE, SIZES + b"\x00") == (20, 18)


@pytest.mark.parametrize(
    "field",
    [
        b"\x11",  # true
        b"\x13\x07",  # a byte
        b"\x17" + b"\x00" * 8,  # a number with a point
        b"\x18\x03abc",  # a text
        b"\x19\x25\x02\x04",  # a list of two whole numbers
        b"\x1a\x21\x01\x02",  # a set of two truth values
        b"\x19\xf8\x10" + b"\x01x" * 16,  # a list of sixteen texts
        b"\x19\x1c\x15\x0c\x00",  # a list of a struct
    ],
)
def test_other_fields_are_passed_over(field):
    # The sizes come first; what follows steps on from field 3, the data page is named anew.
    assert totals(SIZES + field + b"\x0c\x0a\x15\x14\x00\x00") == (10, 6)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"\x15\x00\x00", "a page of -1 bytes, -1 after decompression, at 4"),
        (b"\x15\x00\x15\x0c\x15\xff\x7f\x00", "a page of -8192 bytes, 6 after"),
        (b"\x15\x00\x15\x0c\x15\xfe\x7f\x00", "a page of 8191 bytes, 6 after"),
        (b"\x1d\x00", "a field of kind 13"),
        (b"\x15" + b"\xff" * 12, "a number of too many bytes"),
        (b"\x18\x7fabc", "a header that does not end"),
        (b"\x1c" * 200, "nested too deeply"),
        (b"\x19" * 60_000, "nested too deeply"),
    ],
)
def test_headers_without_sense_are_refused(header, message):
    with pytest.raises(ValueError, match=message):
        totals(header)


def test_a_header_that_breaks_off_is_refused():
    with pytest.raises(IndexError):
        page_totals(io.BytesIO(b"\x15"), 0, 1)


def test_the_footer_says_what_pyarrow_says(tmp_path):
    table = pa.table(
        {
            "text": ["a", None, "b" * 1000],
            "image": [{"bytes": b"1", "path": "x"}, None, {"bytes": b"2", "path": None}],
            "number": pa.array([1.5, 2.0, 3.0]),
            "all_the_same": [7, 7, 7],
        }
    )
    path = str(tmp_path / "a.parquet")
    pq.write_table(table, path, row_group_size=2, compression="zstd")
    metadata = pq.ParquetFile(path).metadata
    found = column_pages(path)
    assert len(found) == metadata.num_row_groups == 2
    for number, columns in enumerate(found):
        group = metadata.row_group(number)
        assert len(columns) == group.num_columns == 5
        for place, column in enumerate(columns):
            expected = group.column(place)
            assert ".".join(column.path) == expected.path_in_schema
            assert column.values == expected.num_values
            assert column.uncompressed == expected.total_uncompressed_size
            assert column.size == expected.total_compressed_size
            places = (expected.data_page_offset, expected.dictionary_page_offset)
            assert column.start == min(place for place in places if place)
    pq.write_table(table.slice(0, 1), path)
    assert len(column_pages(path)) == 1  # the file was replaced
