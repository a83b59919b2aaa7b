from __future__ import annotations

import numpy as np
import pytest
import torch

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import register_sem_seg
from ovseg.data.label_pairs import JoinedPairDataset, LabelPairDataset
from ovseg.data.labelled import LabelledPictures, class_words, find_regions
from ovseg.data.pairs import ArrayPairDataset, crop_region
from ovseg.data.sampling import SampleKey
from ovseg.utils.images import write_png

SIZE = (16, 16)
CLASSES = ["void", "tree, oak", "sky-other", "wall-brick"]


def labels(seed: int) -> np.ndarray:
    """Sky above a tree; the right edge is ignored, the left void, and one pixel is a wall."""
    found = np.full((24, 30), 255, np.uint8)
    found[:, :4], found[:10, 4:20], found[10 + seed :, 4:20], found[0, 4] = 0, 2, 1, 3
    return found


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (24, 30, 3)).astype(np.uint8)


@pytest.fixture
def dataset(tmp_path):
    for index in range(3):
        write_png(tmp_path / f"images/{index}.png", picture(index))
        write_png(tmp_path / f"labels/{index}.png", labels(index))
    names = []

    def register(name="labelled_train", **metadata):
        folders = {"images": tmp_path / "images", "labels": tmp_path / "labels"}
        register_sem_seg(name, **folders, stuff_classes=CLASSES, image_suffix="png", **metadata)
        names.append(name)
        return name

    yield register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def in_memory(count: int = 3, **options) -> LabelPairDataset:
    pictures = [(picture(index), labels(index)) for index in range(count)]
    regions = find_regions([found for _, found in pictures], [1, 2])
    nouns = {1: "tree", 2: "sky"}
    return LabelPairDataset(pictures, regions, nouns=nouns, image_size=SIZE, **options)


def test_regions_are_those_of_the_classes_asked_for_and_large_enough():
    found = find_regions([labels(0), labels(1)], [1, 2, 3])

    assert found.tolist() == [[0, 1], [0, 2], [1, 1], [1, 2]]  # neither 255 nor 0; 3 is one pixel
    assert find_regions([labels(0)], [1, 2, 3], min_pixels=1).tolist() == [[0, 1], [0, 2], [0, 3]]
    assert find_regions([], [1]).shape == (0, 2)


def test_pictures_are_read_with_the_nouns_of_what_is_labelled(dataset):
    pictures = LabelledPictures(dataset(background_class=0), limit=2)

    assert len(pictures) == 2
    assert pictures.ids == ["0", "1"]
    assert pictures.words == {1: ("tree", "oak"), 2: ("sky",), 3: ("wall-brick",)}
    image, found = pictures[1]
    assert np.array_equal(image, picture(1))
    assert np.array_equal(found, labels(1))


def test_a_label_map_is_read_once_for_all_runs(dataset, tmp_path, monkeypatch):
    pictures = LabelledPictures(dataset())
    file = tmp_path / "run" / "index.npz"
    first = pictures.regions(index_file=file, workers=2)
    assert first[first[:, 1] > 0].tolist() == [[n, c] for n in range(3) for c in (1, 2)]

    def refuse(index):
        raise AssertionError("a label map was read again")

    monkeypatch.setattr(pictures, "labels", refuse)
    assert np.array_equal(pictures.regions(index_file=file), first)
    with pytest.raises(AssertionError):
        pictures.regions(index_file=file, min_pixels=5)
    file.write_bytes(b"cut off")
    with pytest.raises(AssertionError):
        pictures.regions(index_file=file)


def test_what_results_are_measured_on_gives_no_pairs(dataset):
    with pytest.raises(ValueError, match=r"labelled_val is a validation split, .* training split"):
        LabelledPictures(dataset("labelled_val", split="validation"))
    with pytest.raises(ValueError, match=r"registered dataset with label maps, .* got 'nowhere'"):
        LabelledPictures("nowhere")


def test_words_of_a_class_lose_the_marks_of_their_lists():
    assert class_words(["sky-other"]) == ("sky",)
    assert class_words(["door-stuff", "gate"]) == ("door", "gate")
    assert class_words(["road, route", "road"]) == ("road", "route")
    assert class_words(["wall-brick"]) == ("wall-brick",)


