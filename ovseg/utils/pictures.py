"""Pictures in the forms that people have them, as (H, W, 3) uint8 RGB."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image

from ovseg.readers.addresses import AddressError, open_address
from ovseg.readers.pictures import ImageError, decode_image, pil_to_rgb, read_image
from ovseg.readers.rasters import TIFF_SUFFIXES, ArrayPicture, PictureSource, open_geotiff

__all__ = ["ImageLike", "as_list", "open_picture", "picture_name", "to_rgb"]

ImageLike = (
    str | os.PathLike[str] | bytes | bytearray | BinaryIO | Image.Image | np.ndarray | torch.Tensor
)

IMAGE_FORMATS = ("RGB", "BGR")
MAX_BYTES = 500_000_000
"""Most bytes that are read from an address."""


def to_rgb(image: ImageLike, *, image_format: str = "RGB") -> np.ndarray:
    """Read or convert a picture.

    Args:
        image: a file's path; an http or https address; the bytes of a file, or a file opened for
            reading bytes; a PIL image of any mode; an array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4), or a tensor (H, W), (1, H, W), (3, H, W) or (4, H, W). Values are uint8,
            uint16 over their whole range, bool, or floats in [0, 1]. A fourth channel is opacity,
            over white.
        image_format: order of the channels of an array or tensor, "RGB" or "BGR" (OpenCV's).

    Returns:
        (H, W, 3) uint8 RGB, upright. An array of this form is returned as it is, not copied.

    Raises:
        ValueError: another shape, type or range of values, or an unknown format.
        OSError: the file or the address cannot be read.
    """
    if image_format not in IMAGE_FORMATS:
        raise ValueError(f"image_format: expected one of {IMAGE_FORMATS}, got {image_format!r}")
    if isinstance(image, np.ndarray | torch.Tensor):
        pixels = _channels_last(image) if isinstance(image, torch.Tensor) else _checked(image)
        return _eight_bit_rgb(pixels, reverse=image_format == "BGR")
    if image_format != "RGB":
        raise ValueError(
            f"image_format: expected 'RGB' for {_kind(image)}, which says its order itself, got "
            f"{image_format!r}; it is for arrays and tensors"
        )
    if isinstance(image, Image.Image):
        return pil_to_rgb(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode_image(bytes(image), "image (bytes)")
    if isinstance(image, str) and is_address(image):
        return decode_image(_fetched(image), image)
    if isinstance(image, str | os.PathLike):
        return read_image(image)
    if hasattr(image, "read"):
        return decode_image(_content(image), str(getattr(image, "name", "image (file)")))
    raise ValueError(
        "image: expected a path, an address, bytes, a PIL image, an array or a tensor, got "
        f"{_kind(image)}"
    )


def _content(file: BinaryIO) -> bytes:
    """Read an open file, which may be a pipe without end."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ImageError(f"{getattr(file, 'name', 'image (file)')}: more than {MAX_BYTES} bytes")
    return data


def as_list(image: ImageLike | Sequence[ImageLike]) -> list[ImageLike] | None:
    """Tell several pictures from one.

    Args:
        image: a picture as `to_rgb` takes it, a list or tuple of such, or a batch (N, H, W, C) as
            an array or (N, C, H, W) as a tensor.

    Returns:
        The pictures; None where it is one.
    """
    if isinstance(image, list | tuple):
        return list(image)
    if isinstance(image, np.ndarray | torch.Tensor) and image.ndim == 4:
        return list(image)
    return None


@contextmanager
def open_picture(image: ImageLike) -> Iterator[PictureSource]:
    """Open a picture that is read in parts.

    Args:
        image: as `to_rgb` takes it; the path of a TIFF is read by windows, others at once.

    Yields:
        The picture; it can be read within the block.

    Raises:
        ImportError: a TIFF, and rasterio is not installed.
        ValueError, OSError: as `to_rgb` and `ovseg.readers.rasters.open_geotiff`.
    """
    if is_tiff(image):
        with open_geotiff(os.fspath(image)) as raster:  # type: ignore[arg-type]
            yield raster
    else:
        yield ArrayPicture(to_rgb(image))


def is_tiff(image: object) -> bool:
    """Whether this is the path of a TIFF, by its suffix."""
    name = None if is_address(image) else picture_name(image)
    return name is not None and Path(name).suffix.lower() in TIFF_SUFFIXES


def picture_name(image: object) -> str | None:
    """Name the file or the address of a picture; None where it has none."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else None


def is_address(image: object) -> bool:
    """Whether this is a web address."""
    return isinstance(image, str) and image.startswith(("http://", "https://"))


def _kind(image: object) -> str:
    return f"a {type(image).__name__}"


def _fetched(address: str) -> bytes:
    """Download a picture; servers that refuse Python's own agent are told another."""
    data = bytearray()
    try:
        with open_address(address, {"User-Agent": "ovseg"}) as answer:
            if answer.status != 200:
                raise ImageError(f"{address}: the server answered {answer.status} {answer.reason}")
            for piece in answer.pieces():
                data += piece
                if len(data) > MAX_BYTES:
                    break
    except AddressError as error:
        raise ImageError(f"{address}: could not be downloaded: {error}") from error
    if len(data) > MAX_BYTES:
        raise ImageError(f"{address}: more than {MAX_BYTES} bytes; download it and give the file")
    return bytes(data)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    """Turn a tensor (C, H, W) or (H, W) into an array (H, W, C)."""
    if tensor.ndim == 2:
        tensor = tensor[None]
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3, 4) or not tensor.numel():
        raise ValueError(
            "image: expected a tensor (C, H, W) of 1, 3 or 4 channels, or (H, W), got "
            f"{tuple(tensor.shape)}" + _turn_hint(tuple(tensor.shape), "tensor.permute(2, 0, 1)")
        )
    tensor = tensor.detach().cpu()
    if tensor.dtype in (torch.float16, torch.bfloat16):
        tensor = tensor.float()
    return tensor.permute(1, 2, 0).numpy()  # (H, W, C)


