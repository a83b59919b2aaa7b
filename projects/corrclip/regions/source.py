"""What a source of regions is, and the table of those that a config can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from fvcore.common.registry import Registry

from ovseg.d2.config import CfgNode

__all__ = [
    "REGION_SOURCE_REGISTRY",
    "RegionError",
    "RegionSource",
    "build_regions",
    "check_region_map",
]

REGION_SOURCE_REGISTRY = Registry("REGION_SOURCE")
"""Functions from a full config to a `RegionSource`, by the name that REGIONS.NAME gives."""


class RegionError(ValueError):
    """Regions of a picture that cannot be had; the text names the picture or the file."""


class RegionSource(Protocol):
    """Cuts a picture into regions that do not overlap.

    Attributes:
        name: which source it is, with the settings and the version of what it stands on; part of
            the protocol of every result.
        needs_pixels: False where only the size and the name of the picture matter.
    """

    name: str
    needs_pixels: bool

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Cut a picture.

        Args:
            image: (H, W, 3) uint8 RGB, at its original size.
            image_id: its name in its dataset, for sources that keep regions in files.

        Returns:
            (H, W) int32: 0 where there is no region, the others from 1 on.

        Raises:
            RegionError: there are no regions to be had for this picture.
        """
        ...


def build_regions(cfg: CfgNode) -> RegionSource:
    """Build the source that MODEL.CORRCLIP.REGIONS.NAME names.

    Args:
        cfg: full configuration.

    Returns:
        The source; its model, where it has one, is on MODEL.DEVICE.

    Raises:
        ValueError: no such source, or settings that it cannot work with.
        ImportError: it needs a package that is not installed; the message names the extra.
    """
    maker: Callable[[CfgNode], RegionSource]
    name = cfg.MODEL.CORRCLIP.REGIONS.NAME
    if name not in REGION_SOURCE_REGISTRY:
        known = sorted(key for key, _ in REGION_SOURCE_REGISTRY)
        raise ValueError(f"MODEL.CORRCLIP.REGIONS.NAME: expected one of {known}, got {name!r}")
    maker = REGION_SOURCE_REGISTRY.get(name)
    return maker(cfg)


def check_region_map(regions: np.ndarray, size: tuple[int, ...], where: str) -> np.ndarray:
    """Check a map of regions that comes from outside.

    Args:
        regions: integers of any type.
        size: (H, W) of the picture.
        where: what to call it in an error.

    Returns:
        (H, W) int32.

    Raises:
        RegionError: another shape, values that are no region ids, or none that fit.
    """
    if regions.dtype.kind not in "iub":
        raise RegionError(f"{where}: expected integer ids of regions, got {regions.dtype}")
    if regions.shape != tuple(size):
        raise RegionError(
            f"{where}: expected regions of {tuple(size)} (height, width) as the picture, got "
            f"{regions.shape}; they belong to the picture at its original size and upright"
        )
    if regions.size and (regions.min() < 0 or regions.max() > np.iinfo(np.int32).max):
        raise RegionError(
            f"{where}: expected ids from 0 (no region) on, got {regions.min()}..{regions.max()}"
        )
    return regions.astype(np.int32)
