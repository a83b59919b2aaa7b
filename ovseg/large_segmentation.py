"""The result of segmenting a large picture: a compact label map, and what follows from it."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ovseg.readers.rasters import Georeference
from ovseg.regions import ClassArea, as_table, class_areas
from ovseg.segmentation import Segmentation, result_paths
from ovseg.stored import describe
from ovseg.utils.files import write_json
from ovseg.utils.label_runs import ClassRuns, class_runs
from ovseg.utils.pictures import ImageLike, open_picture
from ovseg.utils.rasters import write_label_tiff
from ovseg.utils.result_files import RESULT_COMMENT, refuse_to_replace, write_picture
from ovseg.visualization import BLANK

__all__ = ["LargeSegmentation"]

PREVIEW_SIDE = 2048


@dataclass(frozen=True, eq=False)
class LargeSegmentation:
    """A large picture cut into named regions, in one or two bytes a pixel.

    Attributes:
        image: what was segmented, as it was given; read again for `preview`.
        labels: (H, W) class indices, uint8 for up to 255 classes, else uint16; the type's largest
            value where no class claims the pixel, or where the picture has none.
        names: K class names, in the order they were asked for.
        scores: (K,) float32 in [0, 1], as those of `Segmentation`: each pixel counts with the score
            in one of the tiles that hold it.
        background: index of the explicit background class, or None.
        provenance: what produced this: weights, config, backend, versions, tiles.
        georeference: where the picture lies; None unless it was read as a GeoTIFF.
    """

    image: ImageLike = field(repr=False)
    labels: np.ndarray = field(repr=False)
    names: tuple[str, ...]
    scores: np.ndarray
    background: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)
    georeference: Georeference | None = None

    proposals: ClassVar[None] = None  # each tile has its own

    @property
    def blank(self) -> int:
        """The value in `labels` of pixels without a class."""
        return int(np.iinfo(self.labels.dtype).max)

    def areas(self) -> list[ClassArea]:
        """Measure the classes found.

        Returns:
            One entry per class with at least one pixel, largest first.
        """
        counts = np.zeros(len(self.names), np.int64)
        for found in self._runs:
            counts[found.label] = found.pixels
        return class_areas(counts, self.names, self.scores, self.labels.size)

    def to_coco_rle(self) -> list[dict[str, Any]]:
        """Write each class found as one COCO result; see `Segmentation.to_coco_rle`."""
        runs = {found.label: found for found in self._runs}
        return [
            {
                "category_id": area.label,
                "category_name": area.name,
                "segmentation": runs[area.label].rle,
                "area": area.pixels,
                "bbox": runs[area.label].box,
                "score": round(area.score, 6),
            }
            for area in self.areas()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Describe the result in values that JSON can hold; see `Segmentation.to_dict`."""
        return describe(self, proposals=False)

    def table(self) -> str:
        """Set the classes found in a table of plain text; see `Segmentation.table`."""
        return as_table(self.areas(), self.labels.size)

    def preview(self, *, max_side: int = PREVIEW_SIDE) -> Segmentation:
        """Take every n-th pixel of every n-th row, to look at and to draw.

        Args:
            max_side: most pixels of a side.

        Returns:
            A result with overlays and masks; areas are estimates, scores those of the whole.

        Raises:
            OSError: the picture cannot be read again.
        """
        height, width = self.labels.shape
        step = math.ceil(max(height, width) / max_side)
        with open_picture(self.image) as source:
            rows = [
                source.read((slice(top, top + 1), slice(0, width)))[0, ::step]
                for top in range(0, height, step)
            ]
        labels = self.labels[::step, ::step]
        return Segmentation(
            image=np.stack(rows),
            labels=np.where(labels == self.blank, BLANK, labels.astype(np.int32)),
            names=self.names,
            scores=self.scores,
            background=self.background,
            provenance=self.provenance,
        )

    def save(
        self,
        directory: str | os.PathLike[str],
        *,
        stem: str = "segmentation",
        views: Sequence[str] = ("overlay",),
    ) -> dict[str, Path]:
        """Write the result to files; each appears whole or not at all.

        Args:
            directory: made if missing.
            stem: start of every file name.
            views: pictures to write, see `Segmentation.save`; those of `preview`.

        Returns:
            The paths written: ``labels`` (``<stem>_labels.png``, or of a GeoTIFF
            ``<stem>_labels.tif`` with its coordinates; ``blank`` is its nodata), ``json``
            (``<stem>.json``, see :meth:`to_dict`) and one per view.

        Raises:
            ValueError: an unknown view.
            FileExistsError: a file of another origin has one of the names; earlier results are
                replaced.
        """
        suffix = ".png" if self.georeference is None else ".tif"
        paths = result_paths(directory, stem, views, suffix)
        refuse_to_replace(paths.values())
        if self.georeference is None:
            write_picture(paths["labels"], self.labels)
        else:
            write_label_tiff(
                paths["labels"],
                self.labels,
                blank=self.blank,
                georeference=self.georeference,
                comment=RESULT_COMMENT,
            )
        small = self.preview() if views else None
        for view in views:
            assert small is not None
            write_picture(paths[view], small.view(view))
        described = self.to_dict()
        write_json(paths["json"], described, ensure_ascii=False)  # last: it marks a whole result
        return paths

    @cached_property
    def _runs(self) -> list[ClassRuns]:
        return class_runs(self.labels, blank=self.blank)
