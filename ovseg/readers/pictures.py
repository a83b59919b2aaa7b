"""Reading of pictures and label maps.

Pictures come back as (H, W, 3) uint8 RGB whatever the file holds, label maps as (H, W) integers.
A file that cannot be read raises `ImageError`, which names the file and the reason. Only decoders
that work in this process are asked, and the size is looked at before anything is decoded.
"""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from os import PathLike
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from ovseg.readers.files import open_regular
from ovseg.readers.limits import limits
from ovseg.readers.picture_headers import has_late_chunks, webp_size

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageError",
    "decode_image",
    "decode_label",
    "decode_mask",
    "image_size",
    "picture_comment",
    "picture_mode",
    "pil_to_rgb",
    "read_image",
    "read_label",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""Suffixes of image files; where several of a name lie beside each other, the first here counts."""

# Pillow knows more, and some of those start a program (EPS: Ghostscript) or fetch other files.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_ORIENTATION_TAG = 0x0112
_TIFF_WIDTH, _TIFF_LENGTH = 256, 257
_TIFF_DESCRIPTION = 270
_TILE_WIDTH, _TILE_LENGTH = 322, 323
_ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPS_AXES = (5, 6, 7, 8)
_EXIF_ERRORS = (
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
)


# How many pixels a byte of a file can hold at most, by Pillow's name of the decoder: pixels of one
# bit, and deflate's, LZW's and JPEG's best. Others have no bound.
_DENSEST = {"raw": 8, "zip": 8 * 1032, "gif": 4096, "jpeg": 1024}
_ALWAYS_OPENED = 1 << 24


class ImageError(OSError):
    """A picture or label map that cannot be read; the text names the file and the reason."""


def read_image(path: str | PathLike[str], *, max_pixels: int | None = None) -> np.ndarray:
    """Read a picture of any common kind as 8-bit RGB.

    The EXIF orientation is applied, transparency is laid over white, 16-bit values are scaled
    to 8 bits, and of an animation the first frame is taken.

    Args:
        path: picture file.
        max_pixels: most pixels to accept; None for the limit `picture_pixels`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file is missing, damaged, too large, or of a kind without 8-bit meaning.
    """
    with _opened(path, max_pixels) as image:
        _load(image)
        return pil_to_rgb(image)


def decode_image(data: bytes, name: str, *, max_pixels: int | None = None) -> np.ndarray:
    """Turn the bytes of a picture file into 8-bit RGB, as `read_image` does with a file.

    Args:
        data: content of a picture file.
        name: what to call it in an error.
        max_pixels: most pixels to accept; None for the limit `picture_pixels`.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the bytes are damaged, too large, or of a kind without 8-bit meaning.
    """
    with _opened(name, max_pixels, data) as image:
        _load(image)
        return pil_to_rgb(image)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """Turn the bytes of a picture file into a mask.

    Args:
        data: content of a picture file.
        name: what to call it in an error.

    Returns:
        (H, W) bool, True where the picture as grey is not black.

    Raises:
        ImageError: the bytes are damaged or too large.
    """
    with _opened(name, None, data) as image:
        _load(image)
        return np.asarray(image.convert("L")) > 0


def read_label(
    path: str | PathLike[str], *, max_pixels: int | None = None, classes: int | None = None
) -> np.ndarray:
    """Read a label map without changing its values.

    Args:
        path: 8-bit (grey or palette, whose indices are the labels) or 16-bit PNG or TIFF.
        max_pixels: most pixels to accept; None for the limit `picture_pixels`.
        classes: refuse 8 bits where so many classes and an ignore label do not fit into them:
            whatever wrote the file has cut numbers off, and none of them looks wrong.

    Returns:
        (H, W) int32, values in [0, 65535].

    Raises:
        ImageError: the file is missing or damaged, has more than one channel, or too few bits.
    """
    with _opened(path, max_pixels) as image:
        return _labels(image, path, classes)


def decode_label(data: bytes, name: str) -> np.ndarray:
    """Turn the bytes of a label map into its values, as `read_label` does with a file.

    Args:
        data: content of a PNG or TIFF file.
        name: what to call it in an error.

    Returns:
        (H, W) int32, values in [0, 65535].

    Raises:
        ImageError: the bytes are damaged, or of more than one channel.
    """
    with _opened(name, None, data) as image:
        return _labels(image, name, None)


def image_size(path: str | PathLike[str], *, max_pixels: int | None = None) -> tuple[int, int]:
    """Read the size of a picture from its header alone.

    Args:
        path: picture file.
        max_pixels: most pixels to accept; None for the limit `picture_pixels`.

    Returns:
        (height, width) as `read_image` would return it, orientation applied.

    Raises:
        ImageError: the file is missing or its header is damaged.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        if image.format == "TIFF":  # which Pillow has turned already, depending on its version
            tags = image.tag_v2  # type: ignore[attr-defined]
            width, height = tags[_TIFF_WIDTH], tags[_TIFF_LENGTH]
        if image.format == "PNG" and image.fp is not None and has_late_chunks(image.fp):
            _load(image)  # an orientation may be among them
        return (width, height) if _orientation(image) in _SWAPS_AXES else (height, width)


