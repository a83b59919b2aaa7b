"""COCO's JSON of a dataset, with one annotation per class and picture.

Format: https://cocodataset.org/#format-data. Masks are compressed run lengths, exact, as
pycocotools reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ovseg.exports.base import Exporter, Picture, relative_names
from ovseg.regions import Region, xywh
from ovseg.utils.files import write_json
from ovseg.utils.masks import encode_rle

if TYPE_CHECKING:
    from ovseg.segmentation import Segmentation


class CocoExporter(Exporter):
    """Writes `annotations.json`. Category ids begin at 1: tools take 0 for the background."""

    name = "coco"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pictures: list[Picture] = []
        self._annotations: list[dict[str, Any]] = []

    def _take(self, picture: Picture, regions: Sequence[Region], result: Segmentation) -> None:
        self._pictures.append(picture)
        for region in regions:
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": len(self._pictures),
                    "category_id": region.label + 1,
                    "segmentation": encode_rle(region.mask),
                    "area": region.pixels,
                    "bbox": xywh(region.mask),
                    "iscrowd": 0,
                    "score": round(region.score, 6),
                }
            )

    def finish(self) -> list[Path]:
        """Write the file; see `Exporter.finish`."""
        images = [
            {"id": index, "file_name": name, "height": picture.height, "width": picture.width}
            for index, (picture, name) in enumerate(
                zip(self._pictures, relative_names(self._pictures), strict=True), start=1
            )
        ]
        categories = [
            {"id": index, "name": name, "supercategory": ""}
            for index, name in enumerate(self.names, start=1)
        ]
        path = self.folder / "annotations.json"
        content = {
            "info": {"description": "segmented by ovseg"},
            "licenses": [],
            "images": images,
            "categories": categories,
            "annotations": self._annotations,
        }
        write_json(path, content, indent=None)
        return [path]
