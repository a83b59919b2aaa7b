"""Label Studio's tasks with predictions, one polygon per part.

Format: https://labelstud.io/guide/predictions and https://labelstud.io/tags/polygonlabels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.etree import ElementTree

from ovseg.exports.base import Exporter, Picture, relative_names
from ovseg.regions import Region
from ovseg.utils.files import atomic_path, write_json
from ovseg.utils.polygons import mask_to_polygons
from ovseg.visualization import palette

if TYPE_CHECKING:
    from ovseg.segmentation import Segmentation

_CONTROL, _OBJECT = "label", "image"
_LOCAL_FILES = "/data/local-files/?d="


class LabelStudioExporter(Exporter):
    """Writes `tasks.json` to import and `label_config.xml`, the labelling interface.

    Pictures are asked for as local files: set LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED=true and
    LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT to the folder that the pictures have in common.
    """

    name = "label_studio"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pictures: list[Picture] = []
        self._predictions: list[dict[str, Any]] = []

    def _take(self, picture: Picture, regions: Sequence[Region], result: Segmentation) -> None:
        found: list[dict[str, Any]] = []
        for region in regions:
            for polygon in mask_to_polygons(region.mask, tolerance=self.tolerance):
                places = 100 * (polygon + 0.5) / (picture.width, picture.height)  # (N, 2), percent
                found.append(
                    {
                        "id": f"{picture.stem}-{len(found)}",
                        "from_name": _CONTROL,
                        "to_name": _OBJECT,
                        "type": "polygonlabels",
                        "original_width": picture.width,
                        "original_height": picture.height,
                        "image_rotation": 0,
                        "score": round(region.score, 6),
                        "value": {
                            "points": places.round(6).tolist(),
                            "polygonlabels": [region.name],
                            "closed": True,
                        },
                    }
                )
        scores = [region.score for region in regions]
        self._pictures.append(picture)
        self._predictions.append(
            {
                "model_version": str(result.provenance.get("weights", {}).get("name", "ovseg")),
                "score": round(sum(scores) / max(1, len(scores)), 6),
                "result": found,
            }
        )

    def finish(self) -> list[Path]:
        """Write the files; see `Exporter.finish`."""
        names = relative_names(self._pictures)
        tasks = [
            {"data": {_OBJECT: f"{_LOCAL_FILES}{quote(name)}"}, "predictions": [prediction]}
            for name, prediction in zip(names, self._predictions, strict=True)
        ]
        paths = [self.folder / "tasks.json", self.folder / "label_config.xml"]
        write_json(paths[0], tasks)
        view = ElementTree.Element("View")
        ElementTree.SubElement(view, "Image", {"name": _OBJECT, "value": f"${_OBJECT}"})
        control = ElementTree.SubElement(
            view, "PolygonLabels", {"name": _CONTROL, "toName": _OBJECT}
        )
        for name, color in zip(self.names, palette(self.names).tolist(), strict=True):
            background = "#{:02x}{:02x}{:02x}".format(*color)
            ElementTree.SubElement(control, "Label", {"value": name, "background": background})
        ElementTree.indent(view)
        with atomic_path(paths[1]) as partial:
            partial.write_text(ElementTree.tostring(view, encoding="unicode"), encoding="utf-8")
        return paths
