"""Checks datasets on disk and draws a contact sheet of each; every fault says how to mend it.

Example:
    python datasets/verify.py pascalvoc20_sem_seg_val --root datasets --workers 8
    python datasets/verify.py garden.yaml
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.data.catalog import ROOT_VARIABLE, dataset_root, register_builtin
from ovseg.data.prepare.subjects import prepared_names
from ovseg.data.prepare.verification import verify


def make_parser() -> argparse.ArgumentParser:
    """The command line's arguments."""
    parser = argparse.ArgumentParser(
        description="Check the files of datasets. The exit status is 1 if one has a fault."
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
        type=dataset_root,
        default=dataset_root(),
        help=f"folder of all datasets (default: ${ROOT_VARIABLE}, else datasets)",
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks the datasets; returns the exit status."""
    options = make_parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    register_builtin(options.root)
    names = options.names or prepared_names(options.root)
    if not names:
        print(
            f"no label maps of a known dataset in {options.root}; datasets/README.md says how "
            "to make them, --root where they are",
            file=sys.stderr,
        )
        return 1
    faults = 0
    for name in names:
        sheet = options.sheets / f"{Path(name).stem}.png"
        try:
            found = verify(
                name,
                root=options.root,
                subset=options.subset,
                sheet=sheet,
                workers=max(1, options.workers),
                progress=sys.stderr.isatty(),
            )
        except (ValueError, FileNotFoundError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        print(found)
        faults += len(found.complaints)
    print(f"contact sheets: {options.sheets}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
