"""Superpixels: made, stored, read and cut like the crops of training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ovseg.config import load_cfg
from ovseg.data.mappers import build_train_mapper
from ovseg.projects.segclip import superpixels as module
from ovseg.projects.segclip.make_superpixels import make_superpixels
from ovseg.projects.segclip.mapper import RandomResizedCrop
from ovseg.projects.segclip.superpixels import (
    Felzenszwalb,
    SuperpixelStore,
    shrink,
    superpixels_of_patches,
    write_shard,
)
from ovseg.readers.pictures import ImageError
from ovseg.utils.run_record import AnotherRunError

WHOLE = (0.0, 0.0, 1.0, 1.0)


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Five captioned pictures, the third of them damaged."""
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    folder = tmp_path / "pictures"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for index in range(5):
        pixels = np.full((90, 120, 3), 40 * index, np.uint8)
        pixels[20:60, 30:90] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}\nagain {index}")
    (folder / "2.png").write_bytes((folder / "2.png").read_bytes()[:60])
    return tmp_path


def cfg_of(world, *opts):
    settings = ["DATASETS.TRAIN", "('pictures',)", "MODEL.SEGCLIP.STORED_SHORT_SIDE", 60]
    settings += ["MODEL.SEGCLIP.KL.SUPERPIXELS", str(world / "store"), "MODEL.DEVICE", "cpu"]
    return load_cfg("segclip_tiny", [*settings, *opts])


def content(folder):
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.suffix in (".bin", ".json")}


def test_a_store_holds_a_map_of_every_readable_picture_and_the_reasons_of_the_others(world):
    quarantined = make_superpixels(cfg_of(world), world / "store", shard_size=2)
    assert list(quarantined) == ["2"] and "2.png" in quarantined["2"]
    assert json.loads((world / "store" / "quarantine.json").read_text()) == quarantined
    store = SuperpixelStore(world / "store")
    assert len(store) == 4
    picture = np.array(Image.open(world / "pictures" / "3.png"))
    small = shrink(picture, 60)
    assert small.shape == (60, 80, 3)
    settings = cfg_of(world).MODEL.SEGCLIP.FELZENSZWALB
    wanted = Felzenszwalb(settings.SCALE, settings.SIGMA, settings.MIN_SIZE)(small)
    np.testing.assert_array_equal(store["3"], wanted)
    assert wanted.max() >= 1
    with pytest.raises(ImageError, match=r"image 2: .*has no superpixels of it"):
        store["2"]


def test_a_killed_run_goes_on_and_any_number_of_processes_writes_the_same(world, monkeypatch):
    make_superpixels(cfg_of(world), world / "whole", workers=2, shard_size=2)
    written = []

    def die_after_one(folder, number, maps):
        if written:
            raise KeyboardInterrupt
        written.append(number)
        return write_shard(folder, number, maps)

    monkeypatch.setattr("ovseg.projects.segclip.make_superpixels.write_shard", die_after_one)
    with pytest.raises(KeyboardInterrupt):
        make_superpixels(cfg_of(world), world / "killed", shard_size=2)
    monkeypatch.undo()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(world))
    before = (world / "killed" / "00000.bin").stat().st_mtime_ns
    make_superpixels(cfg_of(world), world / "killed", shard_size=2)
    assert (world / "killed" / "00000.bin").stat().st_mtime_ns == before
    assert content(world / "killed") == content(world / "whole")


def test_a_folder_with_other_superpixels_is_refused(world):
    make_superpixels(cfg_of(world), world / "store")
    with pytest.raises(AnotherRunError, match=r"felzenszwalb\.scale: 100\.0 -> 9\.0"):
        make_superpixels(cfg_of(world, "MODEL.SEGCLIP.FELZENSZWALB.SCALE", 9.0), world / "store")


def test_no_store_is_answered_with_the_command_that_makes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"make_superpixels --config-file CONFIG"):
        SuperpixelStore(tmp_path)


