"""Large pictures, read in parts: GeoTIFFs by windows, so that they are never in memory whole.

A GeoTIFF is read by rasterio (the extra `geo`), whose library GDAL opens many kinds of files and
follows references in them. Here it is given regular files that begin as a TIFF does and may take
them for nothing else; files that lie beside them are not looked at.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ovseg.readers.files import open_regular
from ovseg.readers.limits import LimitError, require_within
from ovseg.readers.pictures import ImageError
from ovseg.readers.tiff_headers import largest_mask_block

__all__ = [
    "GDAL_SETTINGS",
    "TIFF_SUFFIXES",
    "ArrayPicture",
    "GeoTiff",
    "Georeference",
    "PictureSource",
    "import_rasterio",
    "open_geotiff",
]

TIFF_SUFFIXES = (".tif", ".tiff")
GDAL_SETTINGS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",  # no look at files beside the file
    "GDAL_PAM_ENABLED": "NO",  # nor at NAME.tif.aux.xml; none is written
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    "GDAL_CACHEMAX": 128,  # MiB; the default is a share of the machine's memory
}
_SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # TIFF and BigTIFF, in both byte orders
_MOST_PIXELS_PER_BYTE = 8 * 1032  # of one bit, by deflate's best; smaller pictures are let through
_ALWAYS_OPENED = 1 << 24
_CUT = " (cut into tiles, it can be read)"

Window = tuple[slice, slice]  # rows and columns, both ends of each given


@dataclass(frozen=True)
class Georeference:
    """Where on earth a picture lies, as rasterio has it.

    Attributes:
        crs: the coordinate reference system, `rasterio.crs.CRS`.
        transform: from pixels to its coordinates, `affine.Affine`.
    """

    crs: Any
    transform: Any


class PictureSource(Protocol):
    """A picture that is read in parts."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Reads a part, (h, w, 3) uint8 RGB."""

    def blank(self, window: Window) -> NDArray[np.bool_] | None:
        """Tells which pixels of a part hold no picture, (h, w) bool; None where all do."""


@dataclass(frozen=True, eq=False)
class ArrayPicture:
    """A picture that is in memory.

    Args:
        pixels: (H, W, 3) uint8 RGB.
    """

    pixels: NDArray[np.uint8]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Cuts a part out, (h, w, 3) uint8 RGB."""
        return self.pixels[window]

    def blank(self, window: Window) -> NDArray[np.bool_] | None:
        """None: all of it is picture."""
        return None


class GeoTiff:
    """An open TIFF, geographical or not; made by `open_geotiff`.

    Args:
        path: the file, for errors.
        dataset: rasterio's.
    """

    def __init__(self, path: str, dataset: Any) -> None:
        self.path = path
        self._dataset = dataset
        self._bands = _colour_bands(path, dataset)
        self._has_blanks = any("all_valid" not in _names(f) for f in dataset.mask_flag_enums)

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self._dataset.height, self._dataset.width

    @property
    def georeference(self) -> Georeference:
        """Where it lies; of a TIFF that does not say, what rasterio takes for that."""
        return Georeference(self._dataset.crs, self._dataset.transform)

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Reads a part.

        Args:
            window: rows and columns.

        Returns:
            (h, w, 3) uint8 RGB, as stored: whatever opacity says, and not turned.

        Raises:
            ImageError: the file is damaged there.
        """
        with _told(self.path):
            pixels = self._dataset.read(self._bands, window=_pairs(window))  # (3, h, w)
        return np.ascontiguousarray(pixels.transpose(1, 2, 0))

    def blank(self, window: Window) -> NDArray[np.bool_] | None:
        """Tells which pixels hold no picture: nodata in every band, transparent, or masked out.

        Args:
            window: rows and columns.

        Returns:
            (h, w) bool; None where the file has no such pixels.

        Raises:
            ImageError: the file is damaged there.
        """
        if not self._has_blanks:
            return None
        with _told(self.path):
            return self._dataset.dataset_mask(window=_pairs(window)) == 0