def test_a_pair_is_the_region_of_a_class_with_its_noun():
    pairs = in_memory(template="one {}.")

    assert (len(pairs), pairs.texts[1], pairs.nouns[2]) == (6, "one sky.", "tree")
    image, mask = pairs.region(3)
    expected = crop_region(picture(1), labels(1) == 2)
    assert np.array_equal(image, expected[0])
    assert np.array_equal(mask, expected[1])


def test_damage_is_drawn_anew_for_each_sample_from_seed_and_position():
    def masks(pairs, positions=range(12)):
        return [pairs[SampleKey(position, 0)]["mask"] for position in positions]

    once, again, other = (masks(in_memory(damage=1.0, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(once, other, strict=True))
    assert len({mask.numpy().tobytes() for mask in once}) > 6
    plain = masks(in_memory(damage=0.0, min_scale=1.0))
    assert all(torch.equal(mask, in_memory()[0]["mask"]) for mask in plain)
    half = masks(in_memory(damage=0.5, min_scale=1.0), range(100))
    damaged = sum(not torch.equal(mask, plain[0]) for mask in half)
    assert 20 < damaged < 60  # some damage does not show in 16 x 16 pixels
    assert in_memory(damage=1.0)[0]["mask"].equal(plain[0])  # measured as it is


def test_a_damaged_mask_is_cut_out_at_its_own_box():
    pairs = in_memory(damage=1.0)
    sizes = {pairs.training_region(0, np.random.default_rng(seed))[1].shape for seed in range(20)}

    assert len(sizes) > 3
    for seed in range(20):
        image, mask = pairs.training_region(0, np.random.default_rng(seed))
        assert image.shape[:2] == mask.shape
        assert mask[0].any() and mask[-1].any() and mask[:, 0].any() and mask[:, -1].any()


def others(count: int = 2) -> ArrayPairDataset:
    regions = [(picture(index), np.ones((24, 30), bool)) for index in range(count)]
    texts = [f"a photo of a moon {index}." for index in range(count)]
    return ArrayPairDataset(regions, texts=texts, nouns=["moon"] * count, image_size=SIZE, seed=3)


def test_joined_pairs_are_those_of_their_parts_with_their_own_changes():
    first, second = in_memory(damage=1.0, seed=5), others()
    joined = JoinedPairDataset([first, second])

    assert len(joined) == 8
    assert joined.nouns[-3:] == ["sky", "moon", "moon"]
    assert joined.texts[6:] == list(second.texts)
    for key, part, own in ((4, first, 4), (7, second, 1)):
        assert torch.equal(joined[key]["image"], part[own]["image"])
        sample, expected = joined[SampleKey(11, key)], part[SampleKey(11, own)]
        assert torch.equal(sample["image"], expected["image"])
        assert sample["text"] == expected["text"] == joined.texts[key]
        assert np.array_equal(joined.region(key)[0], part.region(own)[0])


@pytest.mark.parametrize(("share", "lengths"), [(0.5, (6, 6)), (0.75, (6, 2)), (0.25, (6, 18))])
def test_shares_repeat_the_side_that_is_short_and_cut_none(share, lengths):
    joined = JoinedPairDataset([in_memory(), others()], shares=(share, 1 - share))

    assert len(joined) == sum(lengths)
    assert [noun == "moon" for noun in joined.nouns] == [False] * lengths[0] + [True] * lengths[1]
    assert {joined[i]["text"] for i in range(6, len(joined))} == set(others().texts)
    assert all(joined[i]["text"] == joined.texts[i] for i in range(len(joined)))


def test_parts_that_do_not_fit_together_are_refused():
    with pytest.raises(ValueError, match=r"parts with pairs, got parts of \[6, 0\] pairs"):
        JoinedPairDataset([in_memory(), others(0)])
    with pytest.raises(ValueError, match="2 positive shares, got"):
        JoinedPairDataset([in_memory(), others()], shares=(1.0,))
    small = ArrayPairDataset([(picture(0), labels(0) == 1)], texts=["x"], image_size=(8, 8))
    with pytest.raises(ValueError, match="one image size"):
        JoinedPairDataset([in_memory(), small])