def test_a_missing_library_is_answered_with_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"pip install 'ovseg\[superpixels\]'"):
        Felzenszwalb()(np.zeros((4, 4, 3), np.uint8))


def test_small_pictures_are_not_enlarged_and_large_ones_keep_their_shape():
    image = np.zeros((50, 400, 3), np.uint8)
    assert shrink(image, 60) is image and shrink(image, 0) is image
    assert shrink(np.zeros((120, 90, 3), np.uint8), 60).shape == (80, 60, 3)


def test_patches_take_the_mean_of_ids_as_released_or_the_most_frequent():
    ids = np.zeros((8, 8), np.uint16)
    ids[:, 3:] = 10  # the first patch of 4 x 4 has 12 pixels of 0 and 4 of 10
    patches = superpixels_of_patches(ids, WHOLE, size=8, patch_size=4)
    assert patches.tolist() == [[2, 10], [2, 10]]
    patches = superpixels_of_patches(ids, WHOLE, size=8, patch_size=4, mode="mode")
    assert patches.tolist() == [[0, 10], [0, 10]]
    # Of a part below two pixels the whole map is taken.
    tiny = superpixels_of_patches(ids, (0.5, 0.5, 0.51, 0.51), size=8, patch_size=4)
    assert tiny.tolist() == [[2, 10], [2, 10]]


def test_a_crop_follows_its_generator_and_its_box_finds_the_same_pixels():
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3))
    crop = RandomResizedCrop(50)
    cuts = [crop(ramp, np.random.default_rng(seed)) for seed in range(20)]
    images, boxes = [image for image, _ in cuts], [box for _, box in cuts]
    again, box = crop(ramp, np.random.default_rng(7))
    np.testing.assert_array_equal(images[7], again)
    assert boxes[7] == box and len(set(boxes)) > 10  # the widest crops are as high as the picture
    for image, (left, _, right, _) in zip(images, boxes, strict=True):
        assert image.shape == (50, 50, 3)
        assert abs(int(image[0, 0, 0]) - 199 * left) < 4
        assert abs(int(image[0, -1, 0]) - 199 * right) < 4


def test_a_picture_too_narrow_for_any_crop_gives_its_middle():
    ramp = np.tile(np.arange(100, dtype=np.uint8)[:, None, None], (1, 4, 3))
    image, (left, top, right, bottom) = RandomResizedCrop(8)(ramp, np.random.default_rng(0))
    assert (left, right) == (0.0, 1.0) and bottom - top < 0.1
    assert 40 < image.mean() < 60


def test_a_sample_is_a_crop_with_its_caption_its_superpixels_and_a_seed(world):
    make_superpixels(cfg_of(world), world / "store")
    mapper = build_train_mapper(cfg_of(world))
    assert [r["caption"] for r in mapper.records][:3] == ["picture 0", "again 0", "picture 1"]
    sample = mapper(mapper.records[0], np.random.default_rng(3))
    assert sample["image"].shape == (3, 64, 64) and sample["image"].dtype.itemsize == 1
    assert sample["superpixels"].shape == (8, 8) and sample["caption"] == "picture 0"
    same, other = (mapper(mapper.records[0], np.random.default_rng(s)) for s in (3, 4))
    assert same["noise_seed"] == sample["noise_seed"] != other["noise_seed"]
    with pytest.raises(ImageError, match=r"2\.png"):
        mapper(mapper.records[4], np.random.default_rng(0))


def test_without_the_superpixel_loss_no_store_is_needed(world):
    mapper = build_train_mapper(cfg_of(world, "MODEL.SEGCLIP.KL.ENABLED", "False"))
    assert "superpixels" not in mapper(mapper.records[0], np.random.default_rng(0))
    with pytest.raises(FileNotFoundError):
        build_train_mapper(cfg_of(world))


def test_a_damaged_map_is_an_error_of_its_picture(world):
    make_superpixels(cfg_of(world), world / "store")
    file = module.shard_file(world / "store", 0)
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(ImageError, match=r"image 0: its superpixels .* are damaged"):
        SuperpixelStore(world / "store")["0"]
