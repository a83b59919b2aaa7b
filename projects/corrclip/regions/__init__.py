"""Where CorrCLIP's regions come from: files, or a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np

from ovseg.d2.config import CfgNode

__all__ = ["RegionError", "RegionSource", "add_region_keys", "build_regions"]


class RegionError(ValueError):
    """Regions of a picture that cannot be had; the text names the picture or the file."""


class RegionSource(Protocol):
    """Divides a picture into regions."""

    name: str

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Map (H, W) int32 of a picture (H, W, 3) uint8 RGB: 0 for no region, ids from 1 on."""
        ...


def add_region_keys(node: CfgNode) -> None:
    """Add REGIONS to MODEL.CORRCLIP."""
    regions = node.REGIONS = CfgNode()
    regions.NAME = "files"
    regions.PATH = ""
    regions.UNSEGMENTED_RULE = "min"
    regions.GRID = [4, 4]


def build_regions(cfg: CfgNode) -> RegionSource:
    """Build what MODEL.CORRCLIP.REGIONS names."""
    regions = cfg.MODEL.CORRCLIP.REGIONS
    if regions.NAME == "grid":
        return GridRegions(*regions.GRID)
    return FileRegions(Path(regions.PATH))


class GridRegions:
    """Equal rectangles."""

    def __init__(self, rows: int, cols: int) -> None:
        self.rows, self.cols, self.name = rows, cols, f"grid:{rows}x{cols}"

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Divide; see `RegionSource`."""
        height, width = image.shape[:2]
        rows = np.arange(height) * self.rows // height
        cols = np.arange(width) * self.cols // width
        return (rows[:, None] * self.cols + cols + 1).astype(np.int32)


class FileRegions:
    """Maps `{stem}.npz` with an array instance_mask."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.name = folder, f"files:{folder.name}"

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Read; see `RegionSource`."""
        path = self.folder / f"{image_id}.npz"
        if not path.is_file():
            raise RegionError(f"{path}: expected a file of regions, there is none")
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["instance_mask"].astype(np.int32)
