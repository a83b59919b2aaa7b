from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ovseg.mining.sources import ImageReader, ImageRow, open_source
from ovseg.utils.images import ImageError


def picture(shade: int, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 6, 3), shade, np.uint8)).save(stream, kind)
    return stream.getvalue()


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_tar(path: Path, members: list[tuple[str, bytes]], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def shade(source, row: ImageRow) -> int:
    image = ImageReader(source.image_root)(row)
    assert image.shape == (4, 6, 3)
    return int(image[0, 0, 0])


def coco(root: Path, images: list[dict], annotations: list[dict]) -> Path:
    content = {"images": images, "annotations": annotations}
    return write(root / "annotations" / "captions_train.json", json.dumps(content))


class TestCoco:
    def test_captions_stand_with_their_image_in_the_order_of_the_images(self, tmp_path):
        write(tmp_path / "train" / "b.png", picture(7))
        path = coco(
            tmp_path,
            [{"id": 5, "file_name": "b.png"}, {"id": 2, "file_name": "a.png"}],
            [
                {"image_id": 2, "caption": "two"},
                {"image_id": 5, "caption": "five"},
                {"image_id": 2, "caption": "again"},
            ],
        )

        source = open_source(path)

        assert source.kind == "coco"
        assert source.image_root == tmp_path / "train"
        assert list(source) == [
            ImageRow("5", "b.png", ("five",)),
            ImageRow("2", "a.png", ("two", "again")),
        ]
        assert shade(source, next(iter(source))) == 7

    def test_whatever_is_wrong_with_an_entry_it_is_delivered(self, tmp_path):
        (tmp_path / "train").mkdir()
        path = coco(
            tmp_path,
            [{"id": 1}, {"id": 2, "file_name": "x.png"}],
            [{"image_id": 1, "caption": None}, {"image_id": 9, "caption": "no image"}],
        )

        rows = list(open_source(path))

        assert rows == [
            ImageRow("1", "", (None,)),
            ImageRow("2", "x.png", ()),
            ImageRow("9", "", ("no image",)),
        ]

    @pytest.mark.parametrize(
        "content", ["[]", "{}", "no json", '{"images": [{}], "annotations": []}']
    )
    def test_another_file_is_refused_with_what_was_expected(self, tmp_path, content):
        path = write(tmp_path / "captions.json", content)

        with pytest.raises(ValueError, match=r"captions\.json: expected COCO captions"):
            open_source(path)


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


class TestFolder:
    def test_texts_stand_beside_pictures_at_any_depth(self, tmp_path):
        write(tmp_path / "z.png", picture(1))
        write(tmp_path / "z.txt", "a cat\n\n the cat \n")
        write(tmp_path / "in" / "y.JPG", picture(2, "JPEG"))
        write(tmp_path / "in" / "y.json", '{"caption": "a dog"}')
        write(tmp_path / "in" / ".hidden.png", b"")
        write(tmp_path / "notes.md", "no picture")

        source = open_source(tmp_path)
        rows = list(source)

        assert rows == [
            ImageRow("in/y", "in/y.JPG", ("a dog",)),
            ImageRow("z", "z.png", ("a cat", "the cat")),
        ]
        assert [shade(source, row) for row in rows] == [2, 1]

    def test_halves_of_a_pair_and_unknown_endings_are_delivered(self, tmp_path):
        write(tmp_path / "alone.png", picture(1))
        write(tmp_path / "empty.txt", "")
        write(tmp_path / "odd.dat", picture(3))
        write(tmp_path / "odd.txt", "odd")

        source = open_source(tmp_path, kind="folder")
        rows = list(source)

        assert rows == [
            ImageRow("alone", "alone.png", ()),
            ImageRow("empty", "", ("",)),
            ImageRow("odd", "odd.dat", ("odd",)),
        ]
        assert shade(source, rows[2]) == 3


class TestTars:
    def members(self, count: int) -> list[tuple[str, bytes]]:
        found = []
        for number in range(count):
            found.append((f"s/{number:03}.png", picture(number)))
            found.append((f"s/{number:03}.txt", f"caption {number}".encode()))
        return found

    def test_samples_are_read_from_their_own_part_of_the_tar(self, tmp_path):
        write_tar(tmp_path / "b" / "00001.tar", self.members(3))
        write_tar(tmp_path / "b" / "00000.tar", self.members(7))

        source = open_source(tmp_path / "b")
        shards = source.shards(3)

        assert source.kind == "webdataset"
        assert len(source) == 10
        assert [len(shard.rows) for shard in shards] == [3, 3, 1, 3]
        last_first = [list(pickle.loads(pickle.dumps(shard)).rows) for shard in shards[::-1]]
        rows = [row for group in last_first[::-1] for row in group]
        assert [row.image_id for row in rows[5:8]] == [
            "00000/s/005", "00000/s/006", "00001/s/000",
        ]  # fmt: skip
        assert rows[5].captions == ("caption 5",)
        assert [shade(source, row) for row in rows] == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]

    @pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_long_names_and_several_files_of_a_sample_are_understood(self, tmp_path, form):
        long = "deep/" * 30 + "ünï"
        members = [
            (f"{long}.mask.png", picture(99)),
            (f"{long}.png", picture(5)),
            (f"{long}.json", b'{"captions": ["one", null, 3]}'),
            ("b.txt", b"text"),
            ("b.jpg", picture(8, "JPEG")),
        ]
        source = open_source(write_tar(tmp_path / "x.tar", members, format=form))

        rows = [row for shard in source.shards(1) for row in shard.rows]

        assert [row.captions for row in rows] == [("one", None, None), ("text",)]
        assert [shade(source, row) for row in rows] == [5, 8]

    def test_samples_without_picture_or_caption_are_delivered(self, tmp_path):
        members = [("a.txt", b"only text"), ("b.png", picture(1)), ("c.png", picture(2)),
                   ("c.json", b"{"), ("d.jpg", b"")]  # fmt: skip

        source = open_source(write_tar(tmp_path / "x.tar", members))
        rows = list(source)

        assert [row.captions for row in rows] == [("only text",), (), (None,), ()]
        with pytest.raises(ImageError, match=r"image x/a: no picture is given"):
            shade(source, rows[0])
        with pytest.raises(ImageError, match="0 bytes"):
            shade(source, rows[3])

    # A sample has 4 blocks: header, picture, header, text.
    @pytest.mark.parametrize(
        ("kept", "sound", "lost"),
        [(0, 0, 1), (300, 0, 1), (512 * 9, 2, 2), (512 * 9 + 200, 3, 1), (512 * 10, 3, 1)],
    )
    def test_a_tar_that_breaks_off_loses_nothing_silently(self, tmp_path, kept, sound, lost):
        path = write_tar(tmp_path / "x.tar", self.members(5))
        path.write_bytes(path.read_bytes()[:kept])

        source = open_source(path)
        readable, unreadable = [], []
        for shard in source.shards(2):
            for row in shard.rows:
                try:
                    readable.append(shade(source, row))
                except ImageError as error:
                    unreadable.append(str(error))

        assert readable == list(range(sound))
        assert len(unreadable) == lost

    def test_damage_in_the_middle_is_a_row_of_its_own(self, tmp_path):
        path = write_tar(tmp_path / "x.tar", self.members(5))
        content = bytearray(path.read_bytes())
        content[512 * 8 : 512 * 9] = b"\x55" * 512  # the third sample's header
        path.write_bytes(content)

        rows = list(open_source(path))

        assert [row.image_id for row in rows] == ["x/s/000", "x/s/001", "x.tar#damaged"]

    def test_folders_in_a_tar_and_empty_tars_are_no_damage(self, tmp_path):
        path = tmp_path / "x.tar"
        with tarfile.open(path, "w") as tar:
            for name in ("s", "s/000.png", "s/sub", "s/000.txt", "s/end"):
                info = tarfile.TarInfo(name)
                content = picture(4) if name.endswith("png") else b"a cat"
                if "." in name:
                    info.size = len(content)
                else:
                    info.type = tarfile.DIRTYPE
                tar.addfile(info, io.BytesIO(content))
        write_tar(tmp_path / "y.tar", [])

        (row,) = open_source(tmp_path, kind="webdataset")

        assert row.captions == ("a cat",)

    def test_a_tar_that_changed_meanwhile_is_noticed(self, tmp_path):
        path = write_tar(tmp_path / "x.tar", self.members(4))
        shards = open_source(path).shards(2)
        write_tar(path, self.members(1) + [("s/000.json", b"{}")] * 9)

        with pytest.raises(RuntimeError, match="the source changed"):
            list(shards[1].rows)

    def test_compressed_tars_are_refused(self, tmp_path):
        path = write(tmp_path / "x.tar.gz", b"")

        with pytest.raises(ValueError, match="unpack them first"):
            open_source(path, kind="webdataset")


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


