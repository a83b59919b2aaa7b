"""Regions without a segmentation model: a grid, superpixels, the true labels."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from ovseg.d2.config import CfgNode
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import register_builtin
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.projects.corrclip.regions.source import (
    REGION_SOURCE_REGISTRY,
    RegionError,
    check_region_map,
)
from ovseg.readers.pictures import ImageError, read_label

__all__ = ["GridRegions", "LabelRegions", "SlicRegions"]


class GridRegions:
    """Cuts every picture into equal rectangles: a baseline, and regions for tests.

    Args:
        rows: rectangles from top to bottom.
        cols: rectangles from left to right.
        border: pixels along the edges that belong to no region.

    Raises:
        ValueError: fewer than one of either, or a border below 0.
    """

    needs_pixels = False

    def __init__(self, rows: int, cols: int, border: int = 0) -> None:
        if rows < 1 or cols < 1 or border < 0:
            raise ValueError(
                "MODEL.CORRCLIP.REGIONS.GRID: expected at least 1 row and 1 column and a border of "
                f"0 or more, got {rows} x {cols} and {border}"
            )
        self.rows, self.cols, self.border = rows, cols, border
        self.name = f"grid:{rows}x{cols}" + (f" border {border}" if border else "")

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Cut a picture; see `RegionSource`. One with fewer pixels than cells gives fewer."""
        height, width = image.shape[:2]
        row = np.arange(height) * self.rows // max(height, 1)  # (H,)
        col = np.arange(width) * self.cols // max(width, 1)  # (W,)
        regions = (row[:, None] * self.cols + col + 1).astype(np.int32)
        inside = np.zeros_like(regions, dtype=bool)
        inside[self.border : height - self.border, self.border : width - self.border] = True
        return np.where(inside, regions, 0)


class SlicRegions:
    """Superpixels of similar colour.

    Source: Achanta et al., "SLIC Superpixels Compared to State-of-the-Art Superpixel Methods"
    (PAMI 2012), as scikit-image has it.

    Args:
        segments: about how many.
        compactness: how much nearness counts against colour.
        sigma: width of the smoothing before, in pixels.

    Raises:
        ImportError: scikit-image is not installed.
    """

    needs_pixels = True

    def __init__(self, segments: int = 100, compactness: float = 10.0, sigma: float = 0.0) -> None:
        try:
            from skimage.segmentation import slic
        except ImportError as error:
            raise ImportError(
                "regions by SLIC need scikit-image, which is not installed: "
                "pip install 'ovseg[superpixels]'"
            ) from error
        self._slic = slic
        self.segments, self.compactness, self.sigma = segments, compactness, sigma
        self.name = (
            f"slic:{segments} compactness {compactness:g} sigma {sigma:g} "
            f"(scikit-image {version('scikit-image')})"
        )

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Cut a picture; see `RegionSource`."""
        found = self._slic(
            image,
            n_segments=self.segments,
            compactness=self.compactness,
            sigma=self.sigma,
            start_label=1,
            channel_axis=-1,
        )
        return found.astype(np.int32)


class LabelRegions:
    """The true segments of a dataset, one region a class: what perfect regions would bring.

    Args:
        dataset: a registered name, or the path of a dataset YAML.

    Raises:
        ValueError: no such dataset.
    """

    needs_pixels = False

    def __init__(self, dataset: str) -> None:
        register_builtin()
        dataset = resolve_dataset(dataset)
        if dataset not in DatasetCatalog.list():
            raise ValueError(
                "MODEL.CORRCLIP.REGIONS.DATASET: expected the name of a dataset with label maps, "
                f"got {dataset!r}"
            )
        self.name = f"labels:{dataset}"
        self._ignore = int(MetadataCatalog.get(dataset).ignore_label)
        self._files = {
            str(record["image_id"]): record["sem_seg_file_name"]
            for record in DatasetCatalog.get(dataset)
        }

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Read a picture's labels; see `RegionSource`. Ignored pixels are in no region."""
        if image_id not in self._files:
            raise RegionError(f"{self.name}: expected a picture of this dataset, got {image_id!r}")
        path = self._files[image_id]
        try:
            labels = read_label(path)
        except ImageError as error:
            raise RegionError(str(error)) from error
        regions = np.where(labels == self._ignore, 0, labels + 1)
        return check_region_map(regions, image.shape[:2], str(path))


@REGION_SOURCE_REGISTRY.register()
def grid(cfg: CfgNode) -> GridRegions:
    """Rectangles, by REGIONS.GRID."""
    node = cfg.MODEL.CORRCLIP.REGIONS.GRID
    return GridRegions(node.ROWS, node.COLS, node.BORDER)


@REGION_SOURCE_REGISTRY.register()
def slic(cfg: CfgNode) -> SlicRegions:
    """Superpixels, by REGIONS.SLIC."""
    node = cfg.MODEL.CORRCLIP.REGIONS.SLIC
    return SlicRegions(node.SEGMENTS, node.COMPACTNESS, node.SIGMA)


@REGION_SOURCE_REGISTRY.register()
def labels(cfg: CfgNode) -> LabelRegions:
    """The label maps of REGIONS.DATASET."""
    return LabelRegions(cfg.MODEL.CORRCLIP.REGIONS.DATASET)
