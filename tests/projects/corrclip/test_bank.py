from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ovseg.config import load_cfg
from ovseg.projects.corrclip.bank import BankError, MemoryBank, build_bank
from ovseg.projects.corrclip.bank.build import build_memory_bank
from ovseg.projects.corrclip.bank.index import ExactIndex, FaissIndex, index_kind, unit_rows
from ovseg.projects.corrclip.bank.storage import read_images
from ovseg.projects.corrclip.bank.upstream import import_bank
from ovseg.projects.corrclip.sources import open_pictures
from tests.projects.corrclip.toy_bank import make_parts, write_pictures


def vectors(count, channels=8, seed=0):
    return np.random.default_rng(seed).normal(size=(count, channels)).astype(np.float32)


def true_neighbours(keys, queries, k):
    scores = unit_rows(queries) @ unit_rows(keys).T
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


# -- search -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_exact_search_finds_the_most_similar_vectors_whatever_their_length(dtype, monkeypatch):
    monkeypatch.setattr("ovseg.projects.corrclip.bank.index._CHUNK", 17)
    keys = (vectors(100) * np.linspace(0.1, 9, 100)[:, None]).astype(dtype)
    queries = unit_rows(vectors(5, seed=1))

    found = ExactIndex(keys).search(queries, 20)

    assert found.dtype == np.int64 and np.array_equal(found, true_neighbours(keys, queries, 20))


def test_of_equally_similar_vectors_the_first_ones_count(monkeypatch):
    monkeypatch.setattr("ovseg.projects.corrclip.bank.index._CHUNK", 4)
    keys = np.tile(np.eye(3, dtype=np.float32), (4, 1))  # rows 0, 3, 6, 9 are the same

    found = ExactIndex(keys).search(np.eye(3, dtype=np.float32), 3)

    assert found.tolist() == [[0, 3, 6], [1, 4, 7], [2, 5, 8]]


def test_a_region_of_the_bank_finds_itself_first():
    keys = vectors(200, channels=16)
    pieces = ExactIndex(keys).search(unit_rows(keys[40:60]), 1)

    assert pieces[:, 0].tolist() == list(range(40, 60))


def test_missing_neighbours_are_minus_one():
    found = ExactIndex(vectors(3)).search(unit_rows(vectors(2, seed=1)), 5)

    assert (found[:, 3:] == -1).all() and sorted(found[0, :3]) == [0, 1, 2]
    empty = ExactIndex(np.zeros((0, 8), np.float16)).search(unit_rows(vectors(2)), 4)
    assert empty.tolist() == [[-1] * 4] * 2
    assert ExactIndex(vectors(3)).search(np.zeros((0, 8), np.float32), 2).shape == (0, 2)


def test_queries_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"expected queries \(R, 8\) float32.*\(2, 6\)"):
        ExactIndex(vectors(3)).search(vectors(2, channels=6), 1)
    with pytest.raises(ValueError, match=r"BANK\.K: expected at least 1, got 0"):
        ExactIndex(vectors(3)).search(vectors(2), 0)


def test_small_banks_are_searched_exactly_and_large_ones_by_faiss_if_it_is_there(monkeypatch):
    pytest.importorskip("faiss")
    assert index_kind("auto", 9_999) == "exact" and index_kind("auto", 10_000) == "faiss"
    assert index_kind("exact", 10**9) == "exact" and index_kind("faiss", 3) == "faiss"
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert index_kind("auto", 10_000) == "exact"
    with pytest.raises(ImportError, match=r"pip install 'ovseg\[faiss\]'"):
        index_kind("faiss", 3)
    with pytest.raises(ValueError, match=r"BANK\.INDEX: expected one of .* got 'annoy'"):
        index_kind("annoy", 3)