def picture_mode(path: str | PathLike[str]) -> str:
    """Read from a picture's header how its pixels are kept.

    Args:
        path: picture file.

    Returns:
        Pillow's name of the mode, such as "RGB" or "I;16".

    Raises:
        ImageError: the file is missing or its header is damaged.
    """
    with _opened(path, None) as image:
        return image.mode


def picture_comment(path: str | PathLike[str]) -> str | bytes | None:
    """Read the comment in a picture's header.

    Args:
        path: picture file.

    Returns:
        The comment; None where there is none.

    Raises:
        ImageError: the file is missing or its header is damaged.
    """
    with _opened(path, None) as image:
        if image.format == "TIFF":
            return image.tag_v2.get(_TIFF_DESCRIPTION)  # type: ignore[attr-defined]
        return image.info.get("comment") or image.info.get("Comment")


def pil_to_rgb(image: Image.Image) -> np.ndarray:
    """Turn a Pillow image of any mode into 8-bit RGB, upright and without transparency.

    Args:
        image: any mode; left unchanged.

    Returns:
        (H, W, 3) uint8 RGB, writable.

    Raises:
        ValueError: a mode whose values have no 8-bit meaning (floating point, over 16 bits).
    """
    image.load()
    transpose = _ORIENTATIONS.get(_orientation(image))
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = _grey_16_to_8(image)
    elif image.mode == "F":
        raise ValueError(
            "expected 8 or 16 bits per channel, got a floating-point image; "
            "scale it to 0-255 and save it as 8 bits"
        )
    elif image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = _over_white(image)
    if image.mode != "RGB":
        image = image.convert("RGB")
    if transpose is not None:
        image = image.transpose(transpose)
    return np.array(image)  # (H, W, 3)


@contextmanager
def _opened(
    path: str | PathLike[str], max_pixels: int | None, data: bytes | None = None
) -> Iterator[ImageFile.ImageFile]:
    """Open an image file, or its bytes; whatever goes wrong inside becomes an `ImageError`."""
    try:
        with ExitStack() as stack:
            stream: BinaryIO = io.BytesIO(data) if data is not None else open_regular(path)
            stack.enter_context(stream)
            yield stack.enter_context(_identified(path, stream, max_pixels))
    except ImageError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path}: expected an image file, got a folder") from error
    except UnidentifiedImageError as error:
        raise ImageError(
            f"{path}: not an image Pillow can read; expected JPEG, PNG, TIFF, WebP, BMP or GIF"
        ) from error
    except MemoryError as error:
        raise ImageError(f"{path}: not enough memory to decode the image") from error
    except Exception as error:  # decoders raise anything on damaged files
        reason = str(error).removeprefix(f"{path}: ") or type(error).__name__
        raise ImageError(f"{path}: {reason}") from error


