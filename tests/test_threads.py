"""Calls from several threads at once answer as calls one after the other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import ovseg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import BENCHMARKS, register_builtin
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.readers.limits import limited, limits
from ovseg.readers.pictures import ImageError, decode_image
from ovseg.tinyscapes import render_scene
from ovseg.tinyscapes.garden import write_garden
from ovseg.vocab import TextBank, Vocabulary
from ovseg.vocab.class_files import read_class_file

THREADS = 4


def at_once(work, items):
    """Results of `work`, begun by four threads at the same moment."""
    ready = threading.Barrier(min(THREADS, len(items)))

    def start(item):
        if item in items[:THREADS]:
            ready.wait()
        return work(item)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(start, items))


def test_pictures_and_words_of_four_threads_do_not_mix():
    model = ovseg.load("ovseg_tiny", device="cpu")
    words = [["sky", "grass", "road"], ["water", "tree"], ["sky", "sand", "house", "car"], ["cat"]]
    jobs = list(range(8))

    def ask(number):
        scene = render_scene("val", number).image[: 96 + 8 * number, : 160 - 8 * number]
        picture = model.set_image(scene) if number % 2 else None
        names = [*words[number % 4], f"thing {number}"]
        found = picture.segment(names) if picture else model.segment(scene, names)
        return found.labels, found.scores, torch.is_grad_enabled()

    together = at_once(ask, jobs)
    model.model.clip_adapter.text_bank.clear()
    for found, alone in zip(together, map(ask, jobs), strict=True):
        np.testing.assert_array_equal(found[0], alone[0])
        np.testing.assert_array_equal(found[1], alone[1])
        assert found[2]


def test_random_weights_are_the_same_in_every_thread():
    first, *others = at_once(lambda _: ovseg.load("random", config="ovseg_tiny"), [0, 1])
    state = first.model.state_dict()
    for other in others:
        assert all(
            torch.equal(state[name], value) for name, value in other.model.state_dict().items()
        )


def test_a_text_bank_that_forgets_answers_every_thread():
    def encode(texts):
        return torch.tensor([[float(len(text)), sum(map(ord, text)), 1.0] for text in texts])

    def ask(number):
        names = [f"name {(number * 7 + k) % 40}" for k in range(6)]
        return bank.features(Vocabulary.make(names, templates=["{}"]))

    bank = TextBank(encode, max_rows=8)
    jobs = list(range(400))
    together = at_once(ask, jobs)
    assert all(
        torch.equal(found, alone) for found, alone in zip(together, map(ask, jobs), strict=True)
    )
    assert len(bank) <= 8


@pytest.mark.usefixtures("restored_catalogues")
def test_datasets_are_registered_once_by_any_number_of_threads(tmp_path):
    file = str(write_garden(tmp_path / "garden", train=1, val=1) / "val.yaml")
    for folders in BENCHMARKS:
        for catalogue in (DatasetCatalog, MetadataCatalog):
            catalogue.data.pop(folders.name, None)

    def register(number):
        register_builtin(tmp_path)
        name = resolve_dataset(file)
        return name, len(DatasetCatalog.get(name)), MetadataCatalog.get(name).stuff_classes[0]

    assert set(at_once(register, list(range(8)))) == {("garden_val", 1, "sky")}
    assert all(MetadataCatalog.get(b.name).get("stuff_classes") for b in BENCHMARKS)


def test_limits_and_readers_are_each_threads_own(tmp_path):
    (tmp_path / "names.txt").write_text("sky\nsea\n")
    png = b"\x89PNG\r\n\x1a\n" + bytes(8)

    def read(number):
        with limited(picture_pixels=number + 1, document_bytes=number + 5):
            for _ in range(20):
                assert limits().picture_pixels == number + 1
                with pytest.raises(ImageError):
                    decode_image(png, "x")
                if number > 2:
                    assert read_class_file(tmp_path / "names.txt") == ["sky", "sea"]
                else:
                    with pytest.raises(ValueError, match="at most"):
                        read_class_file(tmp_path / "names.txt")
        return limits() == usual

    usual = limits()
    assert all(at_once(read, list(range(8))))