def _checked(array: np.ndarray) -> np.ndarray:
    """Bring an array to (H, W, C)."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or not array.size:
        raise ValueError(
            "image: expected an array (H, W), or (H, W, C) of 1, 3 or 4 channels, got "
            f"{array.shape}" + _turn_hint(array.shape, "array.transpose(1, 2, 0)")
        )
    return array


def _turn_hint(shape: tuple[int, ...], call: str) -> str:
    turned = len(shape) == 3 and (shape[0] if "transpose" in call else shape[-1]) in (1, 3, 4)
    return f"; its channels are on the other end: {call}" if turned else ""


def _eight_bit_rgb(pixels: np.ndarray, *, reverse: bool) -> np.ndarray:
    """Convert (H, W, C) of any accepted type to (H, W, 3) uint8 RGB."""
    pixels = _eight_bit(pixels)
    colour = pixels[..., :3]
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    elif reverse:
        colour = np.ascontiguousarray(colour[..., ::-1])
    if pixels.shape[2] == 4:
        whole = np.ascontiguousarray(np.concatenate((colour, pixels[..., 3:]), axis=2))
        return pil_to_rgb(Image.fromarray(whole))
    return colour


def _eight_bit(pixels: np.ndarray) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * 255
    if pixels.dtype == np.uint16:
        return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.issubdtype(pixels.dtype, np.floating):
        raise ValueError(
            f"image: expected values of uint8, uint16, bool or float, got {pixels.dtype}; "
            "convert them with .astype(np.uint8)"
        )
    low, high = float(pixels.min()), float(pixels.max())
    if not 0 <= low <= high <= 1:  # NaN, too, is refused
        raise ValueError(
            f"image: expected floats in [0, 1], got {low:g} to {high:g}; for 0 to 255 convert "
            "them to uint8, and undo a normalisation"
        )
    return np.round(pixels * 255).astype(np.uint8)
