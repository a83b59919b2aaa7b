"""`ovseg verify`: the files of datasets."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ovseg.data.catalog import dataset_root, register_builtin
from ovseg.data.prepare.subjects import prepared_names
from ovseg.data.prepare.verification import verify
from ovseg.utils.command_line import FAILED
from ovseg.utils.files import require_writable


def main(args: argparse.Namespace) -> int:
    """Check the datasets; the exit status says whether one has a fault."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    root = dataset_root(args.root)
    register_builtin(root)
    names = args.names or prepared_names(root)
    if not names:
        raise FileNotFoundError(
            f"no label maps of a known dataset in {root}; datasets/README.md says how to make "
            "them, --root where they are"
        )
    require_writable(args.sheets)
    faults = 0
    for name in names:
        try:
            found = verify(
                name,
                root=root,
                subset=args.subset,
                sheet=args.sheets / f"{Path(name).stem}.png",
                workers=max(1, args.workers),
                progress=sys.stderr.isatty(),
            )
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"{name}: {error}") from error
        print(found)
        faults += len(found.complaints)
    print(f"contact sheets: {args.sheets}")
    return FAILED if faults else 0