def test_faiss_without_clusters_finds_what_exact_search_finds(tmp_path):
    pytest.importorskip("faiss")
    keys, queries = vectors(50).astype(np.float16), unit_rows(vectors(6, seed=1))
    FaissIndex.build(keys[:30]).write(tmp_path / "a.faiss")
    grown = FaissIndex.read(tmp_path / "a.faiss")
    grown.add(keys)

    found = grown.search(queries, 7)

    assert found.dtype == np.int64 and np.array_equal(found, true_neighbours(keys, queries, 7))
    assert (grown.search(queries, 60)[:, 50:] == -1).all()


def test_faiss_with_clusters_finds_most_of_what_exact_search_finds(monkeypatch):
    pytest.importorskip("faiss")
    monkeypatch.setattr("ovseg.projects.corrclip.bank.index.FLAT_LIMIT", 1000)
    keys = vectors(2000, channels=12)  # 12: not a multiple of 32, so pieces of one channel
    index = FaissIndex.build(keys)

    found = index.search(unit_rows(keys[:200]), 1)[:, 0]

    assert (found == np.arange(200)).mean() > 0.9


# -- a bank -----------------------------------------------------------------------------------


def test_values_are_looked_up_by_encoder_and_the_first_is_the_default():
    values = {"a": vectors(4, 3), "b": vectors(4, 5)}
    bank = MemoryBank(vectors(4), values, features="x", name="toy")

    assert bank.encoders == ("a", "b") and len(bank) == 4
    assert bank.values("b") is values["b"] and bank.values("") is values["a"]
    with pytest.raises(BankError, match=r"an encoder out of \('a', 'b'\), got 'c'"):
        bank.values("c")
    with pytest.raises(BankError, match="expected 4 values"):
        MemoryBank(vectors(4), {"a": vectors(3)}, features="x", name="toy")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    pictures = open_pictures(str(write_pictures(folder / "pictures", 6)))
    build_memory_bank(pictures, folder / "bank", make_parts=make_parts, shard_size=4)
    return folder / "bank"


def test_a_bank_on_disk_is_opened_without_being_read(built):
    bank = MemoryBank.load(built)

    assert len(bank) == 24 and isinstance(bank.keys, np.memmap) and bank.keys.dtype == np.float16
    assert bank.features == "toy/colours" and bank.encoders == ("toy/one", "two")
    assert bank.values("toy/one").shape == (24, 6) and bank.values("two").shape == (24, 4)
    lengths = np.linalg.norm(bank.values("toy/one").astype(float), axis=1)
    assert np.allclose(lengths, 1, atol=1e-3)
    assert bank.name.startswith("bank@") and bank.name.endswith("/exact")
    found = bank.search(unit_rows(bank.keys), 20)
    assert found.shape == (24, 20) and found[:, 0].tolist() == list(range(24))


def test_a_bank_is_opened_by_the_config(built):
    opts = ["MODEL.CORRCLIP.BANK.PATH", str(built)]
    assert build_bank(load_cfg("corrclip_vitB", opts)) is None

    bank = build_bank(load_cfg("corrclip_vitB", [*opts, "MODEL.CORRCLIP.BANK.ENABLED", True]))

    assert bank is not None and len(bank) == 24


def test_what_the_model_averages_are_rows_of_the_bank(built):
    from ovseg.projects.corrclip.retrieval import retrieve

    bank = MemoryBank.load(built)
    queries = torch.from_numpy(np.asarray(bank.keys[:3], np.float32))

    (one,) = retrieve(bank, queries, [""], 1)

    assert np.allclose(one.numpy(), bank.values("toy/one")[:3], atol=2e-3)


def test_no_bank_and_an_unfinished_one_are_told_apart(built, tmp_path):
    with pytest.raises(BankError, match=r"got none; start a run of tools/build_memory_bank\.py"):
        MemoryBank.load(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BankError, match="one that is not finished; start the same run"):
        MemoryBank.load(tmp_path)