def _identified(
    path: str | PathLike[str], stream: BinaryIO, max_pixels: int | None
) -> ImageFile.ImageFile:
    most = limits().picture_pixels if max_pixels is None else max_pixels
    # The decoder of WebP makes room for the whole picture when it is opened.
    _require_size(path, webp_size(stream), most)
    with _any_size():
        image = Image.open(stream, formats=_FORMATS)
    _require_size(path, image.size, most)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        _require_size(path, (tags.get(_TILE_WIDTH, 1), tags.get(_TILE_LENGTH, 1)), most)
    _require_content(image, stream)
    return image


def _require_content(image: ImageFile.ImageFile, stream: BinaryIO) -> None:
    """Refuse a header that claims more pixels than the file can hold."""
    densest = _DENSEST.get(image.tile[0][0]) if image.tile else None
    pixels = image.size[0] * image.size[1]
    if densest is None or pixels <= _ALWAYS_OPENED:
        return
    place = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(place)
    if pixels > densest * size:
        raise ValueError(f"its header claims {pixels} pixels, more than {size} bytes can hold")


def _labels(image: Image.Image, path: str | PathLike[str], classes: int | None) -> np.ndarray:
    if image.mode not in ("1", "L", "P", "I") and not image.mode.startswith("I;16"):
        raise ImageError(
            f"{path}: expected a label map with one integer channel (8 or 16 bits), got an "
            f"image of mode {image.mode}; store the class ids, not colours"
        )
    if classes is not None and classes > 255 and not image.mode.startswith("I"):
        raise ImageError(
            f"{path}: expected 16 bits for {classes} classes, got a label map of 8 bits; make "
            "it again from the raw data, datasets/verify.py says how"
        )
    _load(image)
    labels = np.array(image, dtype=np.int32)  # (H, W)
    if labels.size and (labels.min() < 0 or labels.max() > 65535):
        raise ImageError(
            f"{path}: expected labels in [0, 65535], got {labels.min()}..{labels.max()}"
        )
    return labels


def _require_size(path: str | PathLike[str], size: tuple[int, int], most: int) -> None:
    width, height = size
    if width * height > most:
        raise ImageError(
            f"{path}: {width} x {height} pixels, the limit is {most}; cut the picture into parts "
            "or raise max_pixels (or OVSEG_LIMIT_PICTURE_PIXELS)"
        )


_LIFT = threading.Lock()
_lifted: list[int | None] = []


@contextmanager
def _any_size() -> Iterator[None]:
    """Lift Pillow's own limit, which is a module's variable; ours is enforced instead."""
    with _LIFT:
        _lifted.append(_lifted[0] if _lifted else Image.MAX_IMAGE_PIXELS)
        Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        with _LIFT:
            previous = _lifted.pop()
            if not _lifted:
                Image.MAX_IMAGE_PIXELS = previous


def _load(image: Image.Image) -> None:
    """Decode the pixels; TIFF looks at Pillow's limit once more."""
    with _any_size():
        image.load()


def _orientation(image: Image.Image) -> int:
    try:
        # A PNG's own `getexif` decodes the picture.
        exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        return int(exif.get(_ORIENTATION_TAG, 1))
    except _EXIF_ERRORS:  # a damaged EXIF block says nothing about the pixels
        return 1


def _grey_16_to_8(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int64)  # (H, W)
    if values.size and (values.min() < 0 or values.max() > 65535):
        raise ValueError(
            f"expected grey values of 16 bits, got {values.min()}..{values.max()}; "
            "scale the image to 0-255 and save it as 8 bits"
        )
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _over_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    ground = Image.new("RGBA", layer.size, (255, 255, 255, 255))
    return Image.alpha_composite(ground, layer).convert("RGB")