def test_broken_pictures_name_the_row_and_the_reason(tmp_path):
    write(tmp_path / "cut.jpg", picture(1, "JPEG")[:200])
    write(tmp_path / "zero.jpg", b"")
    write(tmp_path / "text.jpg", "not a picture")
    write(tmp_path / "really.jpg", picture(8))
    (tmp_path / "folder.jpg").mkdir()
    reader = ImageReader(tmp_path)

    for name, reason in {
        "cut.jpg": "",
        "zero.jpg": "0 bytes",
        "text.jpg": "not an image",
        "gone.jpg": "no such file",
        "folder.jpg": "a folder",
        "nul\0.jpg": "null",
        "x" * 400: "",
        "gone.tar#a.png@0+5": "no such file",
        "gone.parquet#image@0": "no such file",
    }.items():
        with pytest.raises(ImageError) as caught:
            reader(ImageRow("row 17", name, ()))
        assert str(caught.value).startswith("image row 17: ")
        assert reason in str(caught.value)
    assert reader(ImageRow("1", "really.jpg", ()))[0, 0, 0] == 8  # a PNG by the wrong name


def test_the_hash_is_of_the_files_bytes_wherever_they_lie(tmp_path):
    data = picture(3)
    write(tmp_path / "a.png", data)
    write_tar(tmp_path / "x.tar", [("a.png", data)])
    (row,) = open_source(tmp_path / "x.tar")
    reader = pickle.loads(pickle.dumps(ImageReader(tmp_path)))

    image, digest = reader.with_hash(ImageRow("a", "a.png", ()))

    assert digest == hashlib.sha256(data).hexdigest() == reader.with_hash(row)[1]
    np.testing.assert_array_equal(image, np.full((4, 6, 3), 3, np.uint8))


