"""LabelMe's JSON, one file per picture.

Format: that of labelme 5 (https://github.com/wkentaro/labelme), polygons without embedded pictures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.exports.base import Exporter, Picture
from ovseg.regions import Region
from ovseg.utils.files import write_json
from ovseg.utils.polygons import mask_to_polygons

if TYPE_CHECKING:
    from ovseg.segmentation import Segmentation

_VERSION = "5.5.0"  # of labelme, whose reader compares the first number


class LabelMeExporter(Exporter):
    """Writes `STEM.json` for each picture, which names the picture's file by its relative path."""

    name = "labelme"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._written: list[Path] = []

    def _take(self, picture: Picture, regions: Sequence[Region], result: Segmentation) -> None:
        shapes = [
            {
                "label": region.name,
                "points": polygon.astype(float).tolist(),
                "group_id": None,
                "description": f"score {region.score:.3f}",
                "shape_type": "polygon",
                "flags": {},
                "mask": None,
            }
            for region in regions
            for polygon in mask_to_polygons(region.mask, tolerance=self.tolerance)
        ]
        try:
            relative = os.path.relpath(picture.file, self.folder)
        except ValueError:  # another drive of Windows
            relative = str(picture.file.absolute())
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": Path(relative).as_posix(),
            "imageData": None,
            "imageHeight": picture.height,
            "imageWidth": picture.width,
        }
        path = self.folder / f"{picture.stem}.json"
        write_json(path, content)
        self._written.append(path)

    def finish(self) -> list[Path]:
        """Return the files; all are written already."""
        return self._written
