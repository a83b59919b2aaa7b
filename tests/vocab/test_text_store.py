from __future__ import annotations

import multiprocessing
import sqlite3

import numpy as np
import pytest
import torch

from ovseg.vocab import TextBank, TextStore, Vocabulary


def row(number: int, size: int = 4) -> np.ndarray:
    return np.arange(size, dtype=np.float32) + number


def rows(*numbers: int) -> dict[bytes, np.ndarray]:
    return {f"key {number}".encode(): row(number) for number in numbers}


def write(file, first):
    for number in range(first, first + 40):
        TextStore(file).write(rows(number))


class Encoder:
    """Counts what it is asked for; texts of one length have one feature."""

    device = torch.device("cpu")

    def __init__(self, name="this one"):
        self.name, self.seen = name, []

    def __call__(self, texts):
        self.seen += texts
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    def identity(self):
        return self.name


def features(file, names, encoder=None, **bank):
    encoder = encoder or Encoder()
    made = TextBank(encoder, **bank)
    made.keep_in(TextStore(file))
    return made.features(Vocabulary.make(names, templates=["{}"])), encoder.seen


def test_what_is_written_is_read_and_the_rest_is_missing(tmp_path):
    store = TextStore(tmp_path / "deep" / "texts.sqlite")
    assert store.read([b"key 1"]) == {}
    store.write(rows(*range(1200)))  # more than one question takes
    store.write({b"key 7": row(70)})
    found = TextStore(store.file).read([f"key {n}".encode() for n in range(1300)])
    assert len(found) == 1200
    assert found[b"key 7"].tolist() == [70, 71, 72, 73]
    assert found[b"key 1199"].tolist() == [1199, 1200, 1201, 1202]


def test_processes_write_at_once(tmp_path):
    file = tmp_path / "texts.sqlite"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write, args=(file, 40 * n)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    found = TextStore(file).read([f"key {n}".encode() for n in range(160)])
    assert sorted(found) == sorted(f"key {n}".encode() for n in range(160))


def test_a_row_that_was_changed_is_missing(tmp_path):
    store = TextStore(tmp_path / "texts.sqlite")
    store.write(rows(1, 2, 3))
    with sqlite3.connect(store.file) as connection:
        [content] = connection.execute("SELECT row FROM texts WHERE key = ?", [b"key 1"]).fetchone()
        changed = content[:-1] + bytes([content[-1] ^ 1])
        connection.execute("UPDATE texts SET row = ? WHERE key = ?", [changed, b"key 1"])
        # Whole, but of another key.
        connection.execute("UPDATE texts SET row = ? WHERE key = ?", [content, b"key 2"])
    assert list(store.read(list(rows(1, 2, 3)))) == [b"key 3"]
    store.write(rows(1))
    assert store.read([b"key 1"])[b"key 1"].tolist() == [1, 2, 3, 4]


def test_a_file_that_is_no_store_is_made_anew(tmp_path, caplog):
    file = tmp_path / "texts.sqlite"
    file.write_bytes(b"something else, long enough not to look empty" * 40)
    store = TextStore(file)
    assert store.read([b"key 1"]) == {}
    assert "it was damaged and is made anew" in caplog.text
    store.write(rows(1))
    assert list(store.read([b"key 1"])) == [b"key 1"]


def test_a_place_that_cannot_be_written_is_told_once(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    store = TextStore(tmp_path / "file" / "texts.sqlite")
    store.write(rows(1))
    store.write(rows(2))
    assert store.read([b"key 1"]) == {}
    assert caplog.text.count("they are encoded each time") == 1


def test_the_older_half_makes_room(tmp_path):
    store = TextStore(tmp_path / "texts.sqlite", most_bytes=200_000)
    for number in range(400):
        store.write({f"key {number}".encode(): row(number, 500)})  # 2 kB
    left = store.read([f"key {number}".encode() for number in range(400)])
    assert 20 < len(left) < 200
    assert b"key 399" in left and b"key 0" not in left
    assert store.file.stat().st_size < 400_000


def test_a_name_that_a_process_has_met_is_not_encoded_again(tmp_path):
    file = tmp_path / "texts.sqlite"
    first, seen = features(file, ["sky", "tree"])
    assert seen == ["sky", "tree"]
    again, seen = features(file, ["horse", "tree", "sky"])
    assert seen == ["horse"]
    assert torch.equal(again[[2, 1]], first) and again.dtype == torch.float32
    alone, _ = features(tmp_path / "another.sqlite", ["horse"])
    assert torch.equal(again[:1], alone)


@pytest.mark.parametrize("change", ["encoder", "average", "templates"])
def test_what_features_follow_from_is_in_the_key(tmp_path, change):
    file = tmp_path / "texts.sqlite"
    features(file, ["sky"])
    if change == "encoder":
        _, seen = features(file, ["sky"], Encoder("another one"))
    elif change == "average":
        _, seen = features(file, ["sky"], average="raw")
    else:
        bank = TextBank(encoder := Encoder())
        bank.keep_in(TextStore(file))
        bank.features(Vocabulary.make(["sky"], templates=["{}", "a {}"]))
        seen = encoder.seen
    assert "sky" in seen


def test_a_bank_that_forgets_asks_who_encodes_now(tmp_path):
    bank = TextBank(encoder := Encoder())
    bank.keep_in(TextStore(tmp_path / "texts.sqlite"))
    bank.features(Vocabulary.make(["sky"], templates=["{}"]))
    encoder.name = "other weights"
    bank.clear()
    bank.features(Vocabulary.make(["sky"], templates=["{}"]))
    assert encoder.seen == ["sky", "sky"]


def test_encoders_without_an_identity_keep_nothing(tmp_path):
    features(tmp_path / "texts.sqlite", ["sky"], Encoder(""))
    bank = TextBank(lambda texts: torch.ones(len(texts), 2))
    bank.keep_in(TextStore(tmp_path / "texts.sqlite"))
    bank.features(Vocabulary.make(["sky"], templates=["{}"]))
    assert not (tmp_path / "texts.sqlite").exists()
