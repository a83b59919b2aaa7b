from __future__ import annotations

import hashlib
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

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
        same = self.headers.get("If-Range", server.etag) == server.etag
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
        self.send_header("ETag", server.etag)
        self.end_headers()
        self.wfile.write(body[: server.cuts.pop(0)] if server.cuts else body)
        self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.content, server.etag, server.ranges = CONTENT, '"one"', True
    server.cuts, server.requests = [], []
    server.url = f"http://127.0.0.1:{server.server_port}/weights.pt"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
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
