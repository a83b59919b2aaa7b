"""One picture of many: examples of a dataset with their labels, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ovseg.readers.pictures import read_image, read_label
from ovseg.utils.images import write_png
from ovseg.visualization import BLANK, blend, legend_strip, palette, tiles

__all__ = ["contact_sheet", "spread", "write_contact_sheet"]

_HEIGHT = 288  # of a picture on the sheet
_WIDEST = 3 * _HEIGHT // 2
_TITLE = 22
_COLUMNS = 2
_PAPER, _INK = (250, 250, 250), (20, 20, 20)


def write_contact_sheet(
    path: Path,
    pairs: Sequence[tuple[str, Path, Path]],
    names: Sequence[str],
    ignore_label: int,
) -> None:
    """Draw pictures beside their labels and write the sheet as PNG.

    Args:
        path: target.
        pairs: title, picture and label map of each, of the same size.
        names: K class names.
        ignore_label: label that is left as photographed.

    Raises:
        ImageError: a file cannot be read.
        ValueError: a picture and its labels differ in size.
    """
    examples = [
        (title, read_image(picture), read_label(labels)) for title, picture, labels in pairs
    ]
    write_png(path, contact_sheet(examples, names, ignore_label))


def contact_sheet(
    examples: Sequence[tuple[str, np.ndarray, np.ndarray]],
    names: Sequence[str],
    ignore_label: int,
) -> np.ndarray:
    """Draw pictures beside their labels: the picture, its labels over it, their names.

    Args:
        examples: title, picture (H, W, 3) uint8 RGB and labels (H, W) integers of each.
        names: K class names.
        ignore_label: left as photographed; so are labels that are no class.

    Returns:
        uint8 RGB picture.

    Raises:
        ValueError: there is no example, or a picture and its labels differ in size.
    """
    if not examples:
        raise ValueError("expected at least one picture for a contact sheet, got none")
    colors = palette(names)
    cells = [_cell(*example, names, colors, ignore_label) for example in examples]
    return tiles(cells, _COLUMNS)


def spread(count: int, wanted: int) -> list[int]:
    """Choose indices evenly from first to last.

    Args:
        count: how many there are.
        wanted: how many to choose.

    Returns:
        Ascending indices, all of them where there are no more than wanted.
    """
    if count <= wanted:
        return list(range(count))
    return [round(i * (count - 1) / (wanted - 1)) for i in range(wanted)] if wanted > 1 else [0]


def _cell(
    title: str,
    image: np.ndarray,
    labels: np.ndarray,
    names: Sequence[str],
    colors: np.ndarray,
    ignore_label: int,
) -> np.ndarray:
    if image.shape[:2] != labels.shape:
        raise ValueError(f"{title}: the picture is {image.shape[:2]}, its labels {labels.shape}")
    known = (labels >= 0) & (labels < len(names)) & (labels != ignore_label)
    shown = np.where(known, labels, BLANK).astype(np.int32)  # (H, W)
    scale = min(_HEIGHT / image.shape[0], _WIDEST / image.shape[1])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    smooth = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    small = cv2.resize(image, size, interpolation=smooth)
    small_labels = cv2.resize(shown, size, interpolation=cv2.INTER_NEAREST)
    parts = [small, blend(small, small_labels, colors, alpha=0.65)]
    parts.append(legend_strip(shown, names, colors, height=_HEIGHT))
    width = sum(part.shape[1] for part in parts) + 2 * (len(parts) - 1)
    cell = np.full((_HEIGHT + _TITLE, width, 3), _PAPER, np.uint8)
    left = 0
    for part in parts:
        cell[_TITLE : _TITLE + part.shape[0], left : left + part.shape[1]] = part
        left += part.shape[1] + 2
    text = Image.fromarray(cell)
    caption = f"{title}   {image.shape[1]} x {image.shape[0]}"
    ImageDraw.Draw(text).text((0, 3), caption, _INK, ImageFont.load_default(14))
    return np.array(text)
