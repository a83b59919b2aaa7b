from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from ovseg.data.pair_files import (
    KEY_COLOUR,
    FolderPairDataset,
    TarPairDataset,
    TsvPairDataset,
)
from ovseg.data.pairs import (
    ArrayPairDataset,
    RecordPairDataset,
    crop_region,
    draw_window,
    region_tensors,
)
from ovseg.data.sampling import SampleKey
from ovseg.modeling.region_classifier import RegionClassifier
from ovseg.readers.pictures import ImageError
from ovseg.utils.images import write_png
from ovseg.utils.masks import encode_rle
from tests.clip.tiny import make_clip

SIZE = (32, 32)


def picture(seed: int = 0, size: tuple[int, int] = (40, 50)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)


def ellipse(size: tuple[int, int] = (40, 50)) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    return ((rows - 15) / 9) ** 2 + ((columns - 30) / 14) ** 2 < 1


@pytest.mark.parametrize("ratio", [1.0, 1.4])
def test_a_region_is_exactly_what_segmentation_shows_to_clip(ratio: float) -> None:
    image, mask = picture(), ellipse()
    classifier = RegionClassifier(clip_model=make_clip(2), expand_ratio=ratio)
    masks = torch.from_numpy(mask)[None].float()
    _, boxes = classifier.locate(masks)
    pixels = torch.from_numpy(image).permute(2, 0, 1).float()
    normalised = (pixels - classifier.pixel_mean[0]) / classifier.pixel_std[0]
    expected_region, expected_mask = classifier.crop_regions(normalised, list(masks), boxes)

    crop, inside = crop_region(image, mask, expand_ratio=ratio)
    region, prompt = region_tensors(crop, inside, SIZE)
    assert torch.equal(region, expected_region[0])
    assert torch.equal(prompt, expected_mask[0])
    dataset = ArrayPairDataset([(crop, inside)], texts=["a dog."], image_size=SIZE)
    assert torch.equal(dataset[0]["image"], region)
    assert torch.equal(dataset[0]["mask"], prompt)
    assert (dataset[0]["text"], dataset[0]["noun"]) == ("a dog.", "a dog.")


def test_statistics_are_those_of_clip() -> None:
    grey = np.full((8, 8, 3), 200, np.uint8)
    region, _ = region_tensors(grey, np.ones((8, 8), bool), (4, 4))
    expected = (200 - torch.tensor(CLIP_PIXEL_MEAN)) / torch.tensor(CLIP_PIXEL_STD)
    assert torch.allclose(region, expected[:, None, None].expand(3, 4, 4), atol=1e-5)


def test_image_and_mask_are_cropped_alike_and_depend_on_seed_and_position_alone() -> None:
    # The picture is the mask: red inside, black outside.
    mask = np.zeros((64, 64), bool)
    mask[:, :20] = mask[:9] = True
    image = np.zeros((64, 64, 3), np.uint8)
    image[mask] = (255, 0, 0)

    def dataset(seed: int) -> ArrayPairDataset:
        return ArrayPairDataset([(image, mask)], texts=["x"], image_size=SIZE, seed=seed)

    whole = dataset(1)[0]
    keys = [SampleKey(position, 0) for position in range(20)]
    items = [dataset(1)[key] for key in keys]
    windows = {tuple(item["mask"].sum((0, 1)).tolist()) for item in items}
    assert len(windows) >= 5
    high = (255 - CLIP_PIXEL_MEAN[0]) / CLIP_PIXEL_STD[0]
    for key, item in zip(keys, items, strict=True):
        red = item["image"][0] > high / 2
        # Bicubic and nearest differ along the mask's edge only: by one line each way.
        assert (red != item["mask"][0].bool()).float().mean() < 0.06
        assert torch.equal(dataset(1)[key]["image"], item["image"])
    assert any(not torch.equal(dataset(2)[k]["image"], dataset(1)[k]["image"]) for k in keys)
    assert torch.equal(dataset(1)[0]["image"], whole["image"])


