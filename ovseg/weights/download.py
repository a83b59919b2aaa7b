"""Downloading a file: resumable, checked, complete or not there at all."""

from __future__ import annotations

import hashlib
import http.client
import logging
import re
import urllib.error
import urllib.request
from pathlib import Path

from iopath.common.file_io import file_lock
from tqdm import tqdm

logger = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30
_INTERRUPTED = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)


class DownloadError(OSError):
    """A file could not be downloaded, or is not the file that was expected."""


def download(url: str, target: Path, *, sha256: str | None = None, progress: bool = True) -> None:
    """Download a file unless it is there; an interrupted download continues where it stopped.

    What has arrived lies in `<target>.part` until it is complete and checked. Several processes may
    ask for the same target at once: one downloads, the others wait.

    Args:
        url: an http or https address.
        target: the file to make.
        sha256: what the content must have, in hexadecimal.
        progress: show a progress bar.

    Raises:
        DownloadError: if the server cannot be reached, gives an error or breaks off without having
            sent anything new, or if the checksum differs.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadError(f"expected an http or https address, got {url!r}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(str(target)):
        if target.exists():
            return
        partial = target.with_name(target.name + ".part")
        _fetch_with_retries(url, partial, target, progress=progress)
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


def _fetch_with_retries(url: str, partial: Path, target: Path, *, progress: bool) -> None:
    while True:
        before = _size(partial)
        try:
            _fetch(url, partial, progress=progress)
            return
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
        except _INTERRUPTED as error:
            reason = str(getattr(error, "reason", None) or error or type(error).__name__)
            if _size(partial) > before:
                logger.info("connection lost after %d bytes, continuing", _size(partial))
                continue
        raise DownloadError(
            f"could not download {url}: {reason}. What has arrived is kept, so the same call "
            "continues later. Without a connection, get the file on another machine and put it at "
            f"{target}, or pass its path"
        )


def _fetch(url: str, partial: Path, *, progress: bool) -> None:
    offset = _size(partial)
    try:
        response = urllib.request.urlopen(_request(url, partial), timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416 or offset == 0:  # 416: nothing behind the offset
            raise
        if error.headers.get("Content-Range") == f"bytes */{offset}":
            return
        partial.unlink()
        response = urllib.request.urlopen(_request(url, partial), timeout=TIMEOUT_SECONDS)
    with response:
        if not _continues(response, offset):
            offset = 0
        _validator_file(partial).write_text(_validator(response), encoding="utf-8")
        length = response.headers.get("Content-Length")
        total = None if length is None else offset + int(length)
        received = offset
        with (
            partial.open("ab" if offset else "wb") as file,
            tqdm(
                total=total, initial=offset, unit="B", unit_scale=True, unit_divisor=1024,
                desc=partial.stem, disable=not progress,
            ) as bar,
        ):  # fmt: skip
            while chunk := response.read(CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
    if total is not None and received != total:
        raise ConnectionError(f"the connection broke after {received} of {total} bytes")


def _request(url: str, partial: Path) -> urllib.request.Request:
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity"})
    offset = _size(partial)
    if offset:
        request.add_header("Range", f"bytes={offset}-")
        validator = _validator_file(partial)
        if validator.exists() and validator.read_text(encoding="utf-8"):
            # The server starts over if its file is no longer the one we have the beginning of.
            request.add_header("If-Range", validator.read_text(encoding="utf-8"))
    return request


def _continues(response: http.client.HTTPResponse, offset: int) -> bool:
    if response.status != 206:
        return False
    start = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    if start is None or int(start[1]) != offset:
        raise ConnectionError("the server sent another part of the file than the one asked for")
    return True


def _validator(response: http.client.HTTPResponse) -> str:
    etag = response.headers.get("ETag", "")
    if etag and not etag.startswith("W/"):  # a weak tag does not promise the same bytes
        return etag
    return response.headers.get("Last-Modified", "")


def _validator_file(partial: Path) -> Path:
    return partial.with_name(partial.name + ".validator")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
