"""Write docs/leaderboard.md from the files in docs/results, or add a measured result to them.

examples:
  python tools/leaderboard.py
  python tools/leaderboard.py --check
  python tools/leaderboard.py --add output/eval --method "OVSeg, Swin-B + ViT-L/14" \\
      --setting "MaskFormer trained on COCO-Stuff-171"

--add takes an OUTPUT_DIR, its `inference`, or the folder of one dataset there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.evaluation.leaderboard import leaderboard_page, measured_file, read_entries
from ovseg.evaluation.results import find_results
from ovseg.utils.command_line import run_parsed, usage
from ovseg.utils.files import atomic_path

ROOT = Path(__file__).resolve().parents[1]


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "leaderboard.md")
    parser.add_argument("--check", action="store_true", help="say whether the page is up to date")
    parser.add_argument("--add", metavar="RESULT", help="result of an evaluation to add first")
    parser.add_argument("--method", help="of the added result, such as 'OVSeg, Swin-B + ViT-L/14'")
    parser.add_argument("--setting", default="", help="what else distinguishes the added result")
    return parser


def main(args: argparse.Namespace) -> int:
    """Write or check the page; the exit status is 1 for a stale page and 2 for broken files."""
    with usage():
        if args.add and not args.method:
            raise ValueError("--add needs --method")
        if args.add:
            for result in find_results(args.add).values():
                print(measured_file(args.results, result, args.method, args.setting))
        page = leaderboard_page(*read_entries(args.results))
    if args.check:
        fresh = args.page.is_file() and args.page.read_text(encoding="utf-8") == page
        print(f"{args.page} is {'up to date' if fresh else 'stale; run tools/leaderboard.py'}")
        return 0 if fresh else 1
    with atomic_path(args.page) as partial:
        partial.write_text(page, encoding="utf-8")
    print(args.page)
    return 0


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
