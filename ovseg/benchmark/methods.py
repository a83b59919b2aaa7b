"""Methods side by side: their scores by one evaluator, and what a picture costs each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ovseg.benchmark.cost import Cost, measure
from ovseg.evaluation.results import DatasetResult
from ovseg.predictor import Predictor
from ovseg.readers.documents import read_json, read_yaml
from ovseg.vocab import Vocabulary

__all__ = [
    "Method",
    "PictureCost",
    "cost_table",
    "markdown_table",
    "measure_picture",
    "read_costs",
    "read_methods",
    "score_table",
]

_MISSING = "–"


@dataclass(frozen=True, kw_only=True)
class Method:
    """A line of the comparison.

    Attributes:
        title: what the line is called.
        config: path or shipped name.
        opts: config overrides, KEY VALUE pairs; "DATASET" stands for the dataset's name.
        trained_on: what its training took.
        needs: what it takes to run it.
        needs_labels: an oracle: it is scored, but cannot be shown a picture that has no labels.
    """

    title: str
    config: str
    opts: tuple[str, ...] = ()
    trained_on: str = _MISSING
    needs: str = _MISSING
    needs_labels: bool = False

    def opts_for(self, dataset: str) -> list[str]:
        """The overrides on one dataset."""
        return [dataset if word == "DATASET" else word for word in self.opts]


@dataclass(frozen=True)
class PictureCost:
    """What one picture costs.

    Attributes:
        encode: all that the words do not change, once per picture.
        decode: the answer to a vocabulary whose words have been met before, label map included.
    """

    encode: Cost
    decode: Cost


def read_methods(path: str | os.PathLike[str]) -> list[Method]:
    """Read a list of methods.

    Args:
        path: YAML, a list of mappings with the attributes of `Method`; `title` and `config` must
            be there.

    Returns:
        The methods, in the order of the file.

    Raises:
        ValueError: the file is something else, or two lines have one title.
        OSError: it cannot be read.
    """
    known = [field.name for field in fields(Method)]
    content = read_yaml(path)
    methods: list[Method] = []
    for number, row in enumerate(content if isinstance(content, list) else [content]):
        wanted = isinstance(row, dict) and {"title", "config"} <= row.keys() <= set(known)
        if not wanted:
            raise ValueError(
                f"{path}: line {number}: expected a mapping with title and config, and nothing but "
                f"{', '.join(known)}; got {row!r}"
            )
        methods.append(Method(**{**row, "opts": tuple(map(str, row.get("opts", ())))}))
    titles = [method.title for method in methods]
    twice = sorted({title for title in titles if titles.count(title) > 1})
    if twice:
        raise ValueError(f"{path}: expected titles that differ, got twice: {', '.join(twice)}")
    return methods


def measure_picture(
    predictor: Predictor, picture: np.ndarray, vocabulary: Vocabulary, *, repeats: int = 3
) -> PictureCost:
    """Measure encoding a picture and decoding it, apart.

    Args:
        predictor: of any method.
        picture: (H, W, 3) uint8 RGB.
        vocabulary: K classes; their texts are encoded before anything is measured.
        repeats: timed runs, of which the fastest counts.

    Returns:
        Both costs; peaks are above what the process held before.
    """
    predictor.segment(picture, vocabulary)
    device = predictor.model.device
    measured = partial(measure, device=device, repeats=repeats, warm_up=False)
    encode = measured(lambda: predictor.set_image(picture))
    encoded = predictor.set_image(picture)
    return PictureCost(encode, measured(lambda: encoded.segment(vocabulary)))


def read_costs(file: Path) -> dict[str, PictureCost]:
    """Read the costs that an earlier run measured.

    Args:
        file: JSON of `dataclasses.asdict` by title, or a file that is not there.

    Returns:
        By title; empty without the file.
    """
    known = read_json(file) if file.is_file() else {}
    return {
        title: PictureCost(Cost(**cost["encode"]), Cost(**cost["decode"]))
        for title, cost in known.items()
    }


def score_table(results: Mapping[str, DatasetResult]) -> str:
    """Set the scores of one dataset as a Markdown table.

    Args:
        results: by title, all of one dataset.

    Returns:
        mIoU in the paper's convention, its interval, and that of every set of classes.
    """
    prefix = "mIoU-"
    found = next(iter(results.values()))
    sets = [
        key.removeprefix(prefix)
        for key in found.scores
        if key.startswith(prefix) and not key.startswith(f"{prefix}gt")
    ]
    rows = []
    for title, result in results.items():
        interval = result.interval("mIoU")
        known = "" if interval is None else f" [{interval[0]:.1f}, {interval[1]:.1f}]"
        cells = [_percent(result.scores.get(f"{prefix}{name}")) for name in sets]
        rows.append([title, _percent(result.scores["mIoU"]) + known, *cells])
    return markdown_table(["mIoU, %", "all", *(name.replace("_", " ") for name in sets)], rows)


def cost_table(methods: Iterable[Method], costs: Mapping[str, PictureCost]) -> str:
    """Set what methods cost and need as a Markdown table.

    Args:
        methods: the lines.
        costs: by title.

    Returns:
        Times and peaks of both stages, what was trained on and what running takes.
    """
    rows = []
    for method in methods:
        cost = costs.get(method.title)
        cells = [_MISSING] * 4 if cost is None else [*_cells(cost.encode), *_cells(cost.decode)]
        rows.append([method.title, *cells, method.trained_on, method.needs])
    titles = ["a picture", "encode, ms", "MiB", "decode, ms", "MiB", "trained on", "needs"]
    return markdown_table(titles, rows)


def _cells(cost: Cost) -> list[str]:
    memory = _MISSING if cost.peak_bytes is None else f"{cost.peak_bytes / 2**20:.0f}"
    return [f"{cost.seconds * 1e3:.0f}", memory]


def _percent(value: Any) -> str:
    return _MISSING if value is None or value != value else f"{value:.1f}"


def markdown_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Set a Markdown table.

    Args:
        titles: of the columns; all but the first are aligned to the right.
        rows: their cells.
    """
    rule = ["---", *["---:"] * (len(titles) - 1)]
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, rule, *escaped))
