"""Downloading a file: resumable, checked, complete or not there at all."""

from __future__ import annotations

import hashlib
import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path

from iopath.common.file_io import file_lock
from tqdm import tqdm

from ovseg.readers.addresses import AddressError, Answer, open_address
from ovseg.readers.limits import LimitError
from ovseg.utils.files import reason_of

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
RETRIES = 8
"""Attempts in a row of which none brought `CHUNK_BYTES`."""
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0


class DownloadError(OSError):
    """A file could not be downloaded, or is not the file that was expected."""


def download(url: str, target: Path, *, sha256: str | None = None, progress: bool = True) -> None:
    """Download a file unless it is there; an interrupted download continues where it stopped.

    What has arrived lies in `<target>.part` until it is complete and checked. It is continued only
    if the server says by ETag, date and size that its file is still the same, or if the checksum
    will tell. Several processes may ask for the same target at once: one downloads, the others
    wait.

    Args:
        url: an http or https address.
        target: the file to make.
        sha256: what the content must have, in hexadecimal.
        progress: show a progress bar.

    Raises:
        DownloadError: if it is no web address, the server cannot be reached, gives an error, is
            slower than `ovseg.readers.addresses` waits for, or breaks off without having sent
            anything new, if the checksum differs, or if the file cannot be written.
    """
    try:
        _download(url, target, sha256=sha256, progress=progress)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"{target}: could not be written: {reason_of(error)}") from error


def _download(url: str, target: Path, *, sha256: str | None, progress: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(target)):
        if target.exists():
            return
        partial = target.with_name(target.name + ".part")
        checked = sha256 is not None
        _fetch_with_retries(url, partial, target, checked=checked, progress=progress)
        try:
            verify(partial, sha256=sha256)
        except DownloadError:
            partial.unlink()
            raise
        partial.replace(target)
        _validator_file(partial).unlink(missing_ok=True)


def verify(path: Path, *, sha256: str | None = None, md5: str | None = None) -> None:
    """Compare a file with a checksum; None is not compared.

    Args:
        path: the file.
        sha256: the digest in hexadecimal.
        md5: the digest in hexadecimal, or its first digits.

    Raises:
        DownloadError: if it differs.
    """
    for algorithm, expected in (("sha256", sha256), ("md5", md5)):
        if expected is None:
            continue
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
        got = digest.hexdigest()
        if not got.startswith(expected.lower()):
            raise DownloadError(
                f"{path}: expected the {algorithm} {expected}, got {got}; the file is damaged or "
                "another one. Delete it and download it again"
            )


def _fetch_with_retries(
    url: str, partial: Path, target: Path, *, checked: bool, progress: bool
) -> None:
    attempts, wait = 0, FIRST_WAIT_SECONDS
    while True:
        before = _size(partial)
        try:
            _fetch(url, partial, checked=checked, progress=progress)
            return
        except (AddressError, LimitError) as error:
            reason, gained = str(error), _size(partial) - before
            again = isinstance(error, _StartOverError) or (
                isinstance(error, AddressError) and error.lost and gained > 0
            )
        if gained >= CHUNK_BYTES:
            attempts, wait = 0, FIRST_WAIT_SECONDS
        attempts += 1
        if not again or attempts > RETRIES:
            raise DownloadError(
                f"could not download {url}: {reason}. What has arrived is kept, so the same call "
                "continues later. Without a connection, get the file on another machine and put it "
                f"at {target}, or pass its path"
            )
        logger.info("%s, after %d bytes; continuing in %.1f s", reason, _size(partial), wait)
        time.sleep(wait)
        wait = min(2 * wait, LONGEST_WAIT_SECONDS)


class _StartOverError(AddressError):
    """What is there is not the beginning of what the server has now."""


def _fetch(url: str, partial: Path, *, checked: bool, progress: bool) -> None:
    begun = _Begun.read(partial)
    if begun.offset and not begun.validator and not checked:
        partial.unlink()  # nothing could tell whether it is the beginning of what comes now
        begun = _Begun.read(partial)
    with open_address(url, begun.headers()) as answer:
        total = None if answer.length is None else begun.offset + answer.length
        if begun.offset and answer.status == 416:  # nothing behind the offset
            whole = answer.headers.get("Content-Range") == f"bytes */{begun.offset}"
            if whole and begun.agrees(answer, begun.offset, checked=True):
                return
            partial.unlink()
            raise _StartOverError("the server has another file than before")
        if answer.status not in (200, 206):
            raise AddressError(f"the server answered {answer.status} {answer.reason}")
        offset = 0
        if answer.status == 206:
            _require_range(answer, begun.offset)
            if not begun.agrees(answer, total, checked=checked):
                partial.unlink()
                raise _StartOverError("the server has another file than before")
            offset = begun.offset
        else:
            total = answer.length
        _Begun.note(partial, answer, total)
        with (
            partial.open("ab" if offset else "wb") as file,
            tqdm(
                total=total, initial=offset, unit="B", unit_scale=True, unit_divisor=1024,
                desc=partial.stem, disable=not progress,
            ) as bar,
        ):  # fmt: skip
            for piece in answer.pieces():
                file.write(piece)
                bar.update(len(piece))


@dataclass(frozen=True)
class _Begun:
    """What is there of a download, and what the server said when it began.

    Args:
        offset: bytes that are there.
        validator: what the server starts over without; "" where it gave nothing of the kind.
        facts: its ETag, date and total size then.
    """

    offset: int
    validator: str
    facts: tuple[str, ...]

    @classmethod
    def read(cls, partial: Path) -> _Begun:
        """Look at what lies beside the target."""
        file = _validator_file(partial)
        text = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        validator, *facts = text.split("\n")
        return cls(_size(partial), validator, tuple(facts[:3]))

    @staticmethod
    def note(partial: Path, answer: Answer, total: int | None) -> None:
        """Write down what the server says of its file."""
        etag, modified, size = _facts(answer, total)
        # A weak tag does not promise the same bytes.
        validator = etag if etag and not etag.startswith("W/") else modified
        _validator_file(partial).write_text(
            "\n".join((validator, etag, modified, size)), encoding="utf-8"
        )

    def headers(self) -> dict[str, str]:
        """Headers of a request for the rest."""
        headers = {"Accept-Encoding": "identity"}
        if self.offset:
            headers["Range"] = f"bytes={self.offset}-"
            if self.validator:
                # The server starts over if its file is no longer the one we have the beginning of.
                headers["If-Range"] = self.validator
        return headers

    def agrees(self, answer: Answer, total: int | None, *, checked: bool) -> bool:
        """Whether a server that sends the rest says the same of its file as at the beginning.

        Some ignore If-Range. What is checked by its sha256 afterwards may lack a fact.
        """
        pairs = list(zip(self.facts, _facts(answer, total), strict=False))
        if pairs and not self.facts[-1]:
            pairs.pop()  # it did not say the size
        return all(then == now or (checked and not (then and now)) for then, now in pairs)


def _facts(answer: Answer, total: int | None) -> tuple[str, str, str]:
    texts = (answer.headers.get(name, "") for name in ("ETag", "Last-Modified"))
    etag, modified = ("".join(text.split("\n")).strip()[:500] for text in texts)
    return etag, modified, "" if total is None else str(total)


def _require_range(answer: Answer, offset: int) -> None:
    start = re.match(r"bytes (\d{1,18})-", answer.headers.get("Content-Range", ""))
    if offset == 0 or start is None or int(start[1]) != offset:
        raise AddressError("the server sent another part of the file than the one asked for")


def _validator_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".validator")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
