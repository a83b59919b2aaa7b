"""docs/performance.md, written from files of figures."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg.benchmark.growth import fit_exponent
from ovseg.benchmark.methods import markdown_table
from ovseg.benchmark.ways import EXACT, REFERENCE
from ovseg.readers.documents import read_json
from ovseg.utils.files import atomic_path

__all__ = ["performance_page", "receipt_table", "write_page"]

Figures = Mapping[str, Any]

_MISSING = "–"
_KNOWN = (REFERENCE.title, EXACT.title)
_RECEIPT = (*_KNOWN, "fast")
_HEAD = """# Performance

Generated from the JSON files in `{folder}` by `ovseg benchmark --page`; do not edit.

What a picture costs in several ways, measured in one process in turns: each way once, then each
once more. Figures are medians, in brackets the least and the most; *times less* is the
reference's median over the way's. What a way gives up stands beside its figures: the share of
pixels that have the reference's label and, where there is a data set, mIoU.

- **reference**: as released code computes it. Every text is encoded over all 77 tokens and none is
  kept on disk; CLIP's blocks are open_clip's own, the last one for all tokens. float32; every mask
  with a pixel above the threshold goes through CLIP.
- **exact**: the package as it is. Equal to the reference within rounding.
- **fast**: `TEST.FAST.ENABLED True`, for CLIP's look at the regions. Masks that nowhere have more
  than `MIN_SHARE` of all masks' values, but for `REST` of the picture together, get the name of the
  one they overlap most; patches outside of a region go on in fours after `MERGE_AFTER` of the
  blocks; and `PRECISION` is bfloat16 where the hardware multiplies it, else int8 on a processor.
  Each keeps at least 99 % of the bundled model's labels on scenes of tinyscapes, and all together
  do (`tests/modeling/test_fast.py`). What they keep of other models and pictures has to be measured
  there: `--dataset`. In a CLIP as small as the bundled one only the first pays; its config says so.

