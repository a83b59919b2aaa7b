"""Offline HTML pages: templates filled in, pictures and histograms made ready for them.

Templates lie in the `templates` folder of the package whose page they are; those of this package
(`base.html`, `macros.html`) are open to all of them. What a template prints is escaped, so that a
caption or a file name can never become markup, and a name that it does not know is an error. A page
loads nothing: its pictures are data URIs, and its content policy forbids scripts and every request.
"""

from __future__ import annotations

import base64
import io
import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from ovseg.utils.files import atomic_path

__all__ = [
    "Bar",
    "Histogram",
    "InlineImage",
    "format_number",
    "inline_image",
    "make_histogram",
    "render",
    "write_page",
]

# Characters that HTML forbids even when escaped.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


def render(package: str, template: str, /, **values: Any) -> str:
    """Fill in a template.

    Args:
        package: name of the package whose `templates` folder holds it.
        template: file name there.
        **values: what the template may name.

    Returns:
        The text, with the replacement character for what HTML forbids.

    Raises:
        jinja2.TemplateNotFound: there is no such file.
        jinja2.UndefinedError: the template names what it was not given.
    """
    text = _environment(package).get_template(template).render(values)
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)


def write_page(path: str | Path, package: str, template: str, /, **values: Any) -> Path:
    """Fill in a template and write the result, atomically.

    Args:
        path: target, replaced; its folder is made if missing.
        package, template, **values: as for `render`.

    Returns:
        The target.
    """
    target = Path(path)
    text = render(package, template, **values)
    with atomic_path(target) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return target


@cache
def _environment(package: str) -> jinja2.Environment:
    places = [jinja2.PackageLoader(name) for name in dict.fromkeys((package, "ovseg.utils"))]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(places),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = format_number
    return environment


def format_number(value: float) -> str:
    """Set a number as text.

    Args:
        value: any number.

    Returns:
        A whole one with its thousands apart, another in four digits, a dash if it is not finite.
    """
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.4g}"


@dataclass(frozen=True)
class InlineImage:
    """A picture that travels inside a page.

    Attributes:
        src: data URI.
        width, height: in pixels.
    """

    src: str
    width: int
    height: int


def inline_image(image: np.ndarray, *, max_side: int = 256, quality: int = 85) -> InlineImage:
    """Encode a picture for a page, as JPEG.

    Args:
        image: (H, W, 3) uint8 RGB.
        max_side: longest side in pixels; larger pictures are reduced, smaller ones stay.
        quality: 1-95.

    Returns:
        What the macro `picture` draws.

    Raises:
        ValueError: not an 8-bit RGB picture.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"image: expected non-empty (H, W, 3) uint8 RGB, got {image.shape} of {image.dtype}; "
            "read files with ovseg.readers.pictures.read_image"
        )
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = max_side / max(picture.size)
    if scale < 1:
        width, height = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return InlineImage(f"data:image/jpeg;base64,{data}", picture.width, picture.height)


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram.

    Attributes:
        low, high: ends of its values.
        count: how many values lie between them.
        height: 0-1, relative to the highest bar.
    """

    low: float
    high: float
    count: int
    height: float


@dataclass(frozen=True)
class Histogram:
    """How often values occur.

    Attributes:
        title: what they are.
        count: number of values.
        median: of the values; NaN without any.
        bars: of equal width, the least values first; none without values.
    """

    title: str
    count: int
    median: float
    bars: list[Bar]


def make_histogram(values: np.ndarray, *, title: str, bins: int = 40) -> Histogram:
    """Count how often values occur.

    Args:
        values: numbers of any shape; those that are not finite are left out.
        title: what they are.
        bins: number of bars of equal width between the least and the greatest value.

    Returns:
        What the macro `histogram` draws.
    """
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return Histogram(title, 0, math.nan, [])
    counts, edges = np.histogram(finite, bins=bins)
    heights = counts / counts.max()
    columns = zip(edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), heights, strict=True)
    bars = [Bar(low, high, count, float(height)) for low, high, count, height in columns]
    return Histogram(title, len(finite), float(np.median(finite)), bars)
