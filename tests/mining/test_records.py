from __future__ import annotations

import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.mining.records import (
    SCHEMA,
    filter_records,
    make_pair_id,
    read_records,
    records_table,
    write_records,
)


def row(number: int, noun: str = "car", **changes):
    values = {
        "pair_id": make_pair_id(str(number), "a car", (2, 5), "05", noun),
        "image_id": str(number),
        "image_uri": f"{number}.jpg",
        "image_sha256": "0" * 64,
        "height": 4,
        "width": 5,
        "caption": "a car",
        "caption_index": 0,
        "span_start": 2,
        "span_end": 5,
        "noun": noun,
        "lemma": noun,
        "rle_counts": "05",
        "bbox": [0, 1, 2, 3],
        "area": 3,
        "clip_score": 0.25,
        "runner_up_score": 0.2,
        "margin": 0.05,
        "noun_probability": 0.5,
        "mutual": True,
        "proposal_model": "m",
        "clip_model": "c",
        "noun_tagger": "t",
        "config_hash": "h",
        "origin": "caption",
    }
    return values | changes


def ids(table):
    return [int(number) for number in table["image_id"].to_pylist()]


def test_what_is_written_is_read_back_with_scores_rounded(tmp_path: Path):
    rows = [row(0, clip_score=0.123456), row(1, runner_up_score=None, margin=None)]

    write_records(tmp_path / "part-00000.parquet", rows)
    table = read_records(tmp_path / "part-00000.parquet")

    assert table.schema.equals(SCHEMA)
    back = table.to_pylist()
    assert back[0]["clip_score"] == pytest.approx(0.1235, abs=1e-7)
    assert back[1]["margin"] is None
    assert back[0]["bbox"] == [0, 1, 2, 3]
    assert {k: v for k, v in back[1].items() if not isinstance(v, float)} == {
        k: v for k, v in rows[1].items() if not isinstance(v, float)
    }


def test_equal_rows_give_equal_bytes_however_the_table_was_put_together(tmp_path: Path):
    rows = [row(number) for number in range(50)]
    whole = records_table(rows)

    write_records(tmp_path / "a.parquet", rows)
    write_records(tmp_path / "b.parquet", records_table(rows))
    write_records(tmp_path / "c.parquet", read_records(tmp_path / "a.parquet"))
    write_records(tmp_path / "d.parquet", pa.concat_tables([whole.slice(0, 7), whole.slice(7)]))

    digests = {hashlib.sha256(file.read_bytes()).hexdigest() for file in tmp_path.glob("*")}
    assert len(digests) == 1
    assert pq.read_metadata(tmp_path / "a.parquet").row_group(0).column(0).compression == "ZSTD"


def test_a_difference_below_the_rounding_does_not_change_the_bytes(tmp_path: Path):
    write_records(tmp_path / "a.parquet", [row(0, clip_score=0.30001)])
    write_records(tmp_path / "b.parquet", [row(0, clip_score=0.300012)])

    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_parts_of_a_run_are_joined_in_the_order_of_their_names(tmp_path: Path):
    write_records(tmp_path / "shards" / "part-00001.parquet", [row(1)])
    write_records(tmp_path / "shards" / "part-00000.parquet", [row(0)])
    write_records(tmp_path / "shards" / "part-00002.parquet", [])

    assert ids(read_records(tmp_path)) == [0, 1]
    assert ids(read_records(tmp_path / "shards")) == [0, 1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"extra": 1}, "not known ['extra']"),
        ({"lemma": None}, "column lemma: expected a value"),
        ({"height": "four"}, "column height expects int32"),
        ({"bbox": [1, 2]}, "column bbox expects"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, change, text):
    with pytest.raises(ValueError, match="column") as caught:
        write_records(tmp_path / "a.parquet", [row(0, **change)])

    assert text in str(caught.value)
    assert not (tmp_path / "a.parquet").exists()


def test_what_is_no_record_file_is_named(tmp_path: Path):
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing")
    with pytest.raises(ValueError, match=r"broken\.parquet"):
        read_records(tmp_path / "broken.parquet")
    with pytest.raises(FileNotFoundError, match=r"part-\*\.parquet"):
        read_records(tmp_path / "nowhere")


def test_scores_margins_and_mutual_choice_filter():
    table = records_table(
        [
            row(0, clip_score=0.1),
            row(1, clip_score=0.3, margin=0.01),
            row(2, clip_score=0.3, margin=None),
            row(3, clip_score=0.3, mutual=False),
            row(4, clip_score=0.3),
        ]
    )

    assert ids(filter_records(table, min_score=0.3)) == [1, 2, 3, 4]
    assert ids(filter_records(table, min_margin=0.02)) == [0, 3, 4]
    assert ids(filter_records(table, mutual=True)) == [0, 1, 2, 4]
    assert ids(filter_records(table, min_score=0.3, min_margin=0.02, mutual=True)) == [4]


def test_counts_are_limited_per_noun_after_the_other_conditions():
    rows = [row(number, "car" if number % 4 else "dog") for number in range(20)]
    rows[4] = row(4, "dog", clip_score=0.0)
    table = records_table(rows)

    few = filter_records(table, min_score=0.1, min_count=5)
    assert set(few["noun"].to_pylist()) == {"car"}  # 4 dogs are left of 5
    assert filter_records(table, min_count=5).num_rows == 20

    capped = filter_records(table, max_count=3)
    assert capped["noun"].to_pylist().count("car") == 3
    assert capped["noun"].to_pylist().count("dog") == 3


def test_which_pairs_a_cap_keeps_does_not_depend_on_their_order():
    rows = [row(number) for number in range(30)]

    forth = filter_records(records_table(rows), max_count=7)
    back = filter_records(records_table(rows[::-1]), max_count=7)

    assert ids(forth) == sorted(ids(back))
    assert ids(back) == sorted(ids(back), reverse=True)
    assert ids(forth) != list(range(7))


def test_an_empty_table_passes_every_filter():
    empty = filter_records(
        records_table([]), min_score=0, min_margin=0, mutual=True, min_count=1, max_count=1
    )

    assert empty.num_rows == 0
    assert empty.schema.equals(SCHEMA)


def test_a_pair_is_named_by_all_of_its_content():
    arguments = ("ab", "a car", (2, 5), "05", "car")
    changed = [("ac", *arguments[1:]), ("ab", "a cat", *arguments[2:]),
               ("ab", "a car", (2, 4), "05", "car"), (*arguments[:3], "06", "car"),
               (*arguments[:4], "auto")]  # fmt: skip

    names = {make_pair_id(*content) for content in [arguments, *changed]}

    assert len(names) == 6
    assert make_pair_id(*arguments) == make_pair_id(*arguments)
    assert all(len(name) == 32 for name in names)


def test_records_of_before_there_were_labels_are_of_captions(tmp_path: Path):
    old = records_table([row(0), row(1)]).drop_columns(["origin"])
    pq.write_table(old, tmp_path / "part-00000.parquet")

    table = read_records(tmp_path)

    assert table.schema.equals(SCHEMA)
    assert table["origin"].to_pylist() == ["caption", "caption"]


def test_pairs_of_labels_pass_what_asks_how_sure_a_match_is():
    known = {"origin": "label", "clip_score": 0.0, "runner_up_score": None, "margin": None}
    table = records_table([row(0, clip_score=0.1, mutual=False), row(1, **known), row(2, **known)])

    for condition in ({"min_score": 0.2}, {"min_margin": 0.1}, {"mutual": True}):
        assert ids(filter_records(table, **condition)) == [1, 2]
    assert len(filter_records(table, mutual=True, max_count=1)) == 1