Memory is the most held at a time on top of what was held before, which the weights were.
Operations are those of matrix products and convolutions, two for a multiply-add, counted by
`torch.utils.flop_counter`; the share of the peak is of what this machine does per second in a
product of two large matrices in float32. Exponents are slopes of log time, or log memory, over log
size by least squares: 1 is linear.
"""
_GROWTH = {
    "names": "Names: their texts encoded anew, and the answer on a known picture.",
    "pixels": "Megapixels of the picture; the network sees it at one size. Resizing to it, and the "
    "answer at the picture's own size, CLIP's features known.",
    "proposals": "Masks: the picture's valid ones, and these moved around. CLIP on all of them, "
    "and the label map.",
    "batch": "Pictures at a time, from pixels to labels.",
}


def performance_page(figures: Sequence[Figures], *, folder: str) -> str:
    """Set figures as the page.

    Args:
        figures: what `ovseg benchmark` wrote, one section each.
        folder: where they lie, as the page says it.

    Returns:
        Markdown.
    """
    return "\n".join([_HEAD.format(folder=folder), *map(_section, figures)])


def write_page(page: Path, folder: Path) -> None:
    """Write the page from all files of figures in a folder.

    Args:
        page: the file to write.
        folder: of the files, taken in the order of their names.

    Raises:
        OSError: a file cannot be read or written.
        DocumentError: a file is no JSON.
    """
    figures = [read_json(file) for file in sorted(folder.glob("*.json"))]
    where = Path(os.path.relpath(folder, page.parent)).as_posix()
    text = performance_page(figures, folder=where)
    with atomic_path(page) as partial:
        partial.write_text(text, encoding="utf-8")


def receipt_table(figures: Figures) -> str:
    """Set the receipt: what a user waits for and holds, against the reference.

    Args:
        figures: with a `receipt`, see `ovseg.benchmark.rounds.measure_ways`.

    Returns:
        A Markdown table: the reference, the package as it is, "fast" where it was measured.
    """
    ways = figures["receipt"]["ways"]
    titles = [title for title in _RECEIPT if title in ways]
    others = titles[1:]
    agreement = " / ".join(_share(ways[title]["agreement"]) for title in others)
    accuracy = " / ".join(_accuracy(figures, title, "mIoU") for title in titles)
    rows = []
    for name, value, form, labelled in _QUANTITIES:
        found = {title: [value(one) for one in ways[title]["rounds"]] for title in titles}
        if any(None in values for values in found.values()):
            continue  # the system does not tell
        reference = statistics.median(found[titles[0]])
        ratios = [_ratio(reference, statistics.median(found[title])) for title in others]
        beside = [agreement, accuracy] if labelled else [_MISSING, _MISSING]
        rows.append([name, *(_spread(found[title], form) for title in titles), *ratios, *beside])
    head = ["", *titles, *(f"{title}, times less" for title in others)]
    head += [f"pixels as the reference, %: {' / '.join(others)}", f"mIoU, %: {' / '.join(titles)}"]
    return markdown_table(head, rows)


def _section(figures: Figures) -> str:
    settings, machine = figures["settings"], figures["machine"]
    environment = figures["environment"]
    size = f"{settings['size'][0]} x {settings['size'][1]}"
    overrides = f" `{' '.join(settings['opts'])}`" if settings["opts"] else ""
    network = " x ".join(map(str, settings["network_size"]))
    parts = [
        f"## {settings['config']}, {size}, {settings['classes']} classes\n",
        f"`{settings['config']}`{overrides}, weights: {settings['weights']}; a picture of {size} "
        f"({settings['picture']}), {network} for the network; {settings['classes']} classes of "
        f"{settings['benchmark']} in {settings['templates']} templates. "
        f"{machine['processor']}, threads: {machine['threads']}, cores: {machine['cores']}, "
        f"{environment['device']}; torch {environment['packages']['torch']}, ovseg "
        f"{environment['ovseg']}.\n",
    ]
    if "receipt" in figures:
        peaks = figures["receipt"]["matmul"]
        listed = ", ".join(f"{name} {_round(peak / 1e9)}" for name, peak in peaks.items())
        ways = figures["receipt"]["ways"]
        rounds = min(len(way["rounds"]) for way in ways.values())
        parts += [f"Rounds: {rounds}. Matrix product, GFLOP/s: {listed}.\n"]
        further = [_definition(title, way) for title, way in ways.items() if title not in _KNOWN]
        parts += [*further, ""] if further else []
        parts += [receipt_table(figures), "\n### Each way\n", _ways_table(figures)]
        parts += ["\n### Stages of a picture, ms\n", _stage_table(figures)]
    if "accuracy" in figures:
        known = figures["accuracy"]
        parts += [f"\nmIoU: the first {known['pictures']} pictures of `{known['dataset']}`."]
    for kind, growth in figures.get("growth", {}).items():
        parts += [f"\n### Growth: {kind}\n", _GROWTH[kind] + "\n", _growth_table(growth)]
    if "training" in figures:
        parts += ["\n### Training\n", _training_text(figures["training"])]
    return "\n".join(parts) + "\n"


def _definition(title: str, way: Mapping[str, Any]) -> str:
    opts = f"`{' '.join(way['opts'])}`" if way["opts"] else "the package as it is"
    left_out = "".join(f", {each} as the reference" for each in way["without"])
    return f"- **{title}**: {opts}{left_out}"


def _training_text(training: Mapping[str, Any]) -> str:
    seconds = training["seconds"]
    least, most = map(_milliseconds, training["spread"])
    peak = training["peak_bytes"]
    memory = "" if peak is None else f" {_mebibytes(peak)} MiB on top of the weights;"
    return (
        f"{_round(training['pictures'] / seconds)} pictures a second: {training['pictures']} in "
        f"{_milliseconds(seconds)} ms ({least}–{most}), the median of {training['iterations']} "
        f"iterations;{memory} {100 * training['loader_share']:.0f} % of the time went by waiting "
        "for pictures."
    )


def _ways_table(figures: Figures) -> str:
    receipt = figures["receipt"]
    peak = receipt["matmul"]["float32"]
    rows = []
    for title, way in receipt["ways"].items():
        seconds = {
            part: [one["seconds"][part] for one in way["rounds"]]
            for part in ("texts", "picture", "words")
        }
        operations = way["operations"]
        share = operations["picture"] / statistics.median(seconds["picture"]) / peak
        held = [most for one in way["rounds"] if (most := _peak(one)) is not None]
        rows.append(
            [
                title,
                *(_spread(values, _milliseconds) for values in seconds.values()),
                _spread(held, _mebibytes) if held else _MISSING,
                *(_round(operations[part] / 1e9) for part in ("texts", "picture")),
                f"{100 * share:.0f}",
                _share(way["agreement"]),
                _accuracy(figures, title, "agreement"),
                _accuracy(figures, title, "mIoU"),
            ]
        )
    head = ["", "texts, ms", "picture, ms", "new words, ms", "MiB", "texts, GFLOP"]
    head += ["picture, GFLOP", "of the peak, %", "pixels as the reference, %"]
    return markdown_table([*head, "the same on the data set", "mIoU, %"], rows)


def _stage_table(figures: Figures) -> str:
    ways = figures["receipt"]["ways"]
    stages = dict.fromkeys(
        name for way in ways.values() for one in way["rounds"] for name in one["stages"]
    )
    rows = [
        [
            stage,
            *(
                _spread([one["stages"].get(stage, 0.0) for one in way["rounds"]], _milliseconds)
                for way in ways.values()
            ),
        ]
        for stage in stages
    ]
    return markdown_table(["", *ways], rows)


def _growth_table(growth: Mapping[str, Any]) -> str:
    sizes = growth["sizes"]
    rows = []
    for title, way in growth["ways"].items():
        for part, seconds in way["seconds"].items():
            cells = [_milliseconds(value) for value in seconds]
            rows.append([f"{title}: {part}, ms", *cells, _exponent(sizes, seconds)])
        if None not in way["peak_bytes"]:
            peaks = way["peak_bytes"]
            cells = [_mebibytes(value) for value in peaks]
            rows.append([f"{title}: MiB", *cells, _exponent(sizes, peaks)])
    return markdown_table(["", *(f"{size:g}" for size in sizes), "exponent"], rows)


def _exponent(sizes: Sequence[float], values: Sequence[float]) -> str:
    exponent = fit_exponent(sizes, values)
    return _MISSING if math.isnan(exponent) else f"{exponent:.2f}"


def _peak(record: Mapping[str, Any]) -> float | None:
    peaks = [record["peak_bytes"][part] for part in ("texts", "picture", "words")]
    return None if None in peaks else max(peaks)


def _accuracy(figures: Figures, title: str, what: str) -> str:
    known = figures.get("accuracy", {}).get("ways", {}).get(title)
    if known is None:
        return _MISSING
    return f"{known['mIoU']:.2f}" if what == "mIoU" else _share(known[what])


def _ratio(reference: float, own: float) -> str:
    return f"{_round(reference / own)}x" if reference and own else _MISSING


def _spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    low, high = form(min(values)), form(max(values))
    return form(statistics.median(values)) + (f" ({low}–{high})" if low != high else "")


def _milliseconds(seconds: float) -> str:
    return _round(1e3 * seconds)


def _mebibytes(count: float) -> str:
    return _round(count / 2**20)


def _round(value: float) -> str:
    """Some three digits that count."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}" if value >= 1 else f"{value:.3f}"


def _share(value: float) -> str:
    return f"{100 * value:.2f}"


# Name, value of a round, how it is written, and whether labels come of it.
_QUANTITIES: Iterable[tuple[str, Callable[[Any], Any], Callable[[float], str], bool]] = (
    (
        "first picture with a new vocabulary, ms",
        lambda one: one["seconds"]["texts"] + one["seconds"]["picture"],
        _milliseconds,
        True,
    ),
    (
        "each further picture, vocabulary known, ms",
        lambda one: one["seconds"]["picture"],
        _milliseconds,
        True,
    ),
    (
        "new words on a known picture, ms",
        lambda one: one["seconds"]["words"],
        _milliseconds,
        True,
    ),
    (
        "a known vocabulary's text features: in memory, ms",
        lambda one: one["seconds"]["memory"],
        _milliseconds,
        False,
    ),
    (
        "the same in another program, from disk where they are kept, ms",
        lambda one: one["seconds"]["disk"],
        _milliseconds,
        False,
    ),
    ("their memory, MiB", lambda one: one["kept_bytes"]["memory"], _mebibytes, False),
    ("their disk, MiB", lambda one: one["kept_bytes"]["disk"], _mebibytes, False),
    ("peak memory, MiB", _peak, _mebibytes, True),
)