def test_shards_hold_every_row_once_in_order_for_any_size(tmp_path):
    body = "".join(f"{number}.png\tc\n" for number in range(10))
    source = open_source(write(tmp_path / "t.tsv", "image\tcaption\n" + body))

    for size in (1, 3, 10, 99):
        shards = source.shards(size)
        assert [shard.index for shard in shards] == list(range(-(-10 // size)))
        assert [row for shard in shards for row in shard.rows] == list(source)
    with pytest.raises(ValueError, match="at least 1"):
        source.shards(0)


def test_several_files_and_patterns_are_joined(tmp_path):
    for name in ("b", "a"):
        write(tmp_path / f"{name}.tsv", f"image\tcaption\n{name}.png\tc\n")

    assert [row.uri for row in open_source(tmp_path / "*.tsv")] == ["a.png", "b.png"]
    named = open_source([tmp_path / "b.tsv", tmp_path / "a.tsv"])
    assert [row.uri for row in named] == ["b.png", "a.png"]


def test_absolute_paths_become_relative_to_the_root_they_lie_in(tmp_path):
    path = write(tmp_path / "t.tsv", f"image\tcaption\n{tmp_path}/in/a.png\tc\n/else/b.png\tc\n")

    assert [row.uri for row in open_source(path)] == ["in/a.png", "/else/b.png"]
    inner = open_source(path, image_root=write(tmp_path / "in" / "a.png", b"").parent)
    assert [row.uri for row in inner] == ["a.png", "/else/b.png"]


def test_what_cannot_be_opened_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        open_source(tmp_path / "gone.tsv")
    with pytest.raises(ValueError, match=r"ending '\.doc', known are"):
        open_source(write(tmp_path / "a.doc", b""))
    with pytest.raises(ValueError, match="expected a kind of"):
        open_source(tmp_path, kind="lmdb")
    with pytest.raises(ValueError, match="kind 'folder' cannot be read"):
        open_source(tmp_path / "a.doc", kind="folder")
    table = write(tmp_path / "t.tsv", "image\tcaption\n")
    assert len(open_source(table)) == 0
    with pytest.raises(ValueError, match="as image_root"):
        open_source(table, image_root=tmp_path / "gone")
