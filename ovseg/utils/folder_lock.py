"""One run at a time in a folder: a lock that says whose it is."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ovseg.readers.documents import parse_json
from ovseg.utils.files import require_writable, sweep_partials
from ovseg.utils.wording import counted

__all__ = ["LOCK_NAME", "BusyFolderError", "only_run"]

LOCK_NAME = ".lock"
# Workers of a run that was killed end within seconds, and hold its lock until then.
_PATIENCE_SECONDS = 10.0
_POLL_SECONDS = 0.2

logger = logging.getLogger(__name__)


class BusyFolderError(RuntimeError):
    """Another run is writing to the folder; the text says which."""


@contextmanager
def only_run(
    folder: str | os.PathLike[str],
    *,
    what: str,
    wanted: bool = True,
    patience: float | None = None,
) -> Iterator[None]:
    """Hold a folder for this run. The lock ends with the process, however it ends.

    What a run that was killed has left half-written there is removed. Where the file system has no
    locks, a warning stands in for it.

    Args:
        folder: of the results; made if missing.
        what: the kind of run in a few words, for the other run's message: "training".
        wanted: False in the processes of a run that leave it to another one of them.
        patience: seconds to wait for another run to end; by default those that the workers of a
            killed one take.

    Raises:
        BusyFolderError: another run holds it.
        OSError: it cannot be written to.
    """
    path = Path(folder) / LOCK_NAME
    file = None
    if wanted:
        require_writable(path.parent)
        file = _acquire(path, _PATIENCE_SECONDS if patience is None else patience)
    if file is None:
        yield
        return
    with file:
        owner = {
            "what": what,
            "process": os.getpid(),
            "host": socket.gethostname(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
            "command": sys.argv,
        }
        file.seek(0)
        file.truncate()
        file.write(json.dumps(owner))
        file.flush()
        swept = sweep_partials(path.parent)
        if swept:
            logger.info("%s: removed %s of a run that was killed", folder, counted(swept, "file"))
        try:
            yield
        finally:
            path.unlink(missing_ok=True)  # while it is held: whoever waits looks again


def _acquire(path: Path, patience: float) -> IO[str] | None:
    """Lock the file; None where the file system cannot."""
    until = time.monotonic() + patience
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_the_one(path, file):
                return file
        except BlockingIOError:
            if time.monotonic() > until:
                raise BusyFolderError(_told(path, file)) from None
            time.sleep(_POLL_SECONDS)
        except OSError:
            logger.warning("%s cannot be locked; start no second run there meanwhile", path.parent)
            file.close()
            path.unlink(missing_ok=True)
            return None
        file.close()


def _is_the_one(path: Path, file: IO[str]) -> bool:
    # The run before may have removed the file between opening and locking it here.
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _told(path: Path, file: IO[str]) -> str:
    file.seek(0)
    try:
        owner = parse_json(file.read(1 << 16), path)
        whose = "{what}, process {process} on {host}, since {since}".format(**owner)
    except (ValueError, KeyError, TypeError):
        whose = "its owner is not known"
    file.close()
    return (
        f"{path.parent}: expected a folder that no other run is writing to, got one that is in use "
        f"({whose}); wait until that run is done, or choose another folder"
    )
