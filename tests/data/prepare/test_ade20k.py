from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovseg.data.prepare.ade20k import ade20k_full_ids, ade20k_full_labels, ade20k_labels, read_index
from ovseg.data.prepare.pipeline import PreparationError
from ovseg.readers.pictures import read_image, read_label
from ovseg.utils.images import write_png
from ovseg.utils.masks import decode_rle
from tests.data.prepare.raw_trees import is_sound, prepare, write_picture

OBJECTS = 3688
# Object id, its red (any of ten) and green, class of A-847: wall, building, car, adding machine;
# an object outside the classes; none.
COLOURS = [
    (2978, (110, 162), 0),
    (312, (19, 56), 1),
    (401, (14, 145), 14),
    (3148, (127, 76), 846),
    (1, (0, 1), 65535),
    (0, (0, 0), 65535),
]
# One picture is larger than 512 on its shorter side: 530 x 795 becomes 512 x 768.
SIZES = {
    "00000001": (37, 53),
    "00000002": (530, 795),
    "00000003": (24, 25),
    "00000004": (33, 28),
}
IGNORED = "00000003"
SCENE = "ADE20K_2021_17_01/images/ADE/validation/urban/street"


@pytest.fixture
def ade(tmp_path) -> Path:
    """Labels 0-150 in rows of 151 columns; number 3 is all unlabelled."""
    base = tmp_path / "ADEChallengeData2016"
    for number, size in (("00000001", (7, 151)), ("00000002", (33, 151)), (IGNORED, (21, 35))):
        write_picture(base / "images" / "validation" / f"ADE_val_{number}.jpg", size)
        labels = np.tile(np.arange(size[1], dtype=np.uint8), (size[0], 1))
        labels = labels * (number != IGNORED)
        write_png(base / "annotations" / "validation" / f"ADE_val_{number}.png", labels)
    return tmp_path


