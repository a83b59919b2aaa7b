from __future__ import annotations

import re

import numpy as np
import pytest
from markupsafe import escape

from ovseg.mining.records import records_table
from ovseg.mining.report import choose_pairs, write_report
from tests.mining.mined import Pictures, make_image, make_record, make_records

EVIL = '<script>alert("x")</script>'


def _section(text: str, title: str) -> str:
    found = re.search(rf"<h2>{re.escape(title)}.*?</section>", text, re.DOTALL)
    assert found is not None, title
    return found[0]


def _nouns(text: str, title: str) -> list[str]:
    return re.findall(r'<p class="noun">(.*?)</p>', _section(text, title))


def _scored(scores: list[float], nouns: list[str]):
    return records_table(
        [
            make_record(i, i // 2, noun, clip_score=score)
            for i, (score, noun) in enumerate(zip(scores, nouns, strict=True))
        ]
    )


def test_best_median_and_worst_pairs_are_chosen_by_score():
    records = _scored([0.1, 0.5, 0.3, 0.2, 0.9], list("abcde"))

    chosen = choose_pairs(records, 2)

    assert chosen.best == [4, 1]
    assert chosen.worst == [0, 3]
    assert chosen.median == [2, 3]


def test_each_noun_is_shown_once_before_any_is_repeated():
    records = _scored([0.9, 0.8, 0.7, 0.1], ["dog", "dog", "cat", "cow"])

    assert choose_pairs(records, 2).best == [0, 2]
    assert choose_pairs(records, 4).best == [0, 1, 2, 3]


def test_rare_nouns_come_first_each_with_its_best_pair():
    nouns = ["dog", "dog", "dog", "owl", "cat", "cat"]
    records = _scored([0.9, 0.8, 0.7, 0.1, 0.2, 0.3], nouns)

    assert choose_pairs(records, 2).rarest == [3, 5]
    assert choose_pairs(records, 9).rarest == [3, 5, 0], "a noun is never repeated here"


def test_the_choice_does_not_depend_on_the_order_of_the_records():
    records = _scored([0.5] * 6, list("ababab"))
    mixed = records.take([3, 1, 5, 0, 4, 2])

    for part in ("best", "median", "worst", "rarest"):
        names = [
            [table["pair_id"][i].as_py() for i in getattr(choose_pairs(table, 3), part)]
            for table in (records, mixed)
        ]
        assert names[0] == names[1]


def test_the_page_tells_totals_and_shows_the_pairs(tmp_path):
    records = make_records(8)
    summary = {"images_in": 5, "seconds": 2.5, "quarantine": {"not an image": 3}}
    summary |= {"without_pairs": {"no nouns": 2}, "nouns": 9, "config_hash": "c0ffee"}

    path = write_report(tmp_path, records, Pictures(), summary, gallery=2)

    text = path.read_text("utf-8")
    assert path == tmp_path / "report.html"
    assert '<td>pairs</td><td class="number">8</td>' in text
    assert '<td>images with pairs</td><td class="number">4</td>' in text
    assert '<td>images in</td><td class="number">5</td>' in text
    assert '<td>nouns</td><td class="number">4</td>' in text
    assert '<td>nouns in captions</td><td class="number">9</td>' in text
    assert text.count("c0ffee") == 1
    assert '<td>not an image</td><td class="number">3</td>' in _section(text, "Set aside")
    assert '<td>no nouns</td><td class="number">2</td>' in _section(text, "Set aside")
    assert "CLIP score: 8 values, median 0.2035" in text
    assert _nouns(text, "Best pairs") == ["null", "red kite"]
    assert _nouns(text, "Worst pairs") == ["dog", "cat"]
    assert "0 of 4 nouns occur once" in _section(text, "Rarest nouns")
    assert "a <mark>null</mark> in the scene" in _section(text, "Best pairs")
    assert "2 pairs of this noun, image 103" in _section(text, "Best pairs")
    assert _section(text, "Best pairs").count("data:image/jpeg;base64,") == 4


def test_the_page_needs_nothing_but_itself(tmp_path):
    text = write_report(tmp_path, make_records(4), Pictures(), {}).read_text("utf-8")

    assert not re.search(r"(src|href)=\"(?!data:)", text)
    assert "<script" not in text
    assert "http://" not in text
    assert "https://" not in text


def test_text_from_outside_stays_text(tmp_path):
    caption = f"a {EVIL} & more"
    changes = {"caption": caption, "span_end": 2 + len(EVIL), "image_uri": EVIL, "lemma": EVIL}
    records = records_table([make_record(0, 0, EVIL, proposal_model=EVIL, **changes)])
    entry = {"image_id": EVIL, "uri": EVIL, "kind": EVIL, "reason": EVIL}

    def broken(row):
        raise OSError(f"{row.uri}: no such file")

    write_report(
        tmp_path, records, broken, {EVIL: EVIL, "quarantine": {EVIL: 1}}, quarantine=[entry]
    )

    text = (tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in text
    assert text.count(escape(EVIL)) > 10


def test_a_picture_that_is_gone_leaves_its_place_and_its_reason(tmp_path):
    def second_is_gone(row):
        if row.image_id == "101":
            raise OSError("train/1.png: no such file")
        return make_image(int(row.image_id) - 100)

    path = write_report(tmp_path, make_records(4), second_is_gone, {}, gallery=4)

    best = _section(path.read_text("utf-8"), "Best pairs")
    assert best.count("cannot be shown: train/1.png: no such file") == 2
    assert best.count("data:image/jpeg") == 4


def test_the_first_entries_set_aside_are_listed(tmp_path):
    entries = [
        {"image_id": str(i), "uri": f"{i}.jpg", "kind": "picture", "reason": "truncated"}
        for i in range(60)
    ]

    path = write_report(tmp_path, make_records(2), Pictures(), {}, quarantine=entries)

    part = _section(path.read_text("utf-8"), "Set aside")
    assert "The first 50 of 60:" in part
    assert part.count("truncated") == 50


@pytest.mark.parametrize("margin", [None, 0.25])
def test_a_margin_may_be_missing(tmp_path, margin):
    records = records_table([make_record(0, 0, "dog", margin=margin)])

    text = write_report(tmp_path, records, Pictures(), {}).read_text("utf-8")

    assert ("margin none" if margin is None else "margin 0.2500") in text
    assert ("Margin over the runner-up: no values" in text) == (margin is None)


def test_no_pairs_give_a_page_that_says_so(tmp_path):
    text = write_report(tmp_path / "a.html", make_records(0), Pictures(), {}).read_text("utf-8")

    assert '<td>pairs</td><td class="number">0</td>' in text
    assert "Nothing was quarantined." in text


def test_the_region_is_drawn_where_it_is(tmp_path):
    from ovseg.mining.report import _outlined

    image, mask = np.full((32, 64, 3), 30, np.uint8), np.zeros((32, 64), bool)
    mask[8:24, 16:32] = True

    drawn = _outlined(image, mask)  # (112, 224, 3), 3.5 times as large

    assert drawn.shape == (112, 224, 3)
    assert (drawn[36:76, 64:104] == 30).all()
    assert (drawn[:, 120:] == 170).all()
    assert tuple(drawn[56, 56]) == (230, 20, 120)
