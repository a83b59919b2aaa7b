from __future__ import annotations

import os
from dataclasses import fields

import pytest

from ovseg.readers.files import open_regular, read_bytes
from ovseg.readers.limits import LimitError, Limits, limited, limits, require_within


def test_a_regular_file_is_read(tmp_path):
    (tmp_path / "a").write_bytes(b"some bytes")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    assert read_bytes(tmp_path / "a") == read_bytes(tmp_path / "link") == b"some bytes"


def test_what_never_ends_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(OSError, match="expected a regular file, got a pipe, device or socket"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "gone")


def test_a_file_beyond_the_limit_is_not_read(tmp_path):
    (tmp_path / "a").write_bytes(bytes(11))
    with limited(document_bytes=10):
        message = r"a: expected at most 10 document bytes, got 11; .*OVSEG_LIMIT_DOCUMENT_BYTES"
        with pytest.raises(LimitError, match=message):
            read_bytes(tmp_path / "a")
    assert len(read_bytes(tmp_path / "a")) == 11


def test_the_environment_changes_limits_and_a_wrong_value_is_told(monkeypatch):
    monkeypatch.setenv("OVSEG_LIMIT_PICTURE_PIXELS", "4e9")
    assert limits().picture_pixels == 4_000_000_000
    with limited(array_bytes=5) as inside:
        assert (inside.picture_pixels, inside.array_bytes) == (4_000_000_000, 5)
    assert limits().array_bytes == Limits().array_bytes
    monkeypatch.setenv("OVSEG_LIMIT_PICTURE_PIXELS", "many")
    with pytest.raises(LimitError, match="expected a number of at least 1, got 'many'"):
        limits()


def test_every_limit_is_documented():
    for field in fields(Limits):
        assert f"\n        {field.name}: " in Limits.__doc__


def test_the_callers_own_limit_goes_before():
    require_within("picture_pixels", 50, of="x.png", most=50)
    with pytest.raises(LimitError, match=r"x.png: expected at most 50 picture pixels, got 51"):
        require_within("picture_pixels", 51, of="x.png", most=50)
