from __future__ import annotations

import builtins
import io
import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.readers.limits import LimitError, limited
from ovseg.readers.pictures import ImageError
from ovseg.readers.rasters import ArrayPicture, open_geotiff
from ovseg.readers.tiff_headers import largest_mask_block
from ovseg.utils.pictures import open_picture, to_rgb

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 255, (70, 50, 3), np.uint8)
WINDOW = (slice(10, 45), slice(7, 50))


def write(path: Path, bands: np.ndarray = PIXELS, **options) -> Path:
    """Write (H, W, C) as a GeoTIFF in tiles of 16 pixels."""
    rasterio = pytest.importorskip("rasterio")
    height, width, count = bands.shape
    settings = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    colours = options.pop("colorinterp", None)
    mask = options.pop("mask", None)
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=count,
            dtype=bands.dtype,
            crs="EPSG:32633",
            transform=rasterio.Affine(0.5, 0.0, 400_000, 0.0, -0.5, 5_000_000),
            **settings | options,
        ) as file,
    ):
        if colours:
            file.colorinterp = [rasterio.enums.ColorInterp[name] for name in colours]
        file.write(bands.transpose(2, 0, 1))
        if mask is not None:
            file.write_mask(mask)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ImageError) as caught, open_geotiff(path):
        pass
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def test_windows_are_parts_of_the_picture(tmp_path):
    with open_geotiff(write(tmp_path / "a.tif")) as picture:
        assert picture.size == (70, 50)
        np.testing.assert_array_equal(picture.read(WINDOW), PIXELS[WINDOW])
        assert picture.blank(WINDOW) is None
        assert picture.georeference.crs.to_epsg() == 32633
        assert picture.georeference.transform[:6] == (0.5, 0.0, 400_000, 0.0, -0.5, 5_000_000)


def test_a_plain_tiff_is_read_as_pillow_reads_it(tmp_path):
    pytest.importorskip("rasterio")
    Image.fromarray(PIXELS).save(tmp_path / "a.tiff", compression="tiff_lzw")
    with open_picture(tmp_path / "a.tiff") as picture:
        np.testing.assert_array_equal(picture.read(WINDOW), to_rgb(tmp_path / "a.tiff")[WINDOW])


