"""Results in the files of other tools: COCO, YOLO, LabelMe, CVAT, Label Studio, supervision."""

from __future__ import annotations

from ovseg.exports.base import Exporter, Picture
from ovseg.exports.formats import EXPORT_FORMATS, check_formats, make_exporter

__all__ = ["EXPORT_FORMATS", "Exporter", "Picture", "check_formats", "make_exporter"]
