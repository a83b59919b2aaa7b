from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ovseg.readers import addresses
from ovseg.readers.limits import limited
from ovseg.weights import catalogue
from ovseg.weights.download import DownloadError, download, verify

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Serves `server.content`; breaks off after `server.cuts` bytes, one entry per request."""

    def do_GET(self):
        server = self.server
        server.requests.append(dict(self.headers))
        start = 0
        wanted = self.headers.get("Range")
        if self.path.endswith("/absent"):
            self.send_error(404)
            return
        if server.redirect:
            self.send_response(302)
            self.send_header("Location", server.redirect)
            self.end_headers()
            return
        same = server.careless or self.headers.get("If-Range", server.etag) == server.etag
        if server.ranges and wanted and same:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(server.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(server.content)}")
                self.end_headers()
                return
            self.send_response(206)
            end = len(server.content)
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{end}")
        else:
            self.send_response(200)
        body = server.content[start:]
        self.send_header("Content-Length", str(len(body)))
        if server.etag:
            self.send_header("ETag", server.etag)
        self.end_headers()
        if server.drip:
            self._drip(body)
            return
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
        self.close_connection = True

    def _drip(self, body):
        with contextlib.suppress(OSError):
            for place in range(0, len(body)):
                self.wfile.write(body[place : place + 1])
                if self.server.stopped.wait(0.05):
                    return

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.content, server.etag, server.ranges = CONTENT, '"one"', True
    server.cuts, server.requests = [], []
    server.careless, server.redirect, server.drip = False, "", False
    server.stopped = threading.Event()
    server.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stopped.set()
    server.shutdown()
    thread.join()
    server.server_close()


def _names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock"))


def test_a_file_is_downloaded_once(server, tmp_path):
    target = tmp_path / "deep" / "w.pt"
    for _ in range(2):
        download(server.url, target, sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert _names(target.parent) == ["w.pt"]


def test_a_broken_connection_is_continued_at_once(server, tmp_path):
    server.cuts = [3000, 2000]
    download(server.url, tmp_path / "w.pt", sha256=SHA256, progress=False)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT
    assert [r.get("Range") for r in server.requests] == [None, "bytes=3000-", "bytes=5000-"]


def test_an_interrupted_download_continues_in_a_later_call(server, tmp_path):
    target = tmp_path / "w.pt"
    server.cuts = [4000, 0]
    with pytest.raises(DownloadError, match="the same call continues later"):
        download(server.url, target, sha256=SHA256, progress=False)
    assert not target.exists()
    download(server.url, target, sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT
    assert server.requests[-1]["Range"] == "bytes=4000-"
    assert _names(tmp_path) == ["w.pt"]


def test_a_server_without_ranges_starts_over(server, tmp_path):
    server.ranges = False
    target = tmp_path / "w.pt"
    server.cuts = [4000]
    download(server.url, target, sha256=SHA256, progress=False)
    assert target.read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_a_file_that_changed_meanwhile_starts_over(server, tmp_path):
    server.cuts = [4000, 0]
    with pytest.raises(DownloadError):
        download(server.url, tmp_path / "w.pt", progress=False)
    server.content, server.etag = b"new" * 5000, '"two"'
    download(server.url, tmp_path / "w.pt", progress=False)
    assert (tmp_path / "w.pt").read_bytes() == server.content


def test_a_complete_partial_file_is_taken_over(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(CONTENT)
    download(server.url, tmp_path / "w.pt", sha256=SHA256, progress=False)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_replaced(server, tmp_path):
    (tmp_path / "w.pt.part").write_bytes(CONTENT + b"more")
    download(server.url, tmp_path / "w.pt", sha256=SHA256, progress=False)
    assert (tmp_path / "w.pt").read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(DownloadError, match=f"expected the sha256 {'0' * 64}, got {SHA256}"):
        download(server.url, tmp_path / "w.pt", sha256="0" * 64, progress=False)
    assert [n for n in _names(tmp_path) if not n.endswith(".validator")] == []


def test_a_server_error_is_reported_without_a_retry(server, tmp_path):
    with pytest.raises(DownloadError, match="the server answered 404"):
        download(server.url + "/absent", tmp_path / "w.pt", progress=False)
    assert len(server.requests) == 1


def test_without_a_connection_the_error_says_what_to_do(tmp_path):
    with pytest.raises(DownloadError) as error:
        download("http://127.0.0.1:9/w.pt", tmp_path / "w.pt", progress=False)
    assert "could not download http://127.0.0.1:9/w.pt" in str(error.value)
    assert f"put it at {tmp_path / 'w.pt'}, or pass its path" in str(error.value)


def test_other_schemes_are_refused(tmp_path):
    with pytest.raises(DownloadError, match="http or https"):
        download("file:///etc/hosts", tmp_path / "w.pt")


def test_the_progress_bar_goes_to_stderr(server, tmp_path, capsys):
    download(server.url, tmp_path / "w.pt", progress=True)
    output = capsys.readouterr()
    assert output.out == ""
    assert "w.pt" in output.err
    assert "10.0k/10.0k" in output.err


def test_a_checksum_may_be_given_by_its_first_digits(tmp_path):
    path = tmp_path / "w"
    path.write_bytes(CONTENT)
    md5 = hashlib.md5(CONTENT).hexdigest()
    verify(path, md5=md5[:6].upper())
    with pytest.raises(DownloadError, match="md5 123456"):
        verify(path, md5="123456")


def test_the_catalogue_is_complete_and_honest():
    entries = catalogue.entries()
    assert next(iter(entries)) == "ovseg_tiny"
    assert {"ovseg_swinB", "ovseg_R101c", "ovseg_swinB_mpt_only", "clip_ViT-L-14"} <= set(entries)
    for name, entry in entries.items():
        assert entry.name == name
        assert entry.licence
        assert [entry.url, entry.drive_id, entry.bundled_path].count(None) == 2
        if entry.name.startswith("clip_"):  # the address carries the checksum
            assert len(entry.sha256) == 64
            assert entry.sha256 in entry.url
    assert entries["ovseg_swinB"].config == "ovseg_swinB"
    assert entries["ovseg_swinB"].md5 == "526080"
    assert entries["ovseg_swinB"].non_commercial
    assert not entries["clip_ViT-L-14"].non_commercial


def test_paths_come_back_unchanged(tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(b"x")
    assert catalogue.resolve(path) == path
    assert catalogue.resolve(str(path)) == path


def test_addresses_are_cached_apart(server, tmp_path):
    first = catalogue.resolve(server.url, cache_dir=tmp_path, progress=False)
    assert catalogue.resolve(server.url, cache_dir=tmp_path, progress=False) == first
    assert len(server.requests) == 1
    other = catalogue.resolve(server.url + "?v=2", cache_dir=tmp_path, progress=False)
    assert (first.name, other.name) == ("weights.pt", "weights.pt")
    assert first != other


@pytest.fixture
def entry(server, monkeypatch):
    entry = catalogue.WeightsEntry(
        name="some", filename="some.pt", licence="CC BY-NC 4.0", url=server.url, sha256=SHA256
    )
    monkeypatch.setattr(catalogue, "entries", lambda: {"some": entry})
    return entry


@pytest.mark.parametrize("wanted", ["some", "some.pt"])
def test_catalogue_names_are_downloaded_and_checked(entry, tmp_path, wanted):
    path = catalogue.resolve(wanted, cache_dir=tmp_path, progress=False)
    assert path == tmp_path / "some.pt"
    assert path.read_bytes() == CONTENT


def test_a_file_put_into_the_cache_by_hand_is_checked(entry, server, tmp_path):
    (tmp_path / "some.pt").write_bytes(b"another file")
    with pytest.raises(DownloadError, match="expected the sha256"):
        catalogue.resolve("some", cache_dir=tmp_path, progress=False)
    (tmp_path / "some.pt").write_bytes(CONTENT)
    assert catalogue.resolve("some", cache_dir=tmp_path, progress=False) == tmp_path / "some.pt"
    assert server.requests == []


def test_an_address_of_the_catalogue_is_checked_too(entry, server, tmp_path):
    server.content = b"changed"
    with pytest.raises(DownloadError, match="expected the sha256"):
        catalogue.resolve(server.url, cache_dir=tmp_path, progress=False)


def test_a_non_commercial_licence_is_logged_on_every_use(entry, tmp_path, caplog):
    for _ in range(2):
        with caplog.at_level(logging.WARNING, logger="ovseg.weights.catalogue"):
            catalogue.resolve("some", cache_dir=tmp_path, progress=False)
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["some: licence CC BY-NC 4.0, not for commercial use"] * 2


def test_the_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    assert catalogue.cache_folder() == tmp_path / "cache"
    assert catalogue.cache_folder("~/x") == Path.home() / "x"
    monkeypatch.delenv("OVSEG_CACHE")
    assert catalogue.cache_folder() == Path.home() / ".cache" / "ovseg"


def test_a_released_checkpoint_put_there_by_hand_is_checked(tmp_path):
    (tmp_path / "ovseg_swinbase_vitL14_ft_mpt.pth").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="expected the md5 526080"):
        catalogue.resolve("ovseg_swinB", cache_dir=tmp_path)


def test_unknown_names_are_answered_with_the_choices(tmp_path):
    message = r"got 'ovseg_swinb'; did you mean 'ovseg_swinB'\?"
    with pytest.raises(catalogue.HubError, match=message):
        catalogue.resolve("ovseg_swinb", cache_dir=tmp_path)
    with pytest.raises(catalogue.HubError, match=r"; names: ovseg_tiny, .*ovseg_swinB"):
        catalogue.resolve(tmp_path / "absent.pth", cache_dir=tmp_path)


def test_detectron2_addresses_are_understood(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        catalogue, "download", lambda url, target, **_: asked.append((url, target.name))
    )
    catalogue.resolve("detectron2://DeepLab/R-103.pkl", cache_dir=tmp_path)
    assert asked == [("https://dl.fbaipublicfiles.com/detectron2/DeepLab/R-103.pkl", "R-103.pkl")]


def test_bundled_weights_are_found_in_the_package(monkeypatch, tmp_path):
    path = tmp_path / "tiny.safetensors"
    entry = catalogue.WeightsEntry(name="t", filename="t", licence="Apache-2.0", bundled_path=path)
    monkeypatch.setattr(catalogue, "entries", lambda: {"t": entry})
    with pytest.raises(catalogue.HubError, match="the installation is incomplete"):
        catalogue.resolve("t")
    path.write_bytes(b"x")
    assert catalogue.resolve("t") == path


@pytest.fixture
def without_waits(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    return waits


@pytest.mark.parametrize("etags", [('"one"', '"two"'), ("", ""), ('W/"one"', 'W/"two"')])
def test_old_and_new_bytes_are_never_joined(server, tmp_path, without_waits, etags):
    """By a server that sends the rest of the new file though If-Range names the old one."""
    server.careless, server.etag, server.cuts = True, etags[0], [4000, 0]
    target = tmp_path / "w.pt"
    with pytest.raises(DownloadError):
        download(server.url, target, progress=False)
    server.content, server.etag = bytes(reversed(CONTENT)), etags[1]
    download(server.url, target, progress=False)
    assert target.read_bytes() == server.content


def test_a_server_that_always_breaks_off_is_left_after_a_few_attempts_ever_slower(
    server, tmp_path, without_waits
):
    server.cuts = [1] * 5000
    with pytest.raises(DownloadError, match="the connection broke after 1 of"):
        download(server.url, tmp_path / "w.pt", progress=False)
    assert len(server.requests) == 9
    assert without_waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6]


def test_a_server_that_drips_is_left(server, tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "WATCH_SECONDS", 0.5)
    monkeypatch.setattr(addresses, "LEAST_BYTES", 500)
    server.drip = True
    began = time.monotonic()
    with pytest.raises(DownloadError, match=r"sent less than 500 bytes in 0\.5 seconds"):
        download(server.url, tmp_path / "w.pt", progress=False)
    assert time.monotonic() - began < 10
    assert len(server.requests) == 1


def test_a_server_that_drips_its_headers_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(addresses, "WATCH_SECONDS", 0.5)
    stopped = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
            while not stopped.wait(0.05):
                connection.sendall(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        with pytest.raises(DownloadError, match="sent less than"):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/w.pt"
            download(url, tmp_path / "w.pt", progress=False)
    finally:
        stopped.set()
        thread.join()
        listener.close()


@pytest.mark.parametrize("elsewhere", ["ftp://127.0.0.1/w.pt", "file:///etc/hosts", "data:,x"])
def test_redirects_lead_to_web_addresses_only(server, tmp_path, elsewhere):
    server.redirect = elsewhere
    with pytest.raises(DownloadError, match=r"neither http nor https|not allowed"):
        download(server.url, tmp_path / "w.pt", progress=False)
    assert not (tmp_path / "w.pt").exists()


def test_a_redirect_in_a_circle_ends(server, tmp_path):
    server.redirect = server.url
    with pytest.raises(DownloadError, match="redirect"):
        download(server.url, tmp_path / "w.pt", progress=False)


@pytest.mark.parametrize(
    "address",
    [
        "http://",
        "http://[::1",
        "http://host:port/w.pt",
        "http://host:99999/w.pt",
        "http://a b/w.pt",
        "http://host/a\nb",
        "http://host/\0",
        "http://host/ä",
        "http://" + "a" * 300 + "/w.pt",
        "https:///w.pt",
    ],
)
def test_odd_addresses_are_told(tmp_path, address):
    with pytest.raises(DownloadError, match="expected an http or https address"):
        catalogue.resolve(address, cache_dir=tmp_path, progress=False)


@pytest.mark.parametrize("path", ["/..", "/%2e%2e", "/a%00b", "/" + "x" * 400, "/.ssh", "/"])
def test_odd_names_of_files_do_not_reach_the_disk(server, tmp_path, path):
    address = server.url.replace("/weights.pt", path)
    found = catalogue.resolve(address, cache_dir=tmp_path, progress=False)
    assert (found.name, found.parent.parent) == ("weights", tmp_path)


def test_a_download_has_a_limit(server, tmp_path):
    with limited(download_bytes=1000), pytest.raises(DownloadError, match="1000 download bytes"):
        download(server.url, tmp_path / "w.pt", progress=False)


def test_a_place_that_cannot_be_written_is_named(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match=r"w\.pt: could not be written: "):
        download(server.url, tmp_path / "file" / "w.pt", progress=False)


def test_a_name_longer_than_any_path_is_an_unknown_name(tmp_path):
    with pytest.raises(catalogue.HubError, match="expected a file, an address or a name"):
        catalogue.resolve("x" * 5000, cache_dir=tmp_path)


def test_the_bundled_files_are_those_of_the_catalogue(monkeypatch, tmp_path):
    for name in catalogue.BUNDLED:
        entry = catalogue.entries()[name]
        assert len(entry.sha256) == 64
        assert catalogue.resolve(name) == entry.bundled_path
    damaged = bytearray(entry.bundled_path.read_bytes())
    damaged[-1] ^= 1
    copy = tmp_path / "t.safetensors"
    copy.write_bytes(damaged)
    changed = dataclasses.replace(entry, bundled_path=copy)
    monkeypatch.setattr(catalogue, "entries", lambda: {"t": changed})
    with pytest.raises(catalogue.HubError, match=r"are damaged; install ovseg anew.*sha256"):
        catalogue.resolve("t")


def test_six_digits_of_a_checksum_are_said_to_be_no_proof(tmp_path, monkeypatch, caplog):
    for md5, message in (("5260ab", "only the first 6 digits of its md5"), (None, "no checksum")):
        caplog.clear()
        entry = catalogue.WeightsEntry(
            name="some", filename="some.pt", licence="MIT", url="http://127.0.0.1:9/x", md5=md5
        )
        monkeypatch.setattr(catalogue, "entries", lambda entry=entry: {"some": entry})
        with pytest.raises(DownloadError):
            catalogue.resolve("some", cache_dir=tmp_path, progress=False)
        assert message in caplog.text