@contextmanager
def open_geotiff(path: str | PathLike[str]) -> Iterator[GeoTiff]:
    """Open a TIFF to be read by windows.

    Args:
        path: a TIFF or BigTIFF with bands for red, green and blue of 8 bits each (those that say
            so, else the first three), and others that do not count.

    Yields:
        The picture; it can be read within the block.

    Raises:
        ImportError: rasterio is not installed.
        ImageError: the file is missing, damaged, no TIFF, too large, or of other bands.
        LimitError: its blocks are too large to be read one by one.
    """
    name = os.fspath(path)
    rasterio = import_rasterio()
    with ExitStack() as stack:
        stack.enter_context(rasterio.Env(**GDAL_SETTINGS))
        with _told(name):
            _require_tiff(name)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
                opened = rasterio.open(Path(name).resolve(), driver="GTiff")
            dataset = stack.enter_context(opened)
            _require_size(name, dataset)
            picture = GeoTiff(name, dataset)
        yield picture


def import_rasterio() -> ModuleType:
    """Import rasterio.

    Returns:
        The package, with its errors.

    Raises:
        ImportError: it is not installed; the text says how to.
    """
    try:
        import rasterio
        import rasterio.errors
    except ImportError as error:
        raise ImportError(
            "a TIFF is read by windows with the package rasterio, which is not installed; install "
            "the extra: pip install 'ovseg[geo]'"
        ) from error
    return rasterio


@contextmanager
def _told(path: str) -> Iterator[None]:
    """Whatever goes wrong inside becomes an `ImageError`."""
    try:
        yield
    except (ImageError, LimitError):
        raise
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such file") from error
    except Exception as error:  # GDAL's errors are of many classes
        cause = error.__cause__ or error  # where GDAL's own text is
        reason = str(cause).removeprefix(f"{path}: ") or type(error).__name__
        raise ImageError(f"{path}: {reason}") from error


def _require_tiff(path: str) -> None:
    with open_regular(path) as file:
        if file.read(4) not in _SIGNATURES:
            raise ImageError(f"{path}: expected a TIFF, got a file that does not begin as one")
        require_within("raster_block_bytes", largest_mask_block(file), of=f"{path}{_CUT}")
    if str(Path(path).resolve()).startswith("/vsi"):
        raise ImageError(f"{path}: expected a folder that GDAL does not take for one of its own")


def _require_size(path: str, dataset: Any) -> None:
    pixels = dataset.height * dataset.width
    require_within("picture_pixels", pixels, of=path)
    size = Path(path).stat().st_size
    if pixels > max(_ALWAYS_OPENED, _MOST_PIXELS_PER_BYTE * size):
        raise ImageError(
            f"{path}: its header claims {pixels} pixels, more than {size} bytes can hold"
        )
    together = dataset.count if _names([dataset.interleaving]) == ["pixel"] else 1
    for (height, width), kind in zip(dataset.block_shapes, dataset.dtypes, strict=True):
        wanted = height * width * together * np.dtype(kind).itemsize
        require_within("raster_block_bytes", wanted, of=f"{path}{_CUT}")


def _colour_bands(path: str, dataset: Any) -> list[int]:
    """Numbers of the bands of red, green and blue, from 1."""
    kinds = _names(dataset.colorinterp)
    colours = ["red", "green", "blue"]
    bands = [kinds.index(c) + 1 for c in colours] if {*colours} <= {*kinds} else [1, 2, 3]
    found = list(dataset.dtypes)
    if len(found) < 3 or any(found[band - 1] != "uint8" for band in bands):
        raise ImageError(
            f"{path}: expected bands for red, green and blue of 8 bits each, got {len(found)} of "
            f"{', '.join(sorted(set(found)))}; scale them to 0-255, as gdal_translate -ot Byte "
            "-scale does, and repeat a grey one with -b 1 -b 1 -b 1"
        )
    return bands


def _names(members: Any) -> list[str]:
    """Names of members of rasterio's enumerations, in small letters."""
    return [member.name.lower() for member in members]


def _pairs(window: Window) -> tuple[tuple[int, int], tuple[int, int]]:
    (rows, columns) = window
    return (rows.start, rows.stop), (columns.start, columns.stop)
