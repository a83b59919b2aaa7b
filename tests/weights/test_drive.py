"""Downloads from Google Drive: gdown against a local server that answers as Drive does."""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from ovseg.weights import catalogue, drive
from ovseg.weights.download import DownloadError
from ovseg.weights.drive import download_from_drive, drive_id, drive_page

CONTENT = bytes(range(256)) * 4000
MD5 = hashlib.md5(CONTENT, usedforsecurity=False).hexdigest()
FILE_ID = "1cn-ohxgXDrDfkzC1QdO-fi8IjbjXmgKy"
CONFIRMATION = """<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head>
<body><p class="uc-warning-caption">Google Drive can't scan this file for viruses.</p>
<form id="download-form" action="https://drive.usercontent.google.com/download" method="get">
<input type="submit" id="uc-download-link" value="Download anyway"/>
<input type="hidden" name="id" value="{id}"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="4-2">
</form></body></html>""".replace(">\n<input", "><input")
QUOTA = """<html><head><title>Google Drive - Quota exceeded</title></head><body>
<p class="uc-error-caption">Sorry, you can't view or download this file at this time.</p>
<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>
</body></html>"""


class _Drive(BaseHTTPRequestHandler):
    """Asks for a confirmation, then sends `server.content`, cut short once per entry of `cuts`."""

    def do_GET(self):
        server, address = self.server, urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        server.requests.append((address.path, self.headers.get("Range")))
        if server.status:
            self.send_error(server.status)
        elif server.page or address.path == "/uc":
            self._page(server.page or CONFIRMATION.format(id=asked["id"]))
        elif asked == {"id": FILE_ID, "export": "download", "confirm": "t", "uuid": "4-2"}:
            self._file()
        else:
            self._page("<html><body>Sign in</body></html>")

    def _page(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self):
        content, wanted = self.server.content, self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", 'attachment; filename="model.pth"')
        self.send_header("Last-Modified", "Wed, 12 Apr 2023 05:00:00 GMT")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        body = content[start:]
        for _ in range(200 if self.server.trickles else 0):
            self.wfile.write(b"x")
            time.sleep(0.05)
        self.wfile.write(body[: self.server.cuts.pop(0)] if self.server.cuts else body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    """Google Drive as gdown sees it; what goes to Google's hosts goes here."""
    pytest.importorskip("gdown")
    adapters = pytest.importorskip("requests.adapters")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Drive)
    server.content, server.page, server.status = CONTENT, "", 0
    server.cuts, server.requests, server.trickles = [], [], False
    send = adapters.HTTPAdapter.send

    def send_here(self, request, **options):
        address = urlsplit(request.url)
        assert address.hostname in ("drive.google.com", "drive.usercontent.google.com")
        here = f"127.0.0.1:{server.server_port}"
        request.url = address._replace(scheme="http", netloc=here).geturl()
        return send(self, request, **options | {"proxies": {}})

    monkeypatch.setattr(adapters.HTTPAdapter, "send", send_here)
    monkeypatch.setattr("random.uniform", lambda *_: 0.0)  # gdown's pause before it tries again
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def _names(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_the_confirmation_is_answered_and_the_file_comes_once(server, tmp_path, capsys):
    target = tmp_path / "deep" / "w.pth"
    for _ in range(2):
        download_from_drive(FILE_ID, target, md5=MD5[:6])
    assert target.read_bytes() == CONTENT and _names(target.parent) == ["w.pth"]
    assert server.requests == [("/uc", None), ("/download", None)]
    printed = capsys.readouterr()
    assert printed.out == "" and "w.pth" in printed.err and "0.98M/0.98M" in printed.err


def test_a_broken_transfer_is_continued_at_once(server, tmp_path):
    server.cuts = [600_000]
    download_from_drive(FILE_ID, tmp_path / "w.pth", md5=MD5[:6], progress=False)
    assert (tmp_path / "w.pth").read_bytes() == CONTENT
    (_, first), (_, second) = [asked for asked in server.requests if asked[0] == "/download"]
    assert first is None and 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 600_000


def test_an_interrupted_download_continues_in_a_later_call(server, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "RETRIES", 0)
    target, server.cuts = tmp_path / "w.pth", [600_000]
    with pytest.raises(DownloadError, match="the same call continues later"):
        download_from_drive(FILE_ID, target, md5=MD5[:6], progress=False)
    assert not target.exists()
    download_from_drive(FILE_ID, target, md5=MD5[:6], progress=False)
    assert target.read_bytes() == CONTENT and _names(tmp_path) == ["w.pth"]
    assert server.requests[-1][1].startswith("bytes=")


def test_a_trickle_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(drive, "PATIENCE_SECONDS", 1)
    server.trickles = True
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"less than half a mebibyte came in 1 seconds.*later"):
        download_from_drive(FILE_ID, tmp_path / "w.pth", progress=False)
    assert time.monotonic() - began < 30 and not (tmp_path / "w.pth").exists()