def test_other_pictures_are_read_at_once(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    for given in (PIXELS, tmp_path / "a.png"):
        with open_picture(given) as picture:
            assert isinstance(picture, ArrayPicture) and picture.size == (70, 50)
            np.testing.assert_array_equal(picture.read(WINDOW), PIXELS[WINDOW])
            assert picture.blank(WINDOW) is None


def test_pixels_without_a_picture_are_told(tmp_path):
    pixels = PIXELS.copy()
    pixels[20:30, 10:20] = 0
    pixels[40, 40, 0] = 0  # black in one band only
    expected = np.zeros((70, 50), bool)
    expected[20:30, 10:20] = True
    opacity = np.where(expected, 0, 130).astype(np.uint8)
    files = {
        "nodata": write(tmp_path / "nodata.tif", pixels, nodata=0),
        "alpha": write(
            tmp_path / "alpha.tif",
            np.dstack((PIXELS, opacity)),
            colorinterp=["red", "green", "blue", "alpha"],
        ),
        "mask": write(tmp_path / "mask.tif", mask=~expected),
    }
    for name, file in files.items():
        with open_geotiff(file) as picture:
            np.testing.assert_array_equal(picture.blank(WINDOW), expected[WINDOW], err_msg=name)


def test_bands_are_taken_by_their_colours(tmp_path):
    turned = np.dstack((PIXELS[..., ::-1], PIXELS[..., 0] // 2))
    path = write(
        tmp_path / "a.tif", turned, photometric="MINISBLACK",
        colorinterp=["blue", "green", "red", "undefined"],
    )  # fmt: skip
    with open_geotiff(path) as picture:
        np.testing.assert_array_equal(picture.read(WINDOW), PIXELS[WINDOW])


def test_other_bands_are_refused_with_what_to_do(tmp_path):
    grey = refused(write(tmp_path / "grey.tif", PIXELS[..., :1]))
    assert "bands for red, green and blue of 8 bits each, got 1 of uint8" in grey
    assert "-b 1 -b 1 -b 1" in grey
    deep = refused(write(tmp_path / "deep.tif", PIXELS.astype(np.uint16)))
    assert "got 3 of uint16; scale them to 0-255" in deep


def test_what_is_no_tiff_is_refused(tmp_path):
    pytest.importorskip("rasterio")
    for name, content in {
        "png.tif": b"\x89PNG\r\n\x1a\n" + b"0" * 50,
        "virtual.tif": b'<VRTDataset rasterXSize="1" rasterYSize="1"></VRTDataset>',
        "empty.tif": b"",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "expected a TIFF, got a file that does not begin as one" in refused(tmp_path / name)
    (tmp_path / "begin.tif").write_bytes(b"II*\0" + b"\xff" * 40)
    refused(tmp_path / "begin.tif")
    assert "no such file" in refused(tmp_path / "gone.tif")
    assert "got a folder" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.tif")
    assert "got a pipe" in refused(tmp_path / "pipe.tif")


def test_a_truncated_file_is_told_where_it_is_read(tmp_path):
    whole = write(tmp_path / "whole.tif").read_bytes()
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ImageError, match=r"cut\.tif: "), open_geotiff(cut) as picture:
        picture.read((slice(0, 70), slice(0, 50)))


def test_files_beside_it_are_not_looked_at(tmp_path):
    path = write(tmp_path / "a.tif")
    shutil.copy(path, tmp_path / "a.tif.msk")
    (tmp_path / "a.tif.aux.xml").write_text(
        "<PAMDataset><PAMRasterBand band='1'><NoDataValue>7</NoDataValue></PAMRasterBand>"
        "</PAMDataset>"
    )
    (tmp_path / "a.tfw").write_text("9\n0\n0\n-9\n1\n1\n")
    with open_geotiff(path) as picture:
        assert picture.blank(WINDOW) is None and picture.georeference.transform.a == 0.5
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "a.tfw", "a.tif", "a.tif.aux.xml", "a.tif.msk",
    ]  # fmt: skip


def test_sizes_are_bounded_before_anything_is_read(tmp_path):
    path = write(tmp_path / "a.tif")
    with limited(picture_pixels=3499), pytest.raises(LimitError, match="3499 picture pixels"):
        open_geotiff(path).__enter__()
    with limited(raster_block_bytes=767), pytest.raises(LimitError, match="cut into tiles, it can"):
        open_geotiff(path).__enter__()
    with limited(raster_block_bytes=768, picture_pixels=3500), open_geotiff(path):
        pass
    rasterio = pytest.importorskip("rasterio")
    sparse = tmp_path / "sparse.tif"
    with rasterio.open(
        sparse, "w", driver="GTiff", width=30_000, height=30_000, count=3, dtype="uint8",
        tiled=True, blockxsize=4096, blockysize=4096, SPARSE_OK=True,
    ):  # fmt: skip
        pass
    assert "claims 900000000 pixels, more than" in refused(sparse)


@pytest.mark.parametrize("big", ["YES", "NO"])
def test_blocks_of_masks_are_bounded_too(tmp_path, big):
    path = write(tmp_path / "a.tif", mask=np.ones((70, 50), bool), BIGTIFF=big)
    with path.open("rb") as file:
        assert largest_mask_block(file) == 256
    content = bytearray(path.read_bytes())
    form = "<HHQQ" if big == "YES" else "<HHII"
    entries = [struct.pack(form, tag, 3, 1, 16) for tag in (322, 323)]  # sides of the mask's tiles
    for entry in entries:
        assert content.count(entry) == 2  # the picture's and the mask's
        place = content.rfind(entry)
        content[place : place + len(entry)] = entry.replace(b"\x10\0", b"\xf0\x7f")
    path.write_bytes(content)
    with pytest.raises(LimitError, match="got 1072693504"):
        open_geotiff(path).__enter__()


def test_directories_of_a_tiff_end(tmp_path):
    circle = struct.pack("<2sHIHI", b"II", 42, 8, 0, 8)
    with pytest.raises(ValueError, match="at most 1000 directories"):
        largest_mask_block(io.BytesIO(circle))
    with pytest.raises(ValueError, match="cut off"):
        largest_mask_block(io.BytesIO(circle[:11]))


def test_without_rasterio_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.tif").write_bytes(b"II*\0")
    real = builtins.__import__

    def without(name, *rest, **more):
        if name.split(".")[0] == "rasterio":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with (
        pytest.raises(ImportError, match=r"pip install 'ovseg\[geo\]'"),
        open_geotiff(tmp_path / "a.tif"),
    ):
        pass
