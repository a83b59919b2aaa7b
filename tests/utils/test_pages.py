from __future__ import annotations

import base64
import io
import itertools
import re
import sys
import xml.etree.ElementTree as ET

import jinja2
import numpy as np
import pytest
from PIL import Image

from ovseg.utils.pages import (
    format_number,
    inline_image,
    make_histogram,
    render,
    write_page,
)

EVIL = '"><script>alert("x")</script>'
ESCAPED = "&#34;&gt;&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;"


NUMBERS = itertools.count()


@pytest.fixture
def room(tmp_path, monkeypatch, request):
    """A function that makes a package with templates and tells its name."""

    def make(**templates: str) -> str:
        name = f"room_{next(NUMBERS)}"  # environments are kept by name
        folder = tmp_path / name / "templates"
        folder.mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
        for stem, text in templates.items():
            (folder / f"{stem}.html").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        request.addfinalizer(lambda: sys.modules.pop(name, None))
        return name

    return make


@pytest.fixture
def drawn(room):
    """A function that renders one line that uses the macros."""

    def draw(line: str, **values) -> str:
        imports = '{% from "macros.html" import bar_chart, cell, histogram, picture, table %}'
        return render(room(line=f"{imports}\n{line}"), "line.html", **values)

    return draw


def test_what_a_template_prints_is_escaped_in_text_and_in_attributes(room):
    name = room(a='<p title="{{ text }}">{{ text }}{{ "<" ~ text }}</p>')

    expected = f'<p title="{ESCAPED}">{ESCAPED}&lt;{ESCAPED}</p>'
    assert render(name, "a.html", text=EVIL) == expected


@pytest.mark.parametrize("text", ["a\x00b", "a\x1bb", "a\ud83db"])
def test_characters_that_html_forbids_are_replaced(room, text):
    assert render(room(a="{{ text }}"), "a.html", text=text) == "a\N{REPLACEMENT CHARACTER}b"


def test_a_name_that_was_not_given_is_an_error(room):
    name = room(a="<p>{{ missing }}</p>", b="<p>{{ row.missing }}</p>")

    with pytest.raises(jinja2.UndefinedError, match="'missing' is undefined"):
        render(name, "a.html")
    with pytest.raises(jinja2.UndefinedError, match="no attribute 'missing'"):
        render(name, "b.html", row={})
    with pytest.raises(jinja2.TemplateNotFound, match=r"c\.html"):
        render(name, "c.html")


def test_a_table_sets_numbers_apart_and_escapes_texts(drawn):
    built = drawn("{{ table(titles, rows, class=kind) }}", kind=EVIL, titles=["name", EVIL], rows=[
        (EVIL, 12345),
        ("cat", 0.25),
    ])  # fmt: skip

    assert f'<table class="{ESCAPED}">' in built
    assert f'<th>name</th><th class="number">{ESCAPED}</th>' in built
    assert f'<td>{ESCAPED}</td><td class="number">12,345</td>' in built
    assert '<td>cat</td><td class="number">0.25</td>' in built


def test_a_table_without_rows_or_without_a_head(drawn):
    lines = drawn('{{ table(["a"], []) }}{{ table([], [("a", 1)]) }}').split()
    assert "".join(lines) == (
        "<table><tr><th>a</th></tr></table>"
        '<table><tr><td>a</td><tdclass="number">1</td></tr></table>'
    )


def test_bars_are_scaled_to_the_longest(drawn):
    chart = drawn("{{ bar_chart(items) }}", items=[("a", 8), (EVIL, 2), ("c", 0)])

    assert re.findall(r"width: ([\d.]+)%", chart) == ["100.00", "25.00", "0.00"]
    assert f"<td>{ESCAPED}</td>" in chart


@pytest.mark.parametrize("items", [[], [("a", 0)]])
def test_bars_of_nothing_have_no_length(drawn, items):
    chart = drawn("{{ bar_chart(items) }}", items=items)
    assert re.findall(r"width: ([\d.]+)%", chart) == ["0.00"] * len(items)