def test_a_window_keeps_its_share_and_shape_or_everything() -> None:
    rng = np.random.default_rng(0)
    windows = np.array([draw_window(rng, 0.9) for _ in range(400)])
    height, width = (windows[:, 2:] - windows[:, :2]).T
    area = height * width
    assert (windows >= 0).all()
    assert (windows <= 1 + 1e-12).all()
    assert area.min() >= 0.9 - 1e-9
    ratio = width / height
    assert ratio.min() >= 3 / 4 - 1e-9
    assert ratio.max() <= 4 / 3 + 1e-9
    assert 0.02 < (area == 1).mean() < 0.4  # ten draws that do not fit
    assert area.std() > 0.01


def test_a_long_region_keeps_its_ends() -> None:
    mask = np.ones((4, 80), bool)
    image = np.zeros((4, 80, 3), np.uint8)
    image[:, :8] = image[:, -8:] = 255
    dataset = ArrayPairDataset([(image, mask)], texts=["x"], image_size=SIZE)
    for position in range(10):
        row = dataset[SampleKey(position, 0)]["image"].mean((0, 1))
        assert row.argmax() < 4 or row.argmax() > 27
        assert row[[0, 1, -1, -2]].max() > 1


def test_a_window_that_would_lose_the_mask_is_passed_over() -> None:
    mask = np.zeros((10, 10), bool)
    mask[9, 9] = mask[0, 0] = True
    image = picture(size=(10, 10))
    _, prompt = region_tensors(image, mask, (10, 10), (0.2, 0.2, 0.8, 0.8))
    assert prompt.sum() == 2


def test_masks_that_cannot_be_cut_out_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        crop_region(picture(), np.zeros((40, 50), bool))
    with pytest.raises(ValueError, match=r"size \(40, 50\), got \(4, 5\)"):
        crop_region(picture(), np.ones((4, 5), bool))


def records(uris: list[str], mask: np.ndarray) -> pa.Table:
    count = len(uris)
    return pa.table(
        {
            "image_uri": uris,
            "height": [mask.shape[0]] * count,
            "width": [mask.shape[1]] * count,
            "noun": [f"noun {index % 2}" for index in range(count)],
            "rle_counts": [encode_rle(mask)["counts"]] * count,
        }
    )


def test_records_are_cut_out_of_their_pictures(tmp_path) -> None:
    for index in range(2):
        write_png(tmp_path / "images" / f"{index}.png", picture(index))
    table = records(["0.png", "0.png", "1.png"], ellipse())
    (tmp_path / "run" / "shards").mkdir(parents=True)
    pq.write_table(table.slice(0, 2), tmp_path / "run" / "shards" / "part-00000.parquet")
    pq.write_table(table.slice(2), tmp_path / "run" / "shards" / "part-00001.parquet")
    for source in (table, tmp_path / "run"):
        pairs = RecordPairDataset(source, image_size=SIZE, image_root=tmp_path / "images")
        assert len(pairs) == 3
        assert pairs.texts[2] == "a photo of a noun 0."
        assert pairs.nouns[1] == "noun 1"
        expected = crop_region(picture(1), ellipse())
        assert all(np.array_equal(a, b) for a, b in zip(pairs.region(2), expected, strict=True))
        assert not np.array_equal(pairs.region(1)[0], expected[0])
    loaded = ArrayPairDataset.load(pairs)
    key = SampleKey(5, 2)
    assert torch.equal(loaded[key]["image"], pairs[key]["image"])
    assert torch.equal(loaded[key]["mask"], pairs[key]["mask"])
    assert loaded[key]["noun"] == "noun 0"


