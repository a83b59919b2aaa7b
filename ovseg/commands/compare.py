"""`ovseg compare`: two results."""

from __future__ import annotations

import argparse

from ovseg.evaluation.comparison import compare, format_comparison
from ovseg.evaluation.intervals import Bootstrap
from ovseg.evaluation.results import DatasetResult, ResultError, find_results
from ovseg.utils.command_line import usage


def main(args: argparse.Namespace) -> None:
    """Compare every dataset that both have, and print it."""
    with usage():
        bootstrap = Bootstrap(resamples=args.resamples, seed=args.seed)
        pairs = _pairs(find_results(args.first), find_results(args.second))
        texts = [format_comparison(compare(*pair, bootstrap)) for pair in pairs]
    print("\n\n".join(texts))


def _pairs(
    first: dict[str, DatasetResult], second: dict[str, DatasetResult]
) -> list[tuple[DatasetResult, DatasetResult]]:
    both = [name for name in first if name in second]
    if both:
        return [(first[name], second[name]) for name in both]
    if len(first) == len(second) == 1:  # said to be two datasets at the head of the comparison
        return [(next(iter(first.values())), next(iter(second.values())))]
    raise ResultError(
        f"expected a dataset that both results have, got {', '.join(first)} and "
        f"{', '.join(second)}; give the folders of two datasets to compare those"
    )
