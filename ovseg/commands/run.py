"""From words to a command, and from its end to an exit status."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence

import ovseg
from ovseg.utils.command_line import MISUSED, guarded, run_parsed
from ovseg.utils.threads import share_cores

__all__ = ["COMMANDS", "main", "run_command", "run_preparation"]

COMMANDS = {
    "demo": "segment the sample scenes with the bundled model",
    "segment": "segment pictures into the classes you name",
    "train": "train a segmentation model",
    "eval": "measure a segmentation model",
    "mine": "mine noun-region pairs from captioned pictures",
    "train-clip": "adapt a CLIP to noun-region pairs",
    "convert": "convert released weight files",
    "tune": "choose the ensemble's settings on a validation split",
    "compare": "say what differs between two results",
    "decompose": "say what holds a model back: masks, names, or the merge",
    "prepare": "make a dataset's files of its raw data",
    "verify": "check the files of datasets",
    "benchmark": "measure what segmenting a picture costs",
}
_HELP = ("-h", "--help", "help")


def main(words: Sequence[str] | None = None) -> int:
    """Run `ovseg COMMAND ...`.

    Args:
        words: after `ovseg`; None takes the program's.

    Returns:
        The exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
    """
    words = sys.argv[1:] if words is None else list(words)
    if not words or words[0] in _HELP:
        status = guarded(lambda: print(_overview()), program="ovseg")
        return status if words else MISUSED
    if words[0] in ("--version", "-V"):
        print(f"ovseg {ovseg.__version__}")
        return 0
    if words[0] not in COMMANDS:
        near = difflib.get_close_matches(words[0], COMMANDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        print(
            f"ovseg: error: expected a command of {', '.join(COMMANDS)}, got {words[0]!r}{hint}",
            file=sys.stderr,
        )
        return MISUSED
    return run_command(words[0], words[1:])


def run_command(name: str, words: Sequence[str] | None = None, *, program: str = "") -> int:
    """Run one command.

    Args:
        name: one of `COMMANDS`.
        words: its command line; None takes the program's.
        program: what help and errors call it; "" for "ovseg NAME".

    Returns:
        The exit status.

    Raises:
        SystemExit: after --help (0) and for wrong arguments (2).
    """
    flags = importlib.import_module(f"ovseg.commands.flags.{name.replace('-', '_')}")
    return _run(flags.make_parser(program or f"ovseg {name}"), flags.WORK, words)


def run_preparation(dataset: str, words: Sequence[str] | None = None) -> int:
    """Run `datasets/prepare_DATASET.py`, which is `ovseg prepare DATASET`.

    Args:
        dataset: its name.
        words: the command line; None takes the program's.

    Returns:
        The exit status.

    Raises:
        SystemExit: as `run_command`.
    """
    from ovseg.commands.flags.prepare import WORK, make_script_parser

    return _run(make_script_parser(dataset), WORK, words)


def _run(parser: argparse.ArgumentParser, work: str, words: Sequence[str] | None) -> int:
    share_cores()  # before torch is loaded

    def main(args: argparse.Namespace) -> object:
        return importlib.import_module(f"ovseg.commands.{work}").main(args)

    return run_parsed(parser, main, words)


def _overview() -> str:
    lines = [f"  {name:12}{text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: ovseg COMMAND [...]\n\nOpen-vocabulary semantic segmentation.\n",
            *lines,
            "\novseg COMMAND --help says more; ovseg --version.",
        ]
    )
