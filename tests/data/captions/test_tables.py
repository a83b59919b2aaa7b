from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ovseg.data.captions.sources import ImageReader, ImageRow, open_source
from ovseg.readers.pictures import ImageError
from tests.data.captions.source_files import picture, shade, write


class TestTable:
    def test_lines_of_one_picture_become_one_row(self, tmp_path):
        write(tmp_path / "a.png", picture(9))
        lines = "title\tfilepath\na cat\ta.png\na dog\tb.png\nthe cat\ta.png\n"
        source = open_source(write(tmp_path / "pairs.csv", lines))

        rows = list(source)

        assert rows == [
            ImageRow("a.png", "a.png", ("a cat", "the cat")),
            ImageRow("b.png", "b.png", ("a dog",)),
        ]
        assert shade(source, rows[0]) == 9

    def test_quotes_commas_and_line_breaks_of_a_csv_are_understood(self, tmp_path):
        text = '\ufeffimage_id,image,caption\r\n1,a.png,"a ""big"" cat,\nasleep"\r\n2,b.png,ünï\r\n'

        rows = list(open_source(write(tmp_path / "pairs.csv", text)))

        assert rows == [
            ImageRow("1", "a.png", ('a "big" cat,\nasleep',)),
            ImageRow("2", "b.png", ("ünï",)),
        ]

    def test_a_quote_that_is_never_closed_swallows_nothing(self, tmp_path):
        body = 'a.png\t"a cat\nb.png\ta 6" ruler\nc.png\t"quoted"\nd.png\t"two\nlines"\n'

        rows = list(open_source(write(tmp_path / "t.tsv", "filepath\tcaption\n" + body)))

        assert [row.uri for row in rows] == ["a.png", "b.png", "c.png", "d.png"]
        assert [row.captions[0] for row in rows] == [
            '"a cat', 'a 6" ruler', "quoted", "two\nlines",
        ]  # fmt: skip

    def test_the_last_quote_of_a_file_may_stay_open(self, tmp_path):
        body = 'a.png\tone\nb.png\t"two'

        rows = list(open_source(write(tmp_path / "t.tsv", "filepath\tcaption\n" + body)))

        assert [(row.uri, row.captions[0]) for row in rows] == [("a.png", "one"), ("b.png", '"two')]

    def test_short_lines_null_bytes_and_wrong_utf8_are_delivered(self, tmp_path):
        body = b"filepath\tcaption\nonly.png\na.png\t\nb.png\t\x00 \xff\n\n\tno picture\n"

        rows = list(open_source(write(tmp_path / "t.tsv", body)))

        assert [(row.uri, row.captions) for row in rows] == [
            ("", (None,)),
            ("a.png", ("",)),
            ("b.png", ("\x00 \ufffd",)),
            ("", ("no picture",)),
        ]
        assert [row.image_id for row in rows] == ["t.tsv:2", "a.png", "b.png", "t.tsv:6"]
        with pytest.raises(ImageError, match=r"image t\.tsv:2: no picture is given"):
            ImageReader(tmp_path)(rows[0])

    def test_a_very_long_caption_arrives_whole(self, tmp_path):
        caption = "word " * 40_000
        path = write(tmp_path / "t.csv", f'image,caption\na.png,"{caption}"\n')

        (row,) = open_source(path)

        assert row.captions == (caption,)

    def test_a_missing_column_is_named_with_the_choices(self, tmp_path):
        path = write(tmp_path / "t.tsv", "file\twords\na\tb\n")

        with pytest.raises(ValueError, match=r"column for pictures, one of \['filepath'.*'words'"):
            open_source(path)


class TestParquet:
    def write(self, path: Path, **columns) -> Path:
        pq.write_table(pa.table(columns), path, row_group_size=2)
        return path

    def test_bytes_are_read_by_row_across_row_groups(self, tmp_path):
        path = self.write(
            tmp_path / "t.parquet",
            image=[picture(number) for number in range(5)],
            caption=[f"c{number}" for number in range(5)],
        )

        source = open_source(path)
        shards = [pickle.loads(pickle.dumps(shard)) for shard in source.shards(3)]

        assert [len(shard.rows) for shard in shards] == [3, 2]
        rows = [row for shard in shards for row in shard.rows]
        assert rows[3] == ImageRow("t/3", "t.parquet#image@3", ("c3",))
        assert [shade(source, row) for row in rows[::-1]] == [4, 3, 2, 1, 0]

    def test_hugging_faces_struct_lists_of_captions_and_ids(self, tmp_path):
        write(tmp_path / "p.png", picture(6))
        path = self.write(
            tmp_path / "t.parquet",
            id=["x", None, "z"],
            image=[
                {"bytes": picture(4), "path": "gone.png"},
                {"bytes": None, "path": "p.png"},
                None,
            ],
            captions=[["a", None], [], None],
        )

        source = open_source(path)
        rows = list(source)

        assert [(row.image_id, row.captions) for row in rows] == [
            ("t/x", ("a", None)),
            ("t/1", ()),
            ("t/z", (None,)),
        ]
        assert [shade(source, row) for row in rows[:2]] == [4, 6]
        with pytest.raises(ImageError, match=r"image t/z: .* null instead of a picture"):
            shade(source, rows[2])

    def test_paths_are_taken_as_files_and_web_addresses_are_refused(self, tmp_path):
        write(tmp_path / "p.png", picture(6))
        path = self.write(
            tmp_path / "t.parquet",
            url=["p.png", "https://example.org/a.jpg", None],
            text=["a", "b", "c"],
        )

        source = open_source(path)
        rows = list(source)

        assert shade(source, rows[0]) == 6
        with pytest.raises(ImageError, match="not fetched from the web"):
            shade(source, rows[1])
        assert rows[2].uri == ""

    def test_another_file_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match=r"t\.parquet: not a readable parquet"):
            open_source(write(tmp_path / "t.parquet", b"x"))
        with pytest.raises(ValueError, match="column for captions"):
            open_source(self.write(tmp_path / "u.parquet", image=["a"], words=["b"]))
