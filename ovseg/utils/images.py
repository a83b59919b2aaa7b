"""Reading and writing of pictures and label maps.

Pictures come back as (H, W, 3) uint8 RGB whatever the file holds, label maps as (H, W) integers.
A file that cannot be read raises `ImageError`, which names the file and the reason.
"""

from __future__ import annotations

import io
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from ovseg.utils.files import atomic_path

__all__ = [
    "IMAGE_SUFFIXES",
    "MAX_PIXELS",
    "ImageError",
    "decode_image",
    "image_size",
    "pil_to_rgb",
    "read_image",
    "read_label",
    "write_png",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
"""Suffixes of image files; where several of a name lie beside each other, the first here counts."""

MAX_PIXELS = 1_000_000_000
"""Most pixels a picture may have: 3 GB as RGB. Pillow's own limit of 0.18 gigapixels is below
the size of scans and satellite pictures that people do segment."""

_ORIENTATION_TAG = 0x0112
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

# What Pillow's plugins raise on damaged files.
_DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
_PILLOW_LIMIT = threading.RLock()


class ImageError(OSError):
    """A picture or label map that cannot be read; the text names the file and the reason."""


def read_image(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a picture of any common kind as 8-bit RGB.

    The EXIF orientation is applied, transparency is laid over white, 16-bit values are scaled
    to 8 bits, and of an animation the first frame is taken.

    Args:
        path: picture file.
        max_pixels: most pixels to accept.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the file is missing, damaged, too large, or of a kind without 8-bit meaning.
    """
    with _opened(path, max_pixels) as image:
        return pil_to_rgb(image)


def decode_image(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Turn the bytes of a picture file into 8-bit RGB, as `read_image` does with a file.

    Args:
        data: content of a picture file.
        name: what to call it in an error.
        max_pixels: most pixels to accept.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ImageError: the bytes are damaged, too large, or of a kind without 8-bit meaning.
    """
    with _opened(name, max_pixels, data) as image:
        return pil_to_rgb(image)


def read_label(
    path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS, classes: int | None = None
) -> np.ndarray:
    """Read a label map without changing its values.

    Args:
        path: 8-bit (grey or palette, whose indices are the labels) or 16-bit PNG or TIFF.
        max_pixels: most pixels to accept.
        classes: refuse 8 bits where so many classes and an ignore label do not fit into them:
            whatever wrote the file has cut numbers off, and none of them looks wrong.

    Returns:
        (H, W) int32, values in [0, 65535].

    Raises:
        ImageError: the file is missing or damaged, has more than one channel, or too few bits.
    """
    with _opened(path, max_pixels) as image:
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
        image.load()
        labels = np.array(image, dtype=np.int32)  # (H, W)
        if labels.size and (labels.min() < 0 or labels.max() > 65535):
            raise ImageError(
                f"{path}: expected labels in [0, 65535], got {labels.min()}..{labels.max()}"
            )
        return labels


def image_size(path: str | PathLike[str], *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read the size of a picture from its header alone.

    Args:
        path: picture file.
        max_pixels: most pixels to accept.

    Returns:
        (height, width) as `read_image` would return it, orientation applied.

    Raises:
        ImageError: the file is missing or its header is damaged.
    """
    with _opened(path, max_pixels) as image:
        width, height = image.size
        return (width, height) if _orientation(image) in _SWAPS_AXES else (height, width)


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


def write_png(path: str | PathLike[str], array: np.ndarray, *, comment: str | None = None) -> None:
    """Write a picture or label map as PNG, atomically.

    Args:
        path: target; its folder is made if needed.
        array: (H, W) uint8 or uint16, or (H, W, 3) uint8 RGB.
        comment: text for the file's header.

    Raises:
        ValueError: another dtype or shape.
    """
    grey = array.ndim == 2 and array.dtype in (np.uint8, np.uint16)
    colour = array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8
    if not (grey or colour) or array.size == 0:
        raise ValueError(
            f"expected a non-empty (H, W) array of uint8 or uint16 or (H, W, 3) of uint8, got "
            f"shape {array.shape} of {array.dtype}; convert with array.astype(np.uint8)"
        )
    header = PngImagePlugin.PngInfo()
    if comment:
        header.add_text("Comment", comment)
    with atomic_path(Path(path)) as temporary:
        Image.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG", pnginfo=header)


@contextmanager
def _opened(
    path: str | PathLike[str], max_pixels: int, data: bytes | None = None
) -> Iterator[Image.Image]:
    """Open an image file, or its bytes; whatever goes wrong inside becomes an `ImageError`."""
    try:
        with _open_any_size(path, max_pixels, data) as image:
            yield image
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
    except _DECODE_ERRORS as error:
        raise ImageError(f"{path}: {error or type(error).__name__}") from error


def _open_any_size(path: str | PathLike[str], max_pixels: int, data: bytes | None) -> Image.Image:
    # Pillow keeps its limit in a module variable; it is lifted for the moment of opening only,
    # and ours is enforced instead.
    with _PILLOW_LIMIT:
        previous = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            image = Image.open(path if data is None else io.BytesIO(data))
        finally:
            Image.MAX_IMAGE_PIXELS = previous
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise ImageError(
            f"{path}: {width} x {height} pixels, the limit is {max_pixels}; "
            "cut the picture into parts or raise max_pixels"
        )
    return image


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except _DECODE_ERRORS:
        return 1  # a damaged EXIF block says nothing about the pixels


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
