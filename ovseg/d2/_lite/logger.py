"""Logging to the screen and to a file, and messages that are said only so often."""

from __future__ import annotations

import logging
import sys
from collections import Counter
from pathlib import Path

from termcolor import colored

__all__ = ["log_first_n", "setup_logger"]

_seen: Counter[tuple[object, ...]] = Counter()
_handled: dict[tuple[str, str], logging.Handler] = {}


class _ColorFormatter(logging.Formatter):
    """Green time stamp and name, red for warnings and errors."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (logging's name)
        """Format one record."""
        text = super().formatMessage(record)
        if record.levelno >= logging.WARNING:
            return f"{colored(record.levelname, 'red')} {text}"
        return text


class _LogFile(logging.FileHandler):
    """A file that says once that the disk is full, and not at every message with a traceback."""

    _told = False

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        """Tell of an error in writing a message."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._told:
            self._told = True
            sys.stderr.write(f"{self.baseFilename}: messages are lost: {error.strerror or error}\n")


def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "ovseg",
    abbrev_name: str | None = None,
    enable_propagation: bool = False,
    configure_stdout: bool = True,
) -> logging.Logger:
    """Send a logger's messages to the screen (rank 0) and to a file (every rank).

    Asking twice for the same name and place adds nothing.

    Args:
        output: a folder (the file is its `log.txt`), a file ending in .txt or .log, or None.
        distributed_rank: rank of this process; ranks above 0 write to `<file>.rank<n>`.
        color: whether the screen gets colours.
        name: root of the loggers to set up.
        abbrev_name: accepted for compatibility; names are logged in full.
        enable_propagation: whether parent loggers see the messages too.
        configure_stdout: whether to log to the screen at all.

    Returns:
        The logger.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = enable_propagation
    plain = logging.Formatter(
        "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt="%m/%d %H:%M:%S"
    )
    if configure_stdout and distributed_rank == 0 and (name, "") not in _handled:
        stamp = colored("[%(asctime)s %(name)s]:", "green")
        colourful = _ColorFormatter(f"{stamp} %(message)s", datefmt="%m/%d %H:%M:%S")
        screen = logging.StreamHandler(sys.stdout)
        screen.setFormatter(colourful if color else plain)
        logger.addHandler(screen)
        _handled[name, ""] = screen
    if output is not None:
        path = Path(output) if output.endswith((".txt", ".log")) else Path(output) / "log.txt"
        if distributed_rank > 0:
            path = path.with_name(f"{path.name}.rank{distributed_rank}")
        if (name, str(path.absolute())) not in _handled:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _LogFile(path, encoding="utf-8", errors="backslashreplace")
            file.setFormatter(plain)
            logger.addHandler(file)
            _handled[name, str(path.absolute())] = file
    return logger


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log a message the first `n` times only.

    Args:
        lvl: level, e.g. `logging.WARNING`.
        msg: the message.
        n: how often at most.
        name: the logger to use; None means the caller's module.
        key: what makes two messages the same: "caller" (the line of code), "message", or both.
    """
    keys = (key,) if isinstance(key, str) else key
    frame = sys._getframe(1)
    identity: tuple[object, ...] = ()
    if "caller" in keys:
        identity += (frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
    if "message" in keys:
        identity += (msg,)
    _seen[identity] += 1
    if _seen[identity] <= n:
        logging.getLogger(name or frame.f_globals["__name__"]).log(lvl, msg)
