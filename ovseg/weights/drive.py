"""Files on Google Drive, through gdown: resumable, checked, complete or not there at all."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iopath.common.file_io import file_lock
from tqdm import tqdm

from ovseg.readers.addresses import TIMEOUT_SECONDS
from ovseg.weights.download import DownloadError, verify

RETRIES = 5
PATIENCE_SECONDS = 600
"""A download of which less than gdown's half a mebibyte comes in this time is left."""
_FILE_ID = re.compile(r"https?://(?:drive|docs)\.google\.com/(?:.*/d/|.*[?&]id=)([-\w]{20,})")


def drive_page(file_id: str) -> str:
    """Return the address at which a browser shows a file of Google Drive."""
    return f"https://drive.google.com/file/d/{file_id}/view"


def drive_id(url: str) -> str | None:
    """Return the file that an address of Google Drive names; None for any other address."""
    found = _FILE_ID.match(url)
    return found[1] if found else None


def download_from_drive(
    file_id: str, target: Path, *, md5: str | None = None, progress: bool = True
) -> None:
    """Download a file from Google Drive unless it is there.

    A large file lies behind a page that asks for a confirmation, which gdown (the extra `download`)
    answers. What has arrived lies beside the target in a `.part` file, and a later call continues
    it. Several processes may ask at once: one downloads, the others wait.

    Args:
        file_id: the file's id on Google Drive.
        target: the file to make.
        md5: what the content must have, in hexadecimal, or its first digits.
        progress: show a progress bar.

    Raises:
        DownloadError: if gdown is not installed, Google Drive gives no file, the transfer breaks
            off, or the checksum differs; the text says how to get the file by hand.
    """
    by_hand = f"open {drive_page(file_id)} in a browser and put the file at {target}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(target)):
        if target.exists():
            return
        unchecked = target.with_name(target.name + ".unchecked")
        _fetch(file_id, unchecked, by_hand=by_hand, bar_name=target.name, progress=progress)
        try:
            verify(unchecked, md5=md5)
        except DownloadError as error:
            unchecked.unlink()
            raise DownloadError(
                f"{error}. What came was removed; to get it without this program, {by_hand}"
            ) from error
        unchecked.replace(target)


def _fetch(file_id: str, path: Path, *, by_hand: str, bar_name: str, progress: bool) -> None:
    try:
        import gdown
    except ImportError as error:
        raise DownloadError(
            f"{bar_name} lies on Google Drive, which takes gdown ({error}): "
            f"`pip install 'ovseg[download]'`. Or {by_hand}, or pass its path"
        ) from error
    with (
        tqdm(
            unit="B", unit_scale=True, unit_divisor=1024, desc=bar_name, disable=not progress
        ) as bar,
        _watched() as (news, cancel),
    ):

        def show(received: int, total: int | None) -> None:
            news.set()
            bar.total = total
            bar.update(received - bar.n)

        try:
            gdown.download(
                id=file_id,
                output=str(path),
                quiet=True,
                use_cookies=False,
                resume=True,
                progress=show,
                timeout=TIMEOUT_SECONDS,
                retries=RETRIES,
                cancel=cancel,
            )
        except (
            gdown.exceptions.DownloadError,
            gdown.exceptions.DownloadCancelled,
            OSError,  # requests' errors are
        ) as error:
            slow = f"less than half a mebibyte came in {PATIENCE_SECONDS} seconds."
            reason = slow if cancel.is_set() else " ".join(str(error).split())
            raise DownloadError(
                f"could not download {bar_name} from Google Drive: {reason} "
                "What has arrived is kept, so the same call continues later (delete "
                f"{path.name}*.part in {path.parent} to start over). Or {by_hand}, or pass its path"
            ) from error


@contextmanager
def _watched() -> Iterator[tuple[threading.Event, threading.Event]]:
    """Give an event to set at any news, and one that is set when there was none for too long."""
    news, cancel, done = threading.Event(), threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(PATIENCE_SECONDS):
            if not news.is_set():
                cancel.set()
                return
            news.clear()

    threading.Thread(target=watch, daemon=True, name="ovseg-watch").start()
    try:
        yield news, cancel
    finally:
        done.set()
