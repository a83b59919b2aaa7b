from __future__ import annotations

import io
import pickle
import tarfile

import pytest

from ovseg.data.captions.sources import open_source
from ovseg.readers.pictures import ImageError
from tests.data.captions.source_files import picture, shade, write, write_tar


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
