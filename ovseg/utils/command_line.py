"""What every command of the package has in common: its errors in one line, and its exit status.

0 is done, 1 is failed, 2 is asked for in a way that cannot be done, 130 is interrupted.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["FAILED", "INTERRUPTED", "MISUSED", "UsageError", "guarded", "run_parsed", "usage"]

FAILED, MISUSED, INTERRUPTED = 1, 2, 130

# What says by its text what went wrong. Of anything else the kind is told as well.
_EXPLAINED = (OSError, ValueError, KeyError, ImportError, RuntimeError)
# What torch says of a process that is gone -> what that means and what to do.
_GONE = (
    (
        re.compile("DataLoader worker"),
        "expected the processes that read the data to work to the end, got one that was probably "
        "killed for memory; take fewer (DATALOADER.NUM_WORKERS) or smaller batches",
    ),
    (
        re.compile("gloo.*Connection|NCCL", re.DOTALL),
        "expected the processes of the run to stay, got none on the other side; what the one that "
        "ended had to say stands above, and without a word it was probably killed for memory",
    ),
)


class UsageError(ValueError):
    """What a command line asks for cannot be done; nothing was begun."""


@contextmanager
def usage() -> Iterator[None]:
    """Mark the part of a command that looks at what was asked for, before anything is begun.

    Raises:
        UsageError: the block found a fault, with the same text.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UsageError(_text_of(error)) from error


def run_parsed(
    parser: argparse.ArgumentParser,
    main: Callable[[argparse.Namespace], Any],
    words: Sequence[str] | None = None,
) -> int:
    """Run a command.

    Args:
        parser: of its command line; gets the flag --debug.
        main: does the work; an integer that it returns is the exit status.
        words: the command line; None takes the program's.

    Returns:
        The exit status.

    Raises:
        SystemExit: by the parser, after --help (0) and for wrong arguments (2).
    """
    parser.add_argument("--debug", action="store_true", help="show where an error comes from")
    args = parser.parse_args(words)
    for word in getattr(args, "opts", None) or ():
        if str(word).startswith("--"):
            parser.error(f"{word}: expected flags before KEY VALUE pairs, got it among them")
    return guarded(lambda: main(args), program=parser.prog, debug=args.debug)


def guarded(work: Callable[[], Any], *, program: str, debug: bool = False) -> int:
    """Do a command's work and turn its end into an exit status; an error becomes one line.

    Args:
        work: an integer that it returns is the status.
        program: name that begins the line.
        debug: show the whole traceback instead.

    Returns:
        The exit status, see the head of this module.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Names of files may hold bytes that no encoding has; they must not end the work.
            stream.reconfigure(errors="backslashreplace")
    try:
        status = work()
        sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of the output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # the last door: nobody else would tell of it
        if debug:
            raise
        print(f"{program}: error: {_text_of(error)}", file=sys.stderr)
        return MISUSED if isinstance(error, UsageError) else FAILED
    # True and False are no statuses, though they are integers.
    return status if type(status) is int else 0


def _text_of(error: BaseException) -> str:
    # The text of a KeyError is quoted by str().
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    text = " ".join(text.split())
    for said, advice in _GONE:
        if isinstance(error, RuntimeError) and said.search(text):
            return f"{text.rstrip('. ')}: {advice}"
    stray_key = isinstance(error, KeyError) and " " not in text
    if isinstance(error, _EXPLAINED) and text and not stray_key:
        return text
    if isinstance(error, MemoryError):
        return "expected more memory than there is; take smaller batches, pictures or models"
    return f"{type(error).__name__}: {text}; this is a fault of the program: see it with --debug"
