"""CVAT's XML for images, version 1.1, with one mask per class and picture.

Format: https://docs.cvat.ai/docs/other/xml_format. A mask is the run lengths of its box, row by
row, of pixels outside and inside in turn, beginning with those outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from ovseg.exports.base import Exporter, Picture, relative_names
from ovseg.regions import Region, xywh
from ovseg.utils.files import atomic_path
from ovseg.visualization import palette

if TYPE_CHECKING:
    from ovseg.segmentation import Segmentation


class CvatExporter(Exporter):
    """Writes `annotations.xml`, for "Upload annotations" of a task that holds these pictures."""

    name = "cvat"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pictures: list[Picture] = []
        self._masks: list[list[dict[str, str]]] = []

    def _take(self, picture: Picture, regions: Sequence[Region], result: Segmentation) -> None:
        self._pictures.append(picture)
        self._masks.append([_mask(region) for region in regions])

    def finish(self) -> list[Path]:
        """Write the file; see `Exporter.finish`."""
        root = ElementTree.Element("annotations")
        _text(root, "version", "1.1")
        task = ElementTree.SubElement(ElementTree.SubElement(root, "meta"), "task")
        _text(task, "name", "ovseg")
        _text(task, "size", str(len(self._pictures)))
        _text(task, "mode", "annotation")
        labels = ElementTree.SubElement(task, "labels")
        for name, color in zip(self.names, palette(self.names).tolist(), strict=True):
            label = ElementTree.SubElement(labels, "label")
            _text(label, "name", name)
            _text(label, "color", "#{:02x}{:02x}{:02x}".format(*color))
            _text(label, "type", "mask")
            ElementTree.SubElement(label, "attributes")
        # XML knows no bytes that are no UTF-8, which names of files may hold.
        names = [
            name.encode("utf-8", "backslashreplace").decode()
            for name in relative_names(self._pictures)
        ]
        for index, (picture, name) in enumerate(zip(self._pictures, names, strict=True)):
            size = {"width": str(picture.width), "height": str(picture.height)}
            image = ElementTree.SubElement(root, "image", {"id": str(index), "name": name, **size})
            for mask in self._masks[index]:
                ElementTree.SubElement(image, "mask", mask)
        path = self.folder / "annotations.xml"
        ElementTree.indent(root)
        with atomic_path(path) as partial:
            ElementTree.ElementTree(root).write(partial, encoding="utf-8", xml_declaration=True)
        return [path]


def _mask(region: Region) -> dict[str, str]:
    left, top, width, height = xywh(region.mask)
    inside = region.mask[top : top + height, left : left + width].ravel()
    ends = np.flatnonzero(np.diff(inside)) + 1
    runs = np.diff(np.concatenate(([0], ends, [len(inside)]))).tolist()
    runs = [0, *runs] if inside[0] else runs
    return {
        "label": region.name,
        "source": "auto",
        "occluded": "0",
        "rle": ", ".join(map(str, runs)),
        "left": str(left),
        "top": str(top),
        "width": str(width),
        "height": str(height),
        "z_order": "0",
    }


def _text(parent: ElementTree.Element, tag: str, text: str) -> None:
    ElementTree.SubElement(parent, tag).text = text
