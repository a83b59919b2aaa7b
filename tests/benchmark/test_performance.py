"""The page of figures: medians, ratios, shares and exponents as the figures have them."""

from __future__ import annotations

from typing import Any

from ovseg.benchmark.performance import performance_page, receipt_table, write_page
from ovseg.utils.files import write_json


def measured(
    texts: float, picture: float, peak: int | None = 2**20, kept: int = 0
) -> dict[str, Any]:
    parts = {"texts": texts, "picture": picture, "words": 0.1}
    return {
        "seconds": {**parts, "memory": 0.001, "disk": texts},
        "peak_bytes": dict.fromkeys(parts, peak),
        "stages": {"backbone": picture / 4, "all else": picture * 3 / 4},
        "kept_bytes": {"memory": 2**20, "disk": kept},
    }


def way(rounds: list[dict[str, Any]], **facts: Any) -> dict[str, Any]:
    operations = {"texts": 3e9, "picture": 1e9, "words": 0}
    known = {"opts": [], "without": [], "operations": operations, "agreement": 1.0}
    return {**known, "rounds": rounds, **facts}


def figures(**parts: Any) -> dict[str, Any]:
    ways = {
        "reference": way([measured(4, 2, 3 * 2**20), measured(9, 1.9), measured(5, 2.5)]),
        "exact": way([measured(1, 1), measured(1, 1), measured(1, 7)], agreement=0.99996),
        "one saving": way([measured(1, 0.5)], opts=["TEST.OUTPUT", "labels"], without=["texts"]),
        "fast": way([measured(1, 0.25, kept=2**21)], agreement=0.9876),
    }
    return {
        "settings": {
            **{"config": "ovseg_tiny", "weights": "random", "opts": [], "benchmark": "pascal_voc"},
            **{"classes": 20, "templates": 14, "size": [64, 96], "network_size": [128, 192]},
            "picture": "random pixels",
        },
        "machine": {"processor": "A processor", "cores": 2, "threads": 1},
        "environment": {"ovseg": "0.1.0", "device": "cpu", "packages": {"torch": "2.9.9"}},
        "receipt": {"matmul": {"float32": 4e9, "bfloat16": 8e9}, "ways": ways},
        **parts,
    }


def rows(table: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines if len(line) > 1}


def test_ratios_are_those_of_the_medians_and_what_is_given_up_stands_beside_them():
    accuracy = {
        **{"dataset": "scenes", "pictures": 5},
        "ways": {
            "reference": {"mIoU": 53.127, "agreement": 1.0},
            "exact": {"mIoU": 53.1, "agreement": 0.9999},
            "fast": {"mIoU": 52.0, "agreement": 0.97},
        },
    }
    table = rows(receipt_table(figures(accuracy=accuracy)))
    assert table[""][:5] == ["reference", "exact", "fast", "exact, times less", "fast, times less"]
    # Medians of 6, 10.9 and 7.5 s, and of 2, 2 and 8 s.
    assert table["first picture with a new vocabulary, ms"] == [
        *("7,500 (6,000–10,900)", "2,000 (2,000–8,000)", "1,250", "3.75x", "6.00x"),
        *("100.00 / 98.76", "53.13 / 53.10 / 52.00"),
    ]
    assert table["each further picture, vocabulary known, ms"][3:5] == ["2.00x", "8.00x"]
    # Peaks are those of the round: 3, 1 and 1 MiB.
    assert table["peak memory, MiB"][:4] == ["1.00 (1.00–3.00)", "1.00", "1.00", "1.00x"]
    assert table["their disk, MiB"] == ["0.000", "0.000", "2.00", "–", "–", "–", "–"]


def test_memory_that_no_system_tells_and_a_data_set_that_was_not_asked_leave_no_number():
    known = figures()
    for each in known["receipt"]["ways"].values():
        each["rounds"] = [measured(1, 1, None)]
    table = rows(receipt_table(known))
    assert "peak memory, MiB" not in table
    assert table["new words on a known picture, ms"][-1] == "– / – / –"


def test_every_way_has_its_share_of_the_peak_its_stages_and_what_it_is():
    page = performance_page([figures()], folder="performance")
    table = rows(page)
    # 1 GFLOP in 2 s, of 4 GFLOP/s.
    assert table["reference"][4:8] == ["3.00", "1.00", "12", "100.00"]
    assert table["fast"][6] == "100"
    assert table["backbone"] == ["500 (475–625)", "250 (250–1,750)", "125", "62.5"]
    assert "- **one saving**: `TEST.OUTPUT labels`, texts as the reference" in page
    assert "A processor, threads: 1, cores: 2, cpu; torch 2.9.9" in page
    assert "a picture of 64 x 96 (random pixels), 128 x 192 for the network" in page


def test_growth_ends_with_its_exponent_and_parts_that_were_not_measured_are_left_out():
    growth = {
        **{"sizes": [1, 10, 100]},
        "ways": {"exact": {"seconds": {"texts": [0.001, 0.1, 10]}, "peak_bytes": [None] * 3}},
    }
    known = figures(growth={"names": growth})
    del known["receipt"]
    page = performance_page([known], folder="performance")
    table = rows(page)
    assert table["exact: texts, ms"] == ["1.00", "100", "10,000", "2.00"]
    assert "exact: MiB" not in table and "Each way" not in page


def test_a_page_has_a_section_for_every_file_in_the_order_of_their_names(tmp_path):
    for name, config in (("b", "second"), ("a", "first")):
        known = figures()
        known["settings"]["config"] = config
        write_json(tmp_path / "figures" / f"{name}.json", known)
    write_page(tmp_path / "page.md", tmp_path / "figures")
    titles = [line for line in (tmp_path / "page.md").read_text().splitlines() if line[:3] == "## "]
    assert titles == ["## first, 64 x 96, 20 classes", "## second, 64 x 96, 20 classes"]
