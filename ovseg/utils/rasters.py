"""Writing of label maps as GeoTIFFs; what reads them is `ovseg.readers.rasters`."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from ovseg.readers.rasters import GDAL_SETTINGS, Georeference, import_rasterio
from ovseg.utils.files import atomic_path, naming_failure

__all__ = ["write_label_tiff"]

_BLOCK = 512  # rows that are written together, and sides of the file's tiles


def write_label_tiff(
    path: str | Path,
    labels: np.ndarray,
    *,
    blank: int,
    georeference: Georeference,
    comment: str,
) -> None:
    """Write a label map as a tiled and compressed GeoTIFF, whole or not at all.

    Args:
        path: target; its folder is made if needed.
        labels: (H, W) uint8 or uint16.
        blank: the value of pixels without a class, the file's nodata.
        georeference: where the picture lies.
        comment: text for the file's header.

    Raises:
        ImportError: rasterio is not installed.
        OSError: the file cannot be written.
    """
    rasterio = import_rasterio()
    height, width = labels.shape
    windows = [((top, min(top + _BLOCK, height)), (0, width)) for top in range(0, height, _BLOCK)]
    with (
        naming_failure(path),
        atomic_path(path) as partial,
        rasterio.Env(**GDAL_SETTINGS),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            partial,
            "w",
            driver="GTiff",
            width=width,
            height=height,
            count=1,
            dtype=labels.dtype,
            nodata=blank,
            crs=georeference.crs,
            transform=georeference.transform,
            tiled=True,
            blockxsize=_BLOCK,
            blockysize=_BLOCK,
            compress="deflate",
            BIGTIFF="IF_SAFER",
        ) as file:
            file.update_tags(TIFFTAG_IMAGEDESCRIPTION=comment)
            for window in windows:
                file.write(labels[slice(*window[0])], 1, window=window)
        # What cannot be written when the file is closed is not told.
        with rasterio.open(partial, driver="GTiff") as file:
            for window in windows:
                if not np.array_equal(file.read(1, window=window), labels[slice(*window[0])]):
                    raise OSError("the disk took less than was written")
