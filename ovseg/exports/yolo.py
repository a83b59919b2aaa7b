"""Ultralytics' YOLO segmentation: a folder that `yolo segment train data=data.yaml` takes.

Format: https://docs.ultralytics.com/datasets/segment. One line per polygon: the class, then x and y
of each vertex over the picture's width and height.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from ovseg.exports.base import Exporter, Picture
from ovseg.regions import Region
from ovseg.utils.files import atomic_path
from ovseg.utils.images import write_png
from ovseg.utils.polygons import mask_to_polygons

if TYPE_CHECKING:
    from ovseg.segmentation import Segmentation

_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")  # that ultralytics reads


class YoloExporter(Exporter):
    """Writes `labels/STEM.txt`, the picture as `images/STEM.*`, and `data.yaml`.

    Training and validation in `data.yaml` are the same pictures; split them before you train.
    """

    name = "yolo"

    def _take(self, picture: Picture, regions: Sequence[Region], result: Segmentation) -> None:
        suffix = picture.file.suffix.lower()
        copy = self.folder / "images" / f"{picture.stem}{suffix if suffix in _SUFFIXES else '.png'}"
        if picture.file != copy and suffix in _SUFFIXES:
            with atomic_path(copy) as partial:
                shutil.copyfile(picture.file, partial)
        elif picture.file != copy:
            write_png(copy, result.image)
        lines = []
        for region in regions:
            for polygon in mask_to_polygons(region.mask, tolerance=self.tolerance):
                # Centres of pixels, so that rounding to whole pixels leads back to them.
                places = (polygon + 0.5) / (picture.width, picture.height)  # (N, 2)
                numbers = " ".join(f"{value:.6f}" for value in places.ravel())
                lines.append(f"{region.label} {numbers}\n")
        with atomic_path(self.folder / "labels" / f"{picture.stem}.txt") as partial:
            partial.write_text("".join(lines), encoding="utf-8")

    def finish(self) -> list[Path]:
        """Write `data.yaml`; see `Exporter.finish`."""
        path = self.folder / "data.yaml"
        content = {
            "path": str(self.folder.absolute()),
            "train": "images",
            "val": "images",
            "names": dict(enumerate(self.names)),
        }
        with atomic_path(path) as partial:
            text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
            partial.write_text(text, encoding="utf-8")
        return [path]