@pytest.mark.parametrize(
    "page, status, reason",
    [
        (QUOTA, 0, "Too many users have viewed or downloaded this file recently"),
        ("<html><body>Sign in</body></html>", 0, "Cannot retrieve the public link of the file"),
        ("", 404, "Cannot retrieve the public link"),
    ],
)
def test_where_drive_gives_no_file_the_error_says_how_to_get_it(
    server, tmp_path, page, status, reason
):
    server.page, server.status = page, status
    with pytest.raises(DownloadError) as error:
        download_from_drive(FILE_ID, tmp_path / "w.pth", md5=MD5[:6], progress=False)
    text = str(error.value)
    assert reason in text and "\n" not in text
    assert f"open {drive_page(FILE_ID)} in a browser" in text
    assert f"put the file at {tmp_path / 'w.pth'}, or pass its path" in text
    assert _names(tmp_path) == []


def test_another_file_than_the_released_one_is_removed(server, tmp_path):
    with pytest.raises(DownloadError, match=rf"md5 123456, got {MD5}.*open {drive_page(FILE_ID)}"):
        download_from_drive(FILE_ID, tmp_path / "w.pth", md5="123456", progress=False)
    assert _names(tmp_path) == []


@pytest.mark.parametrize(
    "wanted", ["ovseg_swinB", "ovseg_swinbase_vitL14_ft_mpt.pth", drive_page(FILE_ID)]
)
def test_released_checkpoints_come_by_name_file_name_and_address(
    server, tmp_path, wanted, monkeypatch
):
    server.content = b"no checkpoint"
    with pytest.raises(DownloadError, match="expected the md5 526080"):
        catalogue.resolve(wanted, cache_dir=tmp_path, progress=False)
    monkeypatch.setattr(drive, "verify", lambda *_, **__: None)
    path = catalogue.resolve(wanted, cache_dir=tmp_path, progress=False)
    assert path == tmp_path / "ovseg_swinbase_vitL14_ft_mpt.pth"
    assert path.read_bytes() == b"no checkpoint"


def test_without_gdown_the_error_names_the_extra_the_address_and_the_place(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(DownloadError) as error:
        catalogue.resolve("ovseg_R101c", cache_dir=tmp_path, progress=False)
    text = str(error.value)
    assert "pip install 'ovseg[download]'" in text
    assert "https://drive.google.com/file/d/1ZmeFMEkhuLqaWkhz4t4IlQ8YflrYja8q/view" in text
    assert f"put the file at {tmp_path / 'ovseg_R101c_vitB16_ft_mpt.pth'}" in text


def test_addresses_of_drive_are_told_from_others():
    for address in (
        drive_page(FILE_ID),
        f"https://drive.google.com/file/d/{FILE_ID}/view?usp=sharing",
        f"https://drive.google.com/uc?export=download&id={FILE_ID}",
        f"https://drive.google.com/open?id={FILE_ID}",
    ):
        assert drive_id(address) == FILE_ID
    assert drive_id(f"https://example.org/file/d/{FILE_ID}/view") is None
