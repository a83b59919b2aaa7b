from __future__ import annotations

import io
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ovseg.readers.pictures import ImageError, decode_image
from ovseg.utils.image_store import ImageStore


def picture(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((2, 3, 3), shade, np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def test_a_slice_of_a_tar_is_read_by_its_place(tmp_path):
    data = picture(5)
    (tmp_path / "x.tar").write_bytes(b"before" + data + b"after")

    uri = f"x.tar#odd #@name.png@6+{len(data)}"

    assert ImageStore(tmp_path).read_bytes(uri) == data
    assert ImageStore(tmp_path).read(uri)[1, 2].tolist() == [5, 5, 5]
    with pytest.raises(ImageError, match=r"x\.tar.*ends after 5 of the member's 9 bytes"):
        ImageStore(tmp_path).read(f"x.tar#a@{6 + len(data)}+9")


def test_cells_of_a_table_are_read_in_any_order_and_by_a_copy(tmp_path):
    table = pa.table({"image": [picture(shade) for shade in range(5)], "name": list("abcde")})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=2)
    store = ImageStore(tmp_path)
    store.read("t.parquet#image@0")
    copy = pickle.loads(pickle.dumps(store))

    for row in (4, 0, 3, 1):
        assert store.read(f"t.parquet#image@{row}")[0, 0, 0] == row
        assert copy.read(f"t.parquet#image@{row}")[0, 0, 0] == row
    with pytest.raises(ImageError, match="the table has 5 rows"):
        store.read("t.parquet#image@5")
    with pytest.raises(ImageError, match="expected bytes, got str"):
        store.read("t.parquet#name@0")
    with pytest.raises(ImageError, match="no column 'photo'"):
        store.read("t.parquet#photo@0")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "address is empty"),
        ("HTTPS://example.org/a.png", "not fetched from the web"),
        ("s3://bucket/a.png", "not fetched from the web"),
        ("x.tar", "without a place in it"),
        ("gone.png", "no such file"),
        (".", "got a folder"),
    ],
)
def test_addresses_without_a_picture_are_explained(tmp_path, uri, reason):
    (tmp_path / "x.tar").write_bytes(b"")

    with pytest.raises(ImageError, match=reason):
        ImageStore(tmp_path).read(uri)


def test_bytes_are_decoded_as_files_are_and_errors_carry_the_name():
    assert decode_image(picture(9), "a").tolist() == np.full((2, 3, 3), 9).tolist()
    with pytest.raises(ImageError, match="row 3: not an image"):
        decode_image(b"nothing", "row 3")
    with pytest.raises(ImageError, match="row 4: 3 x 2 pixels, the limit is 5"):
        decode_image(picture(9), "row 4", max_pixels=5)
