"""Hostile pictures: what the header says decides, and no program is started."""

from __future__ import annotations

import io
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ovseg.readers.pictures import (
    ImageError,
    decode_image,
    image_size,
    picture_comment,
    picture_mode,
    read_image,
    read_label,
)
from tests.helpers import run_python


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int, *, before: bytes = b"") -> bytes:
    """A black picture of any size in few bytes: as many rows as it takes are left out."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + head + before + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def webp_bomb(kind: bytes) -> bytes:
    """The header of a WebP of 16383 x 16383 pixels."""
    side = 16383
    body = {
        b"VP8X": bytes(4) + (side - 1).to_bytes(3, "little") * 2,
        b"VP8L": b"\x2f" + ((side - 1) | (side - 1) << 14).to_bytes(4, "little") + bytes(10),
        b"VP8 ": bytes(3) + b"\x9d\x01\x2a" + struct.pack("<HH", side, side) + bytes(10),
    }[kind]
    inner = b"WEBP" + kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(inner)) + inner


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gif_bomb() -> bytes:
    data = bytearray(saved(Image.new("P", (4, 4)), "GIF"))
    data[6:10] = struct.pack("<HH", 65535, 65535)
    return bytes(data)


def tiff_bomb() -> bytes:
    """A TIFF of 16 x 16 pixels in a tile of 100000 x 100000."""
    tags = [(256, 16), (257, 16), (258, 8), (259, 5), (262, 1), (277, 1)]
    tags += [(322, 100_000), (323, 100_000), (324, 8), (325, 8)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return b"II*\0" + struct.pack("<I", 16) + bytes(8) + directory


def test_a_picture_that_would_start_a_program_is_none(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    )
    for read in (read_image, read_label, image_size, picture_mode, picture_comment):
        with pytest.raises(ImageError, match=r"photo\.jpg: not an image"):
            read(photo)
    with pytest.raises(ImageError, match="not an image"):
        decode_image(photo.read_bytes(), "photo")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    "data",
    [
        png_bomb(30_000, 30_000),
        *(webp_bomb(kind) for kind in (b"VP8X", b"VP8L", b"VP8 ")),
        gif_bomb(),
        tiff_bomb(),
        saved(Image.new("1", (20_000, 20_000)), "TIFF", compression="group4"),
    ],
    ids=["png", "webp_extended", "webp_lossless", "webp_lossy", "gif", "tiff_tile", "tiff"],
)
def test_the_header_decides_before_the_pixels_are_decoded(tmp_path, data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"bomb: \d+ x \d+ pixels, the limit is 32000000"):
        decode_image(data, "bomb", max_pixels=32_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


def bmp_bomb() -> bytes:
    data = bytearray(saved(Image.new("RGB", (4, 4)), "BMP"))
    data[18:26] = struct.pack("<ii", 20_000, 20_000)
    return bytes(data)


@pytest.mark.parametrize("data", [png_bomb(20_000, 20_000), bmp_bomb()], ids=["png", "bmp"])
def test_a_header_that_claims_more_than_the_file_can_hold_is_refused(data):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"bomb: its header claims 400000000 pixels, more than"):
        decode_image(data, "bomb")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF", "JPEG"])
def test_a_large_picture_of_one_colour_is_read(kind):
    data = saved(Image.new("L", (5000, 4000), 255), kind)
    assert decode_image(data, "a").shape == (4000, 5000, 3)


@pytest.mark.parametrize("kind", [b"iCCP", b"zTXt"])
def test_texts_and_profiles_are_not_blown_up(tmp_path, kind):
    content = b"name\0\0" + zlib.compress(bytes(200_000_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="bomb: "):
        decode_image(png_bomb(4, 4, before=chunk(kind, content)), "bomb")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB


@pytest.mark.parametrize("name", ["/dev/zero", "pipe"])
def test_devices_and_pipes_are_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / name
    run = run_python(
        "-c",
        f"from ovseg.readers.pictures import *\ntry: read_image({str(path)!r})\n"
        "except ImageError as error: print(error)",
        timeout=60,
    )
    assert run.stdout == f"{path}: expected a regular file, got a pipe, device or socket\n"


def test_label_maps_above_pillows_limit_and_below_ours_are_read(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    labels = np.arange(54, dtype=np.uint8).reshape(6, 9)
    Image.fromarray(labels).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert np.array_equal(read_label(path), labels)
    assert read_image(path).shape == (6, 9, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


def test_the_size_of_a_png_is_told_without_decoding_it(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    Image.new("RGB", (9, 6)).save(path)
    monkeypatch.setattr(
        PngImagePlugin.PngImageFile, "load", lambda self: pytest.fail("it was decoded")
    )
    assert image_size(path) == (6, 9)


def test_an_orientation_behind_the_pixels_of_a_png_counts_for_the_size(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.new("RGB", (9, 6)), "PNG")
    end = data.rindex(b"IEND") - 4
    turned = data[:end] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[end:]
    path = tmp_path / "a.png"
    path.write_bytes(turned)
    assert image_size(path) == read_image(path).shape[:2] == (9, 6)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "MPO"])
def test_every_kind_that_is_documented_is_read(tmp_path, kind):
    assert decode_image(saved(Image.new("RGB", (9, 6)), kind), "a").shape == (6, 9, 3)


def test_a_name_that_is_not_utf_8_is_read(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    Image.new("RGB", (9, 6)).save(path)
    assert read_image(path).shape == (6, 9, 3)