def test_a_damaged_picture_is_replaced_in_training_and_told_in_evaluation(tmp_path, caplog) -> None:
    write_png(tmp_path / "good.png", picture())
    (tmp_path / "bad.png").write_bytes(b"")
    pairs = RecordPairDataset(
        records(["bad.png", "good.png"], ellipse()), image_size=SIZE, image_root=tmp_path
    )
    assert pairs[SampleKey(0, 0)]["noun"] == "noun 1"
    assert "bad.png" in caplog.text
    with pytest.raises(ImageError, match=r"bad\.png"):
        pairs[0]
    all_bad = RecordPairDataset(
        records(["bad.png"], ellipse()), image_size=SIZE, image_root=tmp_path
    )
    with pytest.raises(ImageError, match="16 pairs in a row cannot be read"):
        all_bad[SampleKey(0, 0)]


def test_records_of_another_kind_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="missing: rle_counts"):
        RecordPairDataset(records(["a"], ellipse()).drop_columns("rle_counts"), image_size=SIZE)
    with pytest.raises(ValueError, match=r"exactly one \{\}"):
        RecordPairDataset(records(["a"], ellipse()), image_size=SIZE, template="a photo")
    with pytest.raises(ValueError, match=r"part-\*\.parquet"):
        RecordPairDataset(tmp_path, image_size=SIZE)


def write_crops(folder, *, keyed: bool = False) -> tuple[np.ndarray, np.ndarray]:
    crop, mask = crop_region(picture(), ellipse())
    stored = crop.copy()
    stored[~mask] = KEY_COLOUR if keyed else 0
    write_png(folder / "images" / "a.png", stored)
    write_png(folder / "masks" / "a.png", mask.astype(np.uint8) * 255)
    return stored, mask


def test_a_table_with_masks_is_read_relative_to_itself(tmp_path) -> None:
    crop, mask = write_crops(tmp_path)
    table = tmp_path / "pairs.tsv"
    table.write_text(
        'title\tfilepath\tmaskpath\tnoun\n"a ""big"" dog."\timages/a.png\tmasks/a.png\tdog\n'
    )
    pairs = TsvPairDataset(table, image_size=SIZE)
    image, inside = pairs.region(0)
    assert np.array_equal(image, crop)
    assert np.array_equal(inside, mask)
    assert (pairs.texts[0], pairs.nouns[0]) == ('a "big" dog.', "dog")


@pytest.mark.parametrize("separator", ["\t", ","])
def test_colour_key_crops_give_their_masks_back(tmp_path, separator: str) -> None:
    _, mask = write_crops(tmp_path, keyed=True)
    table = tmp_path / "pairs.csv"
    table.write_text(f"title{separator}filepath\na dog.{separator}images/a.png\n")
    pairs = TsvPairDataset(table, image_size=SIZE)
    assert np.array_equal(pairs.region(0)[1], mask)
    # Filled with CLIP's mean, not with the key colour, which would be 0.018 in red.
    assert pairs[0]["image"][:, 0, 0].tolist() == [0, 0, 0]
    assert pairs.nouns[0] == "a dog."


def test_tables_that_cannot_be_read_say_how_to_mend_them(tmp_path) -> None:
    table = tmp_path / "pairs.csv"
    table.write_text("title|filepath\na dog.|a.png\n")
    with pytest.raises(ValueError, match=r"by a tab, comma or semicolon, got 'title\|file"):
        TsvPairDataset(table, image_size=SIZE)
    assert TsvPairDataset(table, image_size=SIZE, separator="|").texts == ["a dog."]
    table.write_text("title,filepath\na dog, a cat,a.png\n")
    with pytest.raises(ValueError, match="line 2: expected 2 cells, got 3; quote a text"):
        TsvPairDataset(table, image_size=SIZE)
    table.write_text("title,filepath\n")
    with pytest.raises(ValueError, match="at least one pair"):
        TsvPairDataset(table, image_size=SIZE)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def write_tar(path, folder, *, names=("k1", "k2"), endings=("png", "mask.png", "txt", "json")):
    content = {
        "png": (folder / "images" / "a.png").read_bytes(),
        "mask.png": (folder / "masks" / "a.png").read_bytes(),
        "json": json.dumps({"noun": "dog"}).encode(),
    }
    with tarfile.open(path, "w") as tar:
        for name in names:
            for ending in endings:
                add(tar, f"{name}.{ending}", content.get(ending, f"a dog {name}.".encode()))


