"""Small parts of offline HTML pages: elements, pictures inside the page, histograms, tables.

Whatever is not `Html` already is text and gets escaped, so that a caption or a file name can never
become markup. A page loads nothing: its pictures are data URIs, and its content policy forbids
scripts and every request.
"""

from __future__ import annotations

import base64
import html
import io
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ovseg.utils.files import atomic_path

__all__ = [
    "Html",
    "bar_chart",
    "element",
    "histogram",
    "inline_image",
    "join",
    "page",
    "table",
    "write_page",
]

_VOID = frozenset({"br", "hr", "img", "meta"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")
# Characters that HTML forbids even when escaped.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")

_STYLE = """
:root { color-scheme: light; --ink: #1c2330; --faint: #667085; --line: #d9dee7; --bar: #3b6fb6; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem; color: var(--ink); background: #fff;
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem; }
p, figcaption { color: var(--faint); margin: .3rem 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; } th, td { text-align: left; padding: .2rem .9rem .2rem 0;
  border-bottom: 1px solid var(--line); vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
figure { margin: 0; } svg { max-width: 100%; height: auto; }
svg text { font: 12px system-ui, sans-serif; fill: var(--faint); } svg rect { fill: var(--bar); }
.bar { background: var(--bar); height: .75rem; min-width: 1px; } .bars { width: 100%; }
.bars td { padding: .08rem .6rem .08rem 0; border: 0; white-space: nowrap; }
.bars td.rail { width: 70%; vertical-align: middle; }
"""


class Html(str):
    """Markup that may stand in a page as it is."""

    __slots__ = ()


def element(tag: str, /, *children: str, **attributes: str | float | None) -> Html:
    """Build one element.

    Args:
        tag: e.g. "p".
        *children: content; `Html` is kept, any other text is escaped.
        **attributes: values are escaped, None leaves an attribute out. A trailing underscore is
            dropped (`class_`) and inner ones become hyphens.

    Returns:
        The element.

    Raises:
        ValueError: the name of the tag or of an attribute is not one, or a void element such as
            img is given content.
    """
    written = [tag]
    for key, value in attributes.items():
        attribute = key.rstrip("_").replace("_", "-")
        _check_name(attribute)
        if value is not None:
            written.append(f'{attribute}="{_escape(str(value))}"')
    _check_name(tag)
    opening = " ".join(written)
    if tag in _VOID:
        if children:
            raise ValueError(f"<{tag}>: expected no content, got {len(children)} children")
        return Html(f"<{opening}>")
    return Html(f"<{opening}>{join(children)}</{tag}>")


def join(parts: Iterable[str]) -> Html:
    """Put pieces one after the other.

    Args:
        parts: `Html` is kept, any other text is escaped.

    Returns:
        Their sequence, without anything between.
    """
    return Html("".join(p if isinstance(p, Html) else _escape(p) for p in parts))


def table(
    header: Sequence[str], rows: Iterable[Sequence[str | float]], *, class_: str | None = None
) -> Html:
    """Set rows as a table.

    Args:
        header: K column titles; empty for a table without a head.
        rows: cells, K a row; numbers stand at the right, integers with their thousands apart.
        class_: CSS class.

    Returns:
        The table.
    """
    body = list(rows)
    head: list[Html] = []
    if header:
        first = body[0] if body else [""] * len(header)
        kinds = [None if isinstance(value, str) else "number" for value in first]
        titles = zip(header, kinds, strict=True)
        head.append(element("tr", *(element("th", title, class_=kind) for title, kind in titles)))
    lines = [element("tr", *(_cell("td", value) for value in row)) for row in body]
    return element("table", *head, *lines, class_=class_)


def bar_chart(items: Sequence[tuple[str, float]]) -> Html:
    """Draw one horizontal bar a name, the longest filling the width.

    Args:
        items: (name, value >= 0), drawn in the order given.

    Returns:
        A table whose bars are scaled boxes.
    """
    most = max((value for _, value in items), default=0) or 1
    rows = [
        element(
            "tr",
            element("td", name),
            _cell("td", value),
            element(
                "td",
                element("div", class_="bar", style=f"width: {100 * value / most:.2f}%"),
                class_="rail",
            ),
        )
        for name, value in items
    ]
    return element("table", *rows, class_="bars")


def histogram(
    values: np.ndarray, *, title: str, bins: int = 40, width: int = 520, height: int = 190
) -> Html:
    """Draw how often values occur, as an SVG with a tooltip for every bar.

    Args:
        values: numbers of any shape; those that are not finite are left out.
        title: said above the bars, with the number of values and their median.
        bins: number of bars of equal width between the least and the greatest value.
        width: of the drawing in pixels.
        height: of the drawing in pixels.

    Returns:
        A figure; without values it says so.
    """
    finite = np.asarray(values, np.float64).ravel()
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return element("figure", element("figcaption", f"{title}: no values"))
    counts, edges = np.histogram(finite, bins=bins)
    floor, step = height - 20, width / bins
    bars = []
    for index, count in enumerate(counts.tolist()):
        tall = 0.0 if count == 0 else max(1.0, (floor - 6) * count / counts.max())
        hint = f"{_number(edges[index])} to {_number(edges[index + 1])}: {_number(count)}"
        place = {"x": f"{index * step:.2f}", "y": f"{floor - tall:.2f}"}
        size = {"width": f"{step - 1:.2f}", "height": f"{tall:.2f}"}
        bars.append(element("rect", element("title", hint), **place, **size))
    ticks = [
        element("text", _number(edges[0]), x=0, y=height - 4),
        element("text", _number(edges[bins // 2]), x=width / 2, y=height - 4, text_anchor="middle"),
        element("text", _number(edges[-1]), x=width, y=height - 4, text_anchor="end"),
    ]
    drawing = element(
        "svg",
        *bars,
        *ticks,
        viewBox=f"0 0 {width} {height}",
        width=width,
        height=height,
        role="img",
        aria_label=title,
    )
    note = f"{title}: {len(finite):,} values, median {_number(float(np.median(finite)))}"
    return element("figure", element("figcaption", note), drawing)


def inline_image(
    image: np.ndarray, *, alt: str, max_side: int = 256, lossless: bool = False, quality: int = 85
) -> Html:
    """Put a picture into the page itself.

    Args:
        image: (H, W, 3) uint8 RGB.
        alt: what it shows, for those who cannot see it.
        max_side: longest side in pixels; larger pictures are reduced, smaller ones stay.
        lossless: PNG instead of JPEG.
        quality: of the JPEG, 1-95.

    Returns:
        An img element with a data URI.

    Raises:
        ValueError: not an 8-bit RGB picture.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise ValueError(
            f"image: expected non-empty (H, W, 3) uint8 RGB, got {image.shape} of {image.dtype}; "
            "read files with ovseg.utils.images.read_image"
        )
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = max_side / max(picture.size)
    if scale < 1:
        small = (max(1, round(side * scale)) for side in picture.size)
        picture = picture.resize((next(small), next(small)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    if lossless:
        picture.save(buffer, format="PNG")
    else:
        picture.save(buffer, format="JPEG", quality=quality)
    kind = "png" if lossless else "jpeg"
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return element(
        "img",
        src=f"data:image/{kind};base64,{data}",
        alt=alt,
        width=picture.width,
        height=picture.height,
    )


def page(title: str, *content: str, style: str = "") -> Html:
    """Build a whole document.

    Args:
        title: of the window and of the page.
        *content: `Html` is kept, any other text is escaped.
        style: CSS added to that of all pages; the caller's own, never a user's text.

    Returns:
        The document, doctype first.

    Raises:
        ValueError: the style would end its element.
    """
    if "</" in style:
        raise ValueError("style: expected CSS, got a closing tag in it")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("style", Html(_STYLE + style)),
    )
    body = element("body", element("h1", title), *content)
    return Html(f"<!doctype html>\n{element('html', head, body, lang='en')}\n")


def write_page(path: str | Path, document: Html) -> Path:
    """Write a document, atomically.

    Args:
        path: target, replaced; its folder is made if missing.
        document: what `page` returned.

    Returns:
        The target.
    """
    target = Path(path)
    with atomic_path(target) as partial:
        partial.write_text(document, encoding="utf-8", newline="\n")
    return target


def _escape(text: str) -> str:
    return html.escape(_FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text), quote=True)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"expected a name of letters, digits and hyphens, got {name!r}")


def _cell(name: str, value: str | float) -> Html:
    if isinstance(value, str):
        return element(name, value)
    return element(name, _number(value), class_="number")


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 2 else f"{value:.4g}"
