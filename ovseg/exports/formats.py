"""The formats by name."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ovseg.exports.base import Exporter
from ovseg.exports.coco import CocoExporter
from ovseg.exports.cvat import CvatExporter
from ovseg.exports.label_studio import LabelStudioExporter
from ovseg.exports.labelme import LabelMeExporter
from ovseg.exports.yolo import YoloExporter

__all__ = ["EXPORT_FORMATS", "check_formats", "make_exporter"]

_EXPORTERS: tuple[type[Exporter], ...] = (
    CocoExporter,
    YoloExporter,
    LabelMeExporter,
    CvatExporter,
    LabelStudioExporter,
)
EXPORT_FORMATS = tuple(exporter.name for exporter in _EXPORTERS)


def check_formats(formats: Sequence[str]) -> None:
    """Refuse a format that cannot be written.

    Args:
        formats: names of formats.

    Raises:
        ValueError: one of them is not in ``EXPORT_FORMATS``.
    """
    unknown = [name for name in formats if name not in EXPORT_FORMATS]
    if unknown:
        raise ValueError(f"export: expected some of {list(EXPORT_FORMATS)}, got {unknown}")


def make_exporter(
    name: str,
    folder: str | os.PathLike[str],
    names: Sequence[str],
    *,
    tolerance: float = 0.0,
) -> Exporter:
    """Start an export.

    Args:
        name: one of ``EXPORT_FORMATS``.
        folder: see `Exporter`.
        names: see `Exporter`.
        tolerance: see `Exporter`.

    Returns:
        The exporter; call its `add` for each result, then `finish`.

    Raises:
        ValueError: an unknown format.
        FileExistsError: the folder holds something else.
    """
    check_formats([name])
    chosen = _EXPORTERS[EXPORT_FORMATS.index(name)]
    return chosen(folder, names, tolerance=tolerance)
