"""The command line that all `datasets/prepare_<name>.py` share."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ovseg.data.catalog import ROOT_VARIABLE, dataset_root
from ovseg.data.prepare.pipeline import Convert, PreparationError, Task, prepare
from ovseg.utils.wording import counted

__all__ = ["Plan", "run_command"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What one split of a dataset takes.

    Args:
        tasks: the files.
        convert: makes their labels.
        report: file for the figures and for the reasons of files quarantined.
    """

    tasks: Sequence[Task]
    convert: Convert
    report: Path


def run_command(
    arguments: Sequence[str] | None,
    *,
    description: str,
    splits: Sequence[str],
    plan: Callable[[Path, str], Plan],
) -> int:
    """Prepare the splits that a command line asks for.

    Args:
        arguments: the command line; None takes the program's.
        description: first line of the help.
        splits: their names; without --split all of them are prepared.
        plan: from the folder of all datasets and a split to the work; `PreparationError` when raw
            data are missing.

    Returns:
        Exit status: 0; 1 when a file was quarantined or the run had to stop.
    """
    options = _make_parser(description, splits).parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    status = 0
    for split in options.split or splits:
        try:
            work = plan(options.root, split)
            report = prepare(
                work.tasks,
                work.convert,
                workers=options.workers,
                progress=True,
                force=options.force,
            )
            report.write(work.report)
        except PreparationError as error:
            _logger.error("%s: %s", split, error)
            return 1
        _logger.info("%s: %s", split, report)
        for file, reason in report.failed[:10]:
            _logger.error("quarantined: %s: %s", file, reason)
        if report.failed:
            _logger.error(
                "%s could not be used; %s lists all. Replace what is damaged and start the same "
                "command again",
                *(counted(len(report.failed), "file"), work.report),
            )
            status = 1
    return status


def _make_parser(description: str, splits: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=f"{description} An interrupted run goes on where it stopped."
    )
    parser.add_argument(
        "--root",
        type=dataset_root,
        default=dataset_root(),
        help=f"folder of all datasets (default: ${ROOT_VARIABLE}, else datasets)",
    )
    parser.add_argument(
        "--split", nargs="+", choices=splits, help=f"default: all of {', '.join(splits)}"
    )
    parser.add_argument(
        "--workers", type=_at_least_one, default=os.cpu_count() or 1, help="processes"
    )
    parser.add_argument(
        "--force", action="store_true", help="make labels again that are there already"
    )
    return parser


def _at_least_one(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a number >= 1, got {text}")
    return value
