"""Maps of regions in files, in the form in which CorrCLIP's authors publish theirs."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np

from ovseg.d2.config import CfgNode
from ovseg.projects.corrclip.regions.source import (
    REGION_SOURCE_REGISTRY,
    RegionError,
    check_region_map,
)
from ovseg.readers.arrays import read_npz
from ovseg.utils.files import atomic_path, reason_of

__all__ = ["FileRegions", "read_region_map", "region_path", "write_region_map"]

KEY = "instance_mask"
_ENDING = ".npz"


class FileRegions:
    """Reads maps that were made before: NAME.npz with an array `instance_mask` (H, W).

    For a picture named `a/photo.jpg` that is `a/photo.npz` or `a/photo.jpg.npz`.

    Args:
        folder: where they lie.

    Raises:
        ValueError: no such folder.
    """

    needs_pixels = False

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not str(folder) or not self.folder.is_dir():
            raise ValueError(
                f"MODEL.CORRCLIP.REGIONS.PATH: expected a folder of maps of regions, got "
                f"{str(folder)!r}; download the published ones or make them with "
                "tools/build_regions.py"
            )
        self.name = f"files:{self.folder.resolve().name}"

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Read a picture's map; see `RegionSource`."""
        path = region_path(self.folder, image_id)
        if not path.is_file() and PurePosixPath(image_id).suffix:
            without_ending = str(PurePosixPath(image_id).with_suffix(""))
            path = region_path(self.folder, without_ending)
        if not path.is_file():
            raise RegionError(
                f"{self.folder}: expected {path.name} for the picture {image_id!r}, there is none; "
                "the pictures of a set get theirs by tools/build_regions.py"
            )
        return check_region_map(read_region_map(path), image.shape[:2], str(path))


def region_path(folder: Path, image_id: str) -> Path:
    """Tell where the map of a picture lies.

    Args:
        folder: of the maps.
        image_id: the picture's name.

    Returns:
        The path of the file.

    Raises:
        RegionError: the name would lead out of the folder.
    """
    relative = PurePosixPath(image_id)
    if relative.is_absolute() or ".." in relative.parts or not relative.name:
        raise RegionError(f"expected the name of a picture below {folder}, got {image_id!r}")
    return folder / relative.with_name(relative.name + _ENDING)


def read_region_map(path: Path) -> np.ndarray:
    """Read a map of regions.

    Args:
        path: an .npz file.

    Returns:
        The array as it is stored; nothing in the file is unpickled.

    Raises:
        RegionError: the file is damaged or holds no such array.
    """
    try:
        return read_npz(path, [KEY])[KEY]
    except (OSError, ValueError) as error:
        raise RegionError(f"{path}: expected an .npz file of arrays: {reason_of(error)}") from error


def write_region_map(path: Path, regions: np.ndarray) -> None:
    """Write a map of regions in the published form; the file appears complete or not at all.

    Args:
        path: the .npz file.
        regions: (H, W) int32, from 0 on; stored in 16 bits where they are enough.
    """
    small = regions.size == 0 or regions.max() <= np.iinfo(np.int16).max
    kind = np.int16 if small else np.int32
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, instance_mask=regions.astype(kind))


@REGION_SOURCE_REGISTRY.register()
def files(cfg: CfgNode) -> FileRegions:
    """Regions from the folder REGIONS.PATH."""
    return FileRegions(cfg.MODEL.CORRCLIP.REGIONS.PATH)
