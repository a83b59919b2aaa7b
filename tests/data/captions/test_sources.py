from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from ovseg.data.captions.sources import ImageReader, ImageRow, open_source
from ovseg.readers.pictures import ImageError
from tests.data.captions.source_files import picture, shade, write, write_tar


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
