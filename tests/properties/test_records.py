"""What is kept in JSON, parquet and arrays comes back."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
from hypothesis import example, given
from hypothesis import strategies as st

from ovseg.evaluation.counts import ImageCounts, read_counts, write_counts
from ovseg.evaluation.journal import Journal
from ovseg.mining.records import SCHEMA, read_records, write_records
from ovseg.readers.documents import read_json, read_json_lines
from ovseg.utils.files import write_json
from tests.properties.strategies import TEXTS

WHOLE = st.integers(-(2**31), 2**31 - 1)
# Texts of file names, which may hold bytes that no encoding has.
ANY_TEXT = st.text(st.characters() | st.sampled_from("\udc80\udce9\udcff"), max_size=8) | TEXTS
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=False) | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    max_leaves=8,
)
OF_TYPE = {
    pa.string(): TEXTS,
    pa.int32(): WHOLE,
    pa.float32(): st.floats(-1e4, 1e4, width=32).map(lambda value: round(value, 4)),
    pa.bool_(): st.booleans(),
    pa.list_(pa.int32(), 4): st.lists(WHOLE, min_size=4, max_size=4),
}
ROWS = st.fixed_dictionaries(
    {
        field.name: OF_TYPE[field.type] | st.none() if field.nullable else OF_TYPE[field.type]
        for field in SCHEMA
    }
)


def without_nan(value):
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


@given(value=VALUES, ascii_only=st.booleans())
def test_json_gives_values_back_and_null_for_no_number(tmp_path, value, ascii_only):
    write_json(tmp_path / "x.json", value, ensure_ascii=ascii_only)
    assert read_json(tmp_path / "x.json") == without_nan(value)


@given(rows=st.lists(ROWS, max_size=4))
def test_records_of_pairs_come_back(tmp_path, rows):
    write_records(tmp_path / "x.parquet", rows)
    found = read_records(tmp_path / "x.parquet").to_pylist()
    assert len(found) == len(rows)
    for row, other in zip(rows, found, strict=True):
        for name, value in row.items():
            if isinstance(value, float):
                assert np.float32(round(value, 4)) == np.float32(other[name])
            else:
                assert other[name] == value


@given(entries=st.lists(st.dictionaries(TEXTS, ANY_TEXT, max_size=3), max_size=4))
def test_lines_of_quarantine_stay_a_line_each(tmp_path, entries):
    lines = [json.dumps(entry, sort_keys=True) for entry in entries]
    (tmp_path / "q.jsonl").write_text("".join(f"{line}\n" for line in lines))
    assert list(read_json_lines(tmp_path / "q.jsonl")) == entries


@st.composite
def counts_of_pictures(draw: st.DrawFn) -> tuple[int, dict[str, ImageCounts]]:
    num_classes = draw(st.integers(1, 5))
    cells = st.dictionaries(st.integers(0, (num_classes + 1) ** 2 - 1), st.integers(1, 2**40))
    files = draw(
        st.dictionaries(ANY_TEXT.map(lambda text: f"{text.replace(chr(0), '')}.png"), cells)
    )
    return num_classes, {
        file: ImageCounts(
            np.array(sorted(given), np.int64), np.array([given[c] for c in sorted(given)], np.int64)
        )
        for file, given in files.items()
    }


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for file, counts in wanted.items():
        np.testing.assert_array_equal(found[file].cells, counts.cells)
        np.testing.assert_array_equal(found[file].pixels, counts.pixels)


@given(given_counts=counts_of_pictures())
@example(given_counts=(1, {}))
def test_counts_of_an_evaluation_come_back(tmp_path, given_counts):
    num_classes, images = given_counts
    write_counts(tmp_path / "x.npz", list(images), list(images.values()), num_classes)
    found, classes = read_counts(tmp_path / "x.npz")
    assert classes == num_classes
    assert_same(found, images)


@given(given_counts=counts_of_pictures(), torn=st.integers(0, 30))
def test_a_journal_gives_back_all_but_a_torn_line(tmp_path, given_counts, torn):
    _, images = given_counts
    journal = Journal(tmp_path / "journal", {"weights": "1"})
    for file, counts in images.items():
        journal.append(file, counts)
    journal.close()
    for part in (tmp_path / "journal").glob("*"):
        with part.open("ab") as file:
            file.write(b'{"file": "x.png", "cells": [1], "pixels": [1], "labels_hash": ""}'[:torn])
    assert_same(journal.read(), images)
    journal.remove()
    assert not (tmp_path / "journal").exists()
