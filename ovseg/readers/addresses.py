"""Reading from web addresses: http and https only, watched, and bounded."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.message import Message
from typing import Any
from urllib.parse import urlsplit

from ovseg.readers.limits import require_within

__all__ = ["TIMEOUT_SECONDS", "AddressError", "Answer", "open_address"]

TIMEOUT_SECONDS = 30
"""Longest silence."""
WATCH_SECONDS = 60
LEAST_BYTES = WATCH_SECONDS * 1024
"""A server that sends less in `WATCH_SECONDS` is left."""
_PIECE = 1 << 20
_SCHEMES = ("http", "https")
_REDIRECTS = (301, 302, 303, 307, 308)


class AddressError(OSError):
    """Nothing can be read from an address.

    Args:
        text: why.
        lost: the connection broke, so that a further attempt may do.
    """

    def __init__(self, text: str, *, lost: bool = False) -> None:
        super().__init__(text)
        self.lost = lost


class Answer:
    """What a server answered.

    Args:
        response: as urllib gives it.
        watch: what ends it when it comes too slowly.
        of: the address, for errors.
    """

    def __init__(self, response: http.client.HTTPResponse, watch: _Watch, of: str) -> None:
        self._response = response
        self._watch = watch
        self._of = of
        self.status = response.status
        self.reason = response.reason[:200]
        self.headers: Message = response.headers

    @property
    def length(self) -> int | None:
        """How many bytes are to come; None where the server does not say."""
        text = self.headers.get("Content-Length", "")
        return int(text) if re.fullmatch(r"\d{1,18}", text) else None

    def pieces(self) -> Iterator[bytes]:
        """Read the content as it comes.

        Yields:
            Up to a mebibyte each.

        Raises:
            AddressError: the connection broke, or what comes is too slow.
            LimitError: it is more than `Limits.download_bytes`.
        """
        received = 0
        require_within("download_bytes", self.length or 0, of=self._of)
        while True:
            try:
                piece = self._response.read1(_PIECE)
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise self._watch.explain(error) from error
            if not piece:
                break
            received += len(piece)
            self._watch.received += len(piece)
            require_within("download_bytes", received, of=self._of)
            yield piece
        if self._watch.late:
            raise self._watch.explain(None)
        if self.length is not None and received != self.length:
            raise AddressError(
                f"the connection broke after {received} of {self.length} bytes", lost=True
            )


@contextmanager
def open_address(address: str, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
    """Ask a server for what lies at an address; redirects to http and https are followed.

    Args:
        address: http or https.
        headers: of the request.

    Yields:
        The answer, also one of an error.

    Raises:
        AddressError: it is no address, the server cannot be reached, or takes more than
            `WATCH_SECONDS` to begin.
    """
    _require_web(address)
    watch = _Watch()
    opener = urllib.request.OpenerDirector()
    proxies = {k: v for k, v in urllib.request.getproxies().items() if k in _SCHEMES}
    for handler in (
        urllib.request.ProxyHandler(proxies),
        _Opener(watch),
        _Redirects(),
        _Statuses(),
        urllib.request.HTTPDefaultErrorHandler(),
    ):
        opener.add_handler(handler)
    watch.start()
    try:
        try:
            request = urllib.request.Request(address, headers=dict(headers or {}))
            response = opener.open(request, timeout=TIMEOUT_SECONDS)
        except AddressError:
            raise
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise watch.explain(error) from error
        with response:
            yield Answer(response, watch, address)
    finally:
        watch.stop()


def _require_web(address: str) -> None:
    try:
        parts = urlsplit(address)
        usable = parts.scheme in _SCHEMES and parts.port != 0
        usable = usable and bool((parts.hostname or "").encode("idna"))
        usable = usable and (parts.path + parts.query).isascii()
    except ValueError:
        usable = False
    if not usable or re.search(r"[\x00-\x20\x7f]", address):
        raise AddressError(
            f"expected an http or https address, with other letters than ASCII as %XX, got "
            f"{address[:200]!r}"
        )


class _Watch(threading.Thread):
    """Ends a connection on which too little comes, whatever the reader is waiting for."""

    def __init__(self) -> None:
        super().__init__(daemon=True, name="ovseg-watch")
        self.received = 0
        self.late = False
        self.sockets: list[socket.socket] = []
        self._done = threading.Event()

    def run(self) -> None:
        before = 0
        while not self._done.wait(WATCH_SECONDS):
            if self.received - before < LEAST_BYTES:
                self.late = True
                for connected in self.sockets:
                    with contextlib.suppress(OSError):
                        connected.shutdown(socket.SHUT_RDWR)
                return
            before = self.received

    def stop(self) -> None:
        """End the watch."""
        self._done.set()

    def explain(self, error: Exception | None) -> AddressError:
        """Say why nothing more came."""
        if self.late:
            return AddressError(
                f"the server sent less than {LEAST_BYTES} bytes in {WATCH_SECONDS} seconds"
            )
        reason = getattr(error, "reason", None) or error
        return AddressError(str(reason)[:300] or type(error).__name__, lost=True)


class _Opener(urllib.request.AbstractHTTPHandler):
    """Opens connections whose sockets the watch knows."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def http_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._plain, request)

    def https_open(self, request: urllib.request.Request) -> Any:
        return self.do_open(self._secure, request)

    http_request = urllib.request.AbstractHTTPHandler.do_request_
    https_request = urllib.request.AbstractHTTPHandler.do_request_

    def _plain(self, host: str, **options: Any) -> http.client.HTTPConnection:
        return self._watched(http.client.HTTPConnection(host, **options))

    def _secure(self, host: str, **options: Any) -> http.client.HTTPConnection:
        context = ssl.create_default_context()
        return self._watched(http.client.HTTPSConnection(host, context=context, **options))

    def _watched(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        connect = connection.connect

        def connect_and_tell() -> None:
            connect()
            self._watch.sockets.append(connection.sock)

        connection.connect = connect_and_tell  # type: ignore[method-assign]
        return connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to web addresses only; urllib would follow ftp, too."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in _SCHEMES:
            raise AddressError(
                f"the server refers to {newurl[:200]!r}, which is neither http nor https"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Statuses(urllib.request.HTTPErrorProcessor):
    """Treats redirects only; an answer with an error is an answer."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        if response.status in _REDIRECTS:
            return super().http_response(request, response)
        return response

    https_response = http_response