def test_a_histogram_counts_finite_values_and_draws_them_to_scale(drawn):
    values = np.array([0.0, 0.1, 0.2, 0.9, 1.0, np.nan, np.inf])

    chart = make_histogram(values, title="score", bins=2)
    assert [(bar.low, bar.high, bar.count) for bar in chart.bars] == [(0, 0.5, 3), (0.5, 1, 2)]
    assert (chart.count, chart.median) == (5, 0.2)

    figure = ET.fromstring(drawn("{{ histogram(chart, height=100) }}", chart=chart))
    assert figure.findtext("figcaption") == "score: 5 values, median 0.2"
    bars = figure.findall(".//rect")
    assert [bar.findtext("title") for bar in bars] == ["0 to 0.5: 3", "0.5 to 1: 2"]
    heights = [float(bar.get("height", "nan")) for bar in bars]
    assert heights == pytest.approx([74, 74 * 2 / 3], abs=0.01)
    floors = [
        float(bar.get("y", "nan")) + height for bar, height in zip(bars, heights, strict=True)
    ]
    assert floors == pytest.approx([80, 80], abs=0.01)
    assert [text.text for text in figure.findall(".//text")] == ["0", "0.5", "1"]


def test_a_rare_value_stays_visible_beside_a_frequent_one(drawn):
    chart = make_histogram(np.array([0.0] * 9999 + [1.0]), title=EVIL, bins=3)
    markup = drawn("{{ histogram(chart) }}", chart=chart)
    heights = [float(bar.get("height", "nan")) for bar in ET.fromstring(markup).iter("rect")]
    assert heights == [164.0, 0.0, 1.0]
    assert f'aria-label="{ESCAPED}"' in markup and "<script" not in markup


@pytest.mark.parametrize("values", [[], [np.nan]])
def test_a_histogram_of_nothing_says_so(drawn, values):
    chart = make_histogram(np.array(values), title="score")
    assert "score: no values" in drawn("{{ histogram(chart) }}", chart=chart)


def test_a_histogram_of_one_value_has_one_bar():
    chart = make_histogram(np.full(7, 0.25), title="score", bins=5)
    assert [bar.count for bar in chart.bars if bar.height] == [7]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1.0, "1"), (12345.0, "12,345"), (-3, "-3"), (0.123456, "0.1235"), (np.nan, "-")],
)
def test_numbers_are_set_with_thousands_apart_or_four_digits(value, text):
    assert format_number(value) == text


def _decoded(address: str) -> np.ndarray:
    kind, data = address.split(";base64,")
    assert kind == "data:image/jpeg"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_a_picture_travels_inside_the_page(drawn):
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 15:] = 200, 40, 90

    inline = inline_image(image, quality=95)
    assert np.abs(_decoded(inline.src)[:, (4, 24)] - image[:, (4, 24)].astype(int)).max() < 6

    markup = drawn("{{ picture(image, alt) }}", image=inline, alt=EVIL)
    assert f'<img src="{inline.src}" alt="{ESCAPED}" width="30" height="20">' in markup


def test_a_large_picture_is_reduced_and_a_small_one_stays():
    image = np.zeros((100, 400, 3), np.uint8)

    reduced = inline_image(image, max_side=80)
    assert (reduced.width, reduced.height) == (80, 20)
    assert _decoded(reduced.src).shape == (20, 80, 3)
    assert inline_image(image, max_side=800).width == 400


def test_what_is_no_picture_is_refused():
    with pytest.raises(ValueError, match=r"expected non-empty \(H, W, 3\) uint8 RGB"):
        inline_image(np.zeros((4, 4)))


def test_a_page_loads_nothing_runs_no_script_and_keeps_a_rooms_style(room, tmp_path):
    name = room(
        page='{% extends "base.html" %}{% block style %}p { color: red; }{% endblock %}'
        "{% block content %}<p>{{ text }}</p>{% endblock %}"
    )
    path = write_page(tmp_path / "new" / "page.html", name, "page.html", title=EVIL, text=EVIL)

    text = path.read_text("utf-8")
    assert text.startswith("<!doctype html>") and text.endswith("</html>\n")
    assert "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\"" in text
    assert f"<title>{ESCAPED}</title>" in text and f"<h1>{ESCAPED}</h1>" in text
    assert f"<p>{ESCAPED}</p>" in text and "<script" not in text
    assert "p { color: red; }" in text.split("</style>")[0]
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|@import|https?:", text)
