"""`ovseg verify`: the files of datasets."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

WORK = "verify"
EXAMPLES = """
examples:
  %(prog)s pascalvoc20_sem_seg_val --root datasets --workers 8
  %(prog)s garden.yaml
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg verify`."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Check the files of datasets and draw a contact sheet of each; every fault "
        "says how to mend it. The exit status is 1 if one has a fault.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="names of datasets, or .yaml files that describe one; without any, all whose label "
        "maps are there",
    )
    parser.add_argument(
        "--root",
        help="folder of all datasets (default: $DETECTRON2_DATASETS, else datasets)",
    )
    parser.add_argument(
        "--sheets",
        type=Path,
        default=Path("output", "contact_sheets"),
        help="folder for the contact sheets (default: %(default)s)",
    )
    parser.add_argument(
        "--subset",
        action="store_true",
        help="the files are a part of the set on purpose: leave the published counts aside",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes")
    return parser
