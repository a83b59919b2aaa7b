from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from ovseg.utils.html import (
    Html,
    bar_chart,
    element,
    histogram,
    inline_image,
    join,
    page,
    table,
    write_page,
)


def test_text_is_escaped_and_markup_is_kept():
    inner = element("b", "a < b & c")

    assert inner == "<b>a &lt; b &amp; c</b>"
    assert element("p", inner, "<script>") == f"<p>{inner}&lt;script&gt;</p>"
    assert join(["<i>", Html("<hr>")]) == "&lt;i&gt;<hr>"


def test_attributes_are_escaped_and_none_is_left_out():
    built = element("img", alt='"><script>', class_="wide", aria_label="x", src=None)

    assert built == '<img alt="&quot;&gt;&lt;script&gt;" class="wide" aria-label="x">'


@pytest.mark.parametrize("text", ["a\x00b", "a\x1bb", "a\ud83db"])
def test_characters_that_html_forbids_are_replaced(text):
    assert element("p", text) == "<p>a\N{REPLACEMENT CHARACTER}b</p>"


def test_names_that_could_break_out_are_refused():
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        element("p onclick=x")
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        element("p", **{"a b": "c"})
    with pytest.raises(ValueError, match="<img>: expected no content"):
        element("img", "text")


def test_a_table_sets_numbers_apart():
    built = table(("name", "count"), [("<dog>", 12345), ("cat", 0.25)])

    assert "<td>&lt;dog&gt;</td>" in built
    assert '<td class="number">12,345</td>' in built
    assert '<td class="number">0.25</td>' in built
    assert '<th>name</th><th class="number">count</th>' in built


def test_a_table_without_rows_or_without_a_head():
    assert table(("a",), []) == "<table><tr><th>a</th></tr></table>"
    assert "<th" not in table((), [("a", 1)])


def test_bars_are_scaled_to_the_longest():
    widths = re.findall(r"width: ([\d.]+)%", bar_chart([("a", 8), ("b", 2), ("c", 0)]))

    assert widths == ["100.00", "25.00", "0.00"]
    assert bar_chart([]) == '<table class="bars"></table>'


def test_a_histogram_counts_finite_values_and_draws_them_to_scale():
    values = np.array([0.0, 0.1, 0.2, 0.9, 1.0, np.nan, np.inf])

    figure = ET.fromstring(histogram(values, title="score", bins=2, height=100))

    assert figure.findtext("figcaption") == "score: 5 values, median 0.2"
    bars = figure.findall(".//rect")
    assert [bar.findtext("title") for bar in bars] == ["0 to 0.5: 3", "0.5 to 1: 2"]
    heights = [float(bar.get("height", "nan")) for bar in bars]
    assert heights[1] / heights[0] == pytest.approx(2 / 3, abs=0.01)


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_a_histogram_of_nothing_says_so(values):
    assert "score: no values" in histogram(np.array(values), title="score")


def test_a_histogram_of_one_value_has_one_bar():
    drawn = ET.fromstring(histogram(np.full(7, 0.25), title="score", bins=5))

    tall = [bar for bar in drawn.findall(".//rect") if float(bar.get("height", "0")) > 0]
    assert len(tall) == 1


def _decoded(markup: str) -> np.ndarray:
    data = re.search(r"base64,([^\"]+)", markup)
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data[1]))))


def test_a_picture_travels_inside_the_page():
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)

    markup = inline_image(image, alt="noise", lossless=True)

    assert 'src="data:image/png;base64,' in markup
    assert (_decoded(markup) == image).all()


def test_a_large_picture_is_reduced():
    image = np.zeros((100, 400, 3), np.uint8)

    markup = inline_image(image, alt="black", max_side=80)

    assert 'width="80" height="20"' in markup
    assert _decoded(markup).shape == (20, 80, 3)


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"expected non-empty \(H, W, 3\) uint8 RGB"):
        inline_image(np.zeros((4, 4)), alt="grey")


def test_a_page_loads_nothing_and_runs_no_script(tmp_path):
    document = page("<title>", element("p", "text"), style="p { color: red; }")

    path = write_page(tmp_path / "new" / "page.html", document)

    text = path.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "default-src &#x27;none&#x27;" in text
    assert "<title>&lt;title&gt;</title>" in text
    assert "p { color: red; }</style>" in text
    assert not re.search(r"(src|href)=\"(?!data:)", text)


def test_a_style_cannot_end_its_element():
    with pytest.raises(ValueError, match="closing tag"):
        page("t", style="</style><script>")