def colour_stripes(size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Columns of the colours, the last one taking the rest; and their labels."""
    colours = np.zeros((*size, 3), np.uint8)
    labels = np.full(size, 65535)
    width = max(2, size[1] // 10)
    for column, (_, (red, green), index) in enumerate(COLOURS):
        where = slice(width * column, width * (column + 1))
        colours[:, where, :2] = red, green
        colours[:, where, 2] = 40 * column  # the instance
        labels[:, where] = index
    return colours, labels


def index_of(names: list[str]) -> dict[str, Any]:
    """What the release of 2021 holds, with fewer pictures."""
    presence = np.zeros((OBJECTS, len(names)), np.int64)
    return {
        "description": {"filename": "array of file names"},
        "filename": names,
        "folder": [SCENE if "_val_" in name else SCENE + "/other" for name in names],
        "scene": ["/urban/street"] * len(names),
        "objectnames": [f"object {number}" for number in range(OBJECTS)],
        "objectPresence": presence,
        "objectIsPart": presence.astype(np.float32),
        "proportionClassIsPart": np.zeros(OBJECTS),
        "objectcounts": [np.int64(3)] * 2,
        "wordnet_found": np.zeros(OBJECTS, bool),
    }


@pytest.fixture
def ade_full(tmp_path) -> Path:
    base = tmp_path / "ADE20K_2021_17_01"
    for number, size in SIZES.items():
        write_picture(tmp_path / SCENE / f"ADE_val_{number}.jpg", size)
        colours = colour_stripes(size)[0] if number != IGNORED else np.zeros((*size, 3), np.uint8)
        write_png(tmp_path / SCENE / f"ADE_val_{number}_seg.png", colours)
    names = ["ADE_train_00000009.jpg", *(f"ADE_val_{number}.jpg" for number in SIZES)]
    names.append("ADE_frame_00000005.jpg")
    (base / "index_ade20k.pkl").write_bytes(pickle.dumps(index_of(names), protocol=4))
    return tmp_path


def test_labels_of_the_challenge_lose_one() -> None:
    made = ade20k_labels(np.array([[0, 1, 2, 150]]))
    assert made.tolist() == [[255, 0, 1, 149]] and made.dtype == np.uint8
    with pytest.raises(ValueError, match=r"labels in 0-150, got 151 in 1 pixels"):
        ade20k_labels(np.array([[0, 151]]))


def test_ade20k_is_prepared_and_evaluated(ade, evaluate_tiny) -> None:
    assert prepare("ade20k", ade, "--split", "val") == 0
    made = ade / "ADEChallengeData2016" / "annotations_detectron2" / "validation"
    assert len(list(made.glob("[!.]*"))) == 3
    assert (read_label(made / "ADE_val_00000002.png") == [255, *range(150)]).all()
    assert (read_label(made / f"ADE_val_{IGNORED}.png") == 255).all()
    assert is_sound("ade20k_sem_seg_val", ade)
    metrics = evaluate_tiny(ade, "ade20k_sem_seg_val")
    assert 0 <= metrics["ade20k_sem_seg_val"]["mIoU"] <= 100


def test_colours_are_read_as_object_ids() -> None:
    ids, colours, classes = zip(*COLOURS, strict=True)
    pixels = np.array([[(red, green, 99) for red, green in colours]], np.uint8)
    assert ade20k_full_ids(pixels).tolist() == [list(ids)]
    made = ade20k_full_labels(np.array([ids]), objects=OBJECTS)
    assert made.tolist() == [list(classes)] and made.dtype == np.uint16
    every = ade20k_full_labels(np.arange(OBJECTS + 1)[None], objects=OBJECTS)[0]
    assert sorted(every[every != 65535]) == list(range(847))
    with pytest.raises(ValueError, match="got 3689 in 1 pixels"):
        ade20k_full_labels(np.array([[OBJECTS + 1]]), objects=OBJECTS)


def test_ade20k_full_is_prepared_and_evaluated(tmp_path, ade_full, evaluate_tiny) -> None:
    assert prepare("ade20k_full", ade_full) == 0
    base = ade_full / "ADE20K_2021_17_01"
    labels = base / "annotations_detectron2" / "validation"
    images = base / "images_detectron2" / "validation"
    assert sorted(path.name for path in labels.glob("[!.]*")) == [f"ADE_val_{n}.tif" for n in SIZES]
    with Image.open(labels / "ADE_val_00000001.tif") as image:
        assert image.mode == "I;16"
    truth = {f"ADE_val_{number}": colour_stripes(size)[1] for number, size in SIZES.items()}
    truth[f"ADE_val_{IGNORED}"][:] = 65535
    assert (read_label(labels / "ADE_val_00000001.tif") == truth["ADE_val_00000001"]).all()
    assert (read_label(labels / f"ADE_val_{IGNORED}.tif") == 65535).all()
    large = read_label(labels / "ADE_val_00000002.tif")
    assert large.shape == (512, 768) == read_image(images / "ADE_val_00000002.jpg").shape[:2]
    # The nearest pixel of the original: column x of the result is column floor(x * 795 / 768).
    columns = np.arange(768) * 795 // 768
    assert (large == truth["ADE_val_00000002"][:1, columns]).all()
    assert read_image(images / "ADE_val_00000001.jpg").shape[:2] == (37, 53)

    (labels / "ADE_val_00000002.tif").unlink()  # to evaluate small pictures only
    (images / "ADE_val_00000002.jpg").unlink()
    name = "ade20k_full_sem_seg_val"
    assert is_sound(name, ade_full)
    metrics = evaluate_tiny(ade_full, name)[name]
    right = pixels = 0
    output = tmp_path / "output" / "inference" / name / "sem_seg_predictions.json"
    for entry in json.loads(output.read_text()):
        stem = Path(entry["file_name"]).stem
        right += (
            decode_rle(entry["segmentation"])
            & (read_label(labels / f"{stem}.tif") == entry["category_id"])
        ).sum()
    for file in labels.glob("[!.]*"):
        pixels += (read_label(file) != 65535).sum()
    assert metrics["pACC"] == pytest.approx(100 * right / pixels)


@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_the_index_is_read_in_every_form_of_pickle(tmp_path, protocol: int) -> None:
    file = tmp_path / "index_ade20k.pkl"
    file.write_bytes(pickle.dumps(index_of(["ADE_val_1.jpg"]), protocol=protocol))
    index = read_index(file)
    assert (index["filename"], index["folder"]) == (["ADE_val_1.jpg"], [SCENE])
    assert len(index["objectnames"]) == OBJECTS


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made by a pickle",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda index: {**index, "scene": Harmful()}, r"asks for posix\.mkdir"),
        (lambda index: {**index, "scene": Path("x")}, r"asks for pathlib"),
        (lambda index: {**index, "scene": range(3)}, r"asks for builtins\.range"),
        (lambda index: [index], "expected a dictionary with a list of names under 'folder'"),
        (lambda index: {**index, "objectnames": 3}, "names under 'objectnames'"),
        (lambda index: {**index, "folder": []}, "names under 'folder'"),
        (lambda index: {**index, "folder": ["a", "b"]}, "as many folders as file names, got 2"),
        (lambda index: {**index, "folder": ["../.."]}, "inside the folder of all datasets"),
        (lambda index: {**index, "filename": ["/etc/ADE_val_1.jpg"]}, "inside the folder of all"),
    ],
)
def test_another_index_is_refused(tmp_path, monkeypatch, content, message) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "index_ade20k.pkl"
    file.write_bytes(pickle.dumps(content(index_of(["ADE_val_1.jpg"]))))
    with pytest.raises(PreparationError, match=message):
        read_index(file)
    assert [path.name for path in tmp_path.iterdir()] == ["index_ade20k.pkl"]


def test_a_damaged_or_missing_index_is_told(tmp_path, ade_full, caplog) -> None:
    file = ade_full / "ADE20K_2021_17_01" / "index_ade20k.pkl"
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not a pickle", b"\x80\x04K"):
        file.write_bytes(content)
        assert prepare("ade20k_full", ade_full) == 1
        assert f"cannot read {file}" in caplog.records[-1].message
    file.unlink()
    assert prepare("ade20k_full", ade_full) == 1
    assert "No such file" in caplog.text and "https://ade20k.csail.mit.edu" in caplog.text
    assert not (ade_full / "ADE20K_2021_17_01" / "annotations_detectron2").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda jpg, seg: write_png(seg, np.full((37, 53, 3), 250, np.uint8)), "got 6650 in 1961"),
        (lambda jpg, seg: write_png(seg, np.zeros((37, 53), np.uint8)), "expected 8-bit RGB, got"),
        (lambda jpg, seg: write_png(seg, np.zeros((53, 37, 3), np.uint8)), "got (53, 37)"),
        (lambda jpg, seg: seg.write_bytes(seg.read_bytes()[:60]), "_seg.png: "),
        (lambda jpg, seg: jpg.write_bytes(jpg.read_bytes()[:-900]), "truncated"),
        (lambda jpg, seg: seg.unlink(), "_seg.png: no such file"),
    ],
)
def test_bad_files_of_the_full_set_are_set_aside(ade_full, caplog, damage, reason) -> None:
    stem = ade_full / SCENE / "ADE_val_00000001"
    damage(stem.with_suffix(".jpg"), stem.with_name("ADE_val_00000001_seg.png"))
    assert prepare("ade20k_full", ade_full) == 1
    assert reason in caplog.text
    base = ade_full / "ADE20K_2021_17_01"
    for folder in ("annotations_detectron2", "images_detectron2"):
        assert len(list((base / folder / "validation").glob("[!.]*"))) == 3
    record = json.loads((base / "annotations_detectron2" / "prepare_validation.json").read_text())
    assert [Path(entry["file"]).name for entry in record["set_aside"]] == [
        "ADE_val_00000001_seg.png"
    ]


def test_missing_annotation_is_told_with_its_archive(tmp_path, caplog) -> None:
    assert prepare("ade20k", tmp_path) == 1
    assert "annotations/training, which is not there" in caplog.text
    assert prepare("ade20k_full", tmp_path) == 1
    assert "ADE20K_2021_17_01, which is not there" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_by_the_script(ade, caplog, monkeypatch) -> None:
    def write_bytes(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    assert prepare("ade20k", ade, "--split", "val") == 1
    assert "No space left on device\nmake room there" in caplog.text
    made = ade / "ADEChallengeData2016" / "annotations_detectron2" / "validation"
    assert list(made.glob("[!.]*")) == []