def test_tars_are_read_at_any_pair(tmp_path) -> None:
    crop, mask = write_crops(tmp_path)
    write_tar(tmp_path / "00000.tar", tmp_path)
    write_tar(tmp_path / "00001.tar", tmp_path, names=("k3",))
    pairs = TarPairDataset(tmp_path, image_size=SIZE)
    assert list(pairs.texts) == ["a dog k1.", "a dog k2.", "a dog k3."]
    assert set(pairs.nouns) == {"dog"}
    for index in (2, 0):
        image, inside = pairs.region(index)
        assert np.array_equal(image, crop)
        assert np.array_equal(inside, mask)


def test_tars_that_lack_a_file_or_are_compressed_are_refused(tmp_path) -> None:
    write_crops(tmp_path)
    write_tar(tmp_path / "00000.tar", tmp_path, endings=("png", "txt"))
    with pytest.raises(ValueError, match=r"k1: expected .*missing \['mask.png'\]"):
        TarPairDataset(tmp_path, image_size=SIZE)
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as tar:
        add(tar, "a.txt", b"x")
    with pytest.raises(ValueError, match="not compressed"):
        TarPairDataset(tmp_path / "packed.tar", image_size=SIZE)


NAMES = ("wall", "building, edifice", "sky", "swimming pool")


def write_classes(root, folders) -> None:
    for number, folder in enumerate(folders):
        write_png(root / folder / "0.png", np.full((6, 9, 3), 10 * number, np.uint8))


@pytest.mark.parametrize(
    "folders",
    [
        ("wall", "building", "sky", "swimming_pool"),
        ("000", "001", "002", "003"),
        ("0_wall", "1_building", "2_sky", "3_pool"),
        ("1", "2", "3", "4"),
    ],
)
def test_folders_of_classes_are_told_by_name_or_number(tmp_path, folders) -> None:
    write_classes(tmp_path, folders)
    pairs = FolderPairDataset(tmp_path, NAMES, image_size=SIZE)
    found = {noun: int(pairs.region(i)[0][0, 0, 0]) for i, noun in enumerate(pairs.nouns)}
    assert found == {name: 10 * number for number, name in enumerate(NAMES)}


def test_folders_of_other_classes_are_refused(tmp_path) -> None:
    write_classes(tmp_path, ("wall", "zebra"))
    with pytest.raises(ValueError, match=r"not told: \['zebra'\]; is it the class list"):
        FolderPairDataset(tmp_path, NAMES, image_size=SIZE)


def test_the_released_evaluation_takes_the_centre_and_segmentation_squashes(tmp_path) -> None:
    image = np.zeros((20, 60, 3), np.uint8)
    image[:, :20], image[:, 40:] = 255, KEY_COLOUR
    write_png(tmp_path / "wall" / "0.png", image)
    centre = FolderPairDataset(tmp_path, NAMES, image_size=SIZE)[0]
    black = -torch.tensor(CLIP_PIXEL_MEAN) / torch.tensor(CLIP_PIXEL_STD)
    assert torch.allclose(centre["image"][:, 16, 16], black, atol=1e-5)
    assert centre["image"].std((1, 2)).max() < 0.5  # neither the white nor much of the key
    assert centre["mask"].mean() > 0.9
    squashed = FolderPairDataset(tmp_path, NAMES, image_size=SIZE, squash=True)[0]
    assert squashed["mask"].mean() == pytest.approx(2 / 3, abs=0.05)
    assert squashed["image"][0, 16, 2] > 1.5