def test_arrays_that_were_changed_are_noticed(built, tmp_path):
    import shutil

    copy = tmp_path / "bank"
    shutil.copytree(built, copy)
    np.save(copy / "values" / "two.npy", np.zeros((23, 4), np.float16))
    with pytest.raises(BankError, match=r"two\.npy: expected 24 rows .* \(23, 4\)"):
        MemoryBank.load(copy)
    (copy / "keys" / "toy_colours.npy").write_bytes(b"junk")
    with pytest.raises(BankError, match=r"toy_colours\.npy: expected an array"):
        MemoryBank.load(copy)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("a\t0\t2\nb\t3\t1\n", r"line 2: expected rows from 2 on, got 1 from 3 on"),
        ("a\t0\n", r"line 1: expected stem, start_id and n"),
        ("stem\tstart_id\tn\na\t0\t0\n", r"line 2: expected rows from 0 on, got 0"),
    ],
)
def test_a_list_of_pictures_without_gaps_is_expected(tmp_path, lines, message):
    (tmp_path / "images.tsv").write_text(lines)

    with pytest.raises(BankError, match=message):
        list(read_images(tmp_path / "images.tsv"))


# -- published banks --------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path):
    for name in ("manifests", "clip_embeddings", "vfm_embeddings"):
        (tmp_path / "theirs" / name).mkdir(parents=True)
    folder = tmp_path / "theirs"
    (folder / "manifests" / "coco.images.tsv").write_text("a\t0\t3\nb\t3\t4\n")
    lines = "".join(f"{stem}#{n}\n" for stem, count in (("a", 3), ("b", 4)) for n in range(count))
    (folder / "manifests" / "coco.manifest.txt").write_text(lines)
    keys = torch.from_numpy(vectors(7, 16)).half()
    torch.save(keys, folder / "vfm_embeddings" / "coco_radiov3.pt")
    for encoder, size in (("metaclip_b", 6), ("dfnclip_b", 5)):
        values = torch.from_numpy(vectors(7, size)).half()
        torch.save(values, folder / "clip_embeddings" / f"coco_{encoder}.pt")
    return folder


def test_a_published_bank_becomes_one_of_ours(published, tmp_path):
    encoders = import_bank(published, "coco", "radiov3", tmp_path / "ours")

    bank = MemoryBank.load(tmp_path / "ours")
    assert encoders == list(bank.encoders) == ["dfnclip_b", "metaclip_b"]
    assert bank.features == "radiov3" and len(bank) == 7
    assert np.array_equal(bank.keys, vectors(7, 16).astype(np.float16))
    assert np.allclose(bank.values("metaclip_b"), unit_rows(vectors(7, 6)), atol=2e-3)
    assert list(read_images(tmp_path / "ours" / "images.tsv")) == [("a", 0, 3), ("b", 3, 4)]
    assert (tmp_path / "ours" / "regions.txt").read_text().splitlines()[3] == "b#0"
    with pytest.raises(BankError, match="expected a new folder"):
        import_bank(published, "coco", "radiov3", tmp_path / "ours")


def test_published_files_that_do_not_fit_are_refused(published, tmp_path):
    with pytest.raises(BankError, match=r"clip_embeddings/voc_ENCODER\.pt, found none"):
        import_bank(published, "voc", "radiov3", tmp_path / "ours")
    with pytest.raises(BankError, match=r"vfm_embeddings/coco_dinov3\.pt, not found"):
        import_bank(published, "coco", "dinov3", tmp_path / "ours")
    torch.save(torch.zeros(6, 4), published / "vfm_embeddings" / "coco_radiov3.pt")
    with pytest.raises(BankError, match=r"expected 7 rows, .* got \(6, 4\)"):
        import_bank(published, "coco", "radiov3", tmp_path / "ours")
    assert not (tmp_path / "ours" / "_SUCCESS").exists()


class Harmful:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_published_files_run_nothing(published, tmp_path):
    torch.save(Harmful(), published / "vfm_embeddings" / "coco_radiov3.pt")

    with pytest.raises(BankError, match="a tensor that can be read safely"):
        import_bank(published, "coco", "radiov3", tmp_path / "ours")
