"""Say what differs between two results: how they were made first, then the numbers.

examples:
  python tools/compare_results.py output/a output/b
  python tools/compare_results.py output/a/inference/ade20k_sem_seg_val output/b

Each is an OUTPUT_DIR, its `inference`, or the folder of one dataset there. Datasets that both
have are compared; the difference is the second minus the first.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.evaluation.comparison import compare, format_comparison
from ovseg.evaluation.intervals import Bootstrap
from ovseg.evaluation.results import DatasetResult, ResultError, find_results


def main(words: list[str] | None = None) -> int:
    """Compare; the exit code is 0, or 2 where there is nothing to compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", metavar="A")
    parser.add_argument("second", metavar="B")
    parser.add_argument("--resamples", type=int, default=1000, help="draws of the bootstrap")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    args = parser.parse_args(words)
    bootstrap = Bootstrap(resamples=args.resamples, seed=args.seed)
    try:
        pairs = _pairs(find_results(args.first), find_results(args.second))
    except ResultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    texts = [format_comparison(compare(*pair, bootstrap)) for pair in pairs]
    print("\n\n".join(texts))
    return 0


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


if __name__ == "__main__":
    sys.exit(main())
