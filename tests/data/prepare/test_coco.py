from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ovseg.data.prepare.coco import coco_object_labels, coco_stuff_10k_labels, coco_stuff_labels
from ovseg.readers.pictures import read_label
from ovseg.utils.images import write_png
from ovseg.utils.masks import decode_rle
from tests.data.prepare.raw_trees import is_sound, prepare, script, write_picture

# Raw value (COCO id - 1), class of COCO-Stuff, class of COCO-Object: person, stop sign, toothbrush,
# banner, wood; the unused street sign and hair brush; unlabelled.
VALUES = [
    (0, 0, 1),
    (12, 11, 12),
    (89, 79, 80),
    (91, 80, 0),
    (181, 170, 0),
    (11, 255, 0),
    (90, 255, 0),
    (255, 255, 0),
]
STEMS = ("000000000139", "000000000285", "000000000632", "000000000724")
SIZES = ((37, 53), (41, 29), (24, 24), (33, 51))


def raw_map(index: int, values: list[int]) -> np.ndarray:
    """Vertical stripes of the values, the last one taking the rest; number 2 is all unlabelled."""
    height, width = SIZES[index]
    labels = np.full((height, width), values[-1])
    for column, value in enumerate(values):
        labels[:, 3 * column : 3 * column + 3] = value
    return labels if index != 2 else np.full((height, width), values[-1])


def predictions(output: Path, name: str) -> dict[str, np.ndarray]:
    """Put together the label maps that an evaluation wrote."""
    entries = json.loads((output / "inference" / name / "sem_seg_predictions.json").read_text())
    maps: dict[str, np.ndarray] = {}
    for entry in entries:
        mask = decode_rle(entry["segmentation"]).astype(bool)
        found = maps.setdefault(Path(entry["file_name"]).stem, np.full(mask.shape, -1))
        found[mask] = entry["category_id"]
    return maps


@pytest.fixture
def coco(tmp_path) -> Path:
    for index, stem in enumerate(STEMS):
        write_picture(tmp_path / "coco" / "val2017" / f"{stem}.jpg", SIZES[index])
        raw = raw_map(index, [raw for raw, _, _ in VALUES]).astype(np.uint8)
        write_png(tmp_path / "coco" / "stuffthingmaps" / "val2017" / f"{stem}.png", raw)
    return tmp_path


@pytest.fixture
def coco_10k(tmp_path) -> Path:
    base = tmp_path / "coco" / "coco_stuff_10k"
    (base / "annotations").mkdir(parents=True)
    (base / "imageLists").mkdir()
    stems = [f"COCO_train2014_{stem}" for stem in STEMS]
    for index, stem in enumerate(stems):
        write_picture(base / "images" / f"{stem}.jpg", SIZES[index])
        ids = [0 if raw == 255 else raw + 1 for raw, _, _ in VALUES]
        content = {"S": raw_map(index, ids).astype(np.uint16), "captions": np.array(["a dog"])}
        savemat(base / "annotations" / f"{stem}.mat", content, do_compression=True)
    (base / "imageLists" / "test.txt").write_text("\n".join(stems[1:]) + "\n")
    (base / "imageLists" / "train.txt").write_text(stems[0] + "\n")
    return tmp_path


def test_values_become_the_classes_of_the_published_tables() -> None:
    raw, stuff, objects = np.array(VALUES).T[:, None]
    assert coco_stuff_labels(raw).tolist() == stuff.tolist()
    assert coco_object_labels(raw).tolist() == objects.tolist()
    ids = np.where(raw == 255, 0, raw + 1)
    assert coco_stuff_10k_labels(ids).tolist() == stuff.tolist()


def test_every_class_is_reached_once() -> None:
    every = np.arange(182)[None]
    reached = coco_stuff_labels(every)[0]
    assert sorted(reached[reached != 255]) == list(range(171))
    unused = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90]
    assert np.flatnonzero(reached == 255).tolist() == unused
    things = coco_object_labels(every)[0]
    assert sorted(things[things != 0]) == list(range(1, 81)) and not things[91:].any()


@pytest.mark.parametrize(
    ("convert", "value"), [(coco_stuff_labels, 182), (coco_stuff_10k_labels, 183)]
)
def test_values_outside_the_format_are_refused(convert, value: int) -> None:
    with pytest.raises(ValueError, match=f"got {value} in 1 pixels"):
        convert(np.array([[0, value]]))


def test_coco_stuff_is_prepared_and_evaluated(coco, evaluate_tiny) -> None:
    assert prepare("coco_stuff", coco, "--split", "val2017") == 0
    made = coco / "coco" / "stuffthingmaps_detectron2" / "val2017"
    # The map without any labelled pixel is left out.
    assert sorted(path.stem for path in made.glob("[!.]*")) == [STEMS[i] for i in (0, 1, 3)]
    with Image.open(made / f"{STEMS[1]}.png") as image:
        assert image.mode == "L"
    labels = read_label(made / f"{STEMS[1]}.png")
    assert (labels == raw_map(1, [stuff for _, stuff, _ in VALUES])).all()
    record = json.loads((made.parent / "prepare_val2017.json").read_text())
    assert (record["written"], record["skipped_without_labels"]) == (3, 1)
    assert is_sound("coco_2017_val_stuff_all_sem_seg", coco)
    metrics = evaluate_tiny(coco, "coco_2017_val_stuff_all_sem_seg")
    assert 0 <= metrics["coco_2017_val_stuff_all_sem_seg"]["mIoU"] <= 100


def test_coco_object_is_prepared_and_evaluated(tmp_path, coco, evaluate_tiny) -> None:
    assert prepare("coco_object", coco) == 0
    made = coco / "coco" / "object_detectron2" / "val2017"
    assert len(list(made.glob("[!.]*"))) == 4
    assert (read_label(made / f"{STEMS[2]}.png") == 0).all()
    labels = read_label(made / f"{STEMS[3]}.png")
    assert (labels == raw_map(3, [thing for _, _, thing in VALUES])).all()
    assert is_sound("coco_object_81_sem_seg_val", coco)
    metrics = evaluate_tiny(coco, "coco_object_81_sem_seg_val")
    predicted = predictions(tmp_path / "output", "coco_object_81_sem_seg_val")
    truth = {stem: raw_map(i, [thing for _, _, thing in VALUES]) for i, stem in enumerate(STEMS)}
    truth[STEMS[2]][:] = 0
    right = sum((predicted[stem] == labels).sum() for stem, labels in truth.items())
    pixels = sum(height * width for height, width in SIZES)
    assert metrics["coco_object_81_sem_seg_val"]["pACC"] == pytest.approx(100 * right / pixels)


def test_coco_stuff_10k_is_prepared_and_evaluated(coco_10k, evaluate_tiny) -> None:
    assert prepare("coco_stuff_10k", coco_10k) == 0
    base = coco_10k / "coco" / "coco_stuff_10k"
    stems = [f"COCO_train2014_{STEMS[i]}" for i in (1, 3)]
    for folder in ("annotations_detectron2", "images_detectron2"):
        assert sorted(path.stem for path in (base / folder / "test").glob("[!.]*")) == stems
        assert len(list((base / folder / "train").glob("[!.]*"))) == 1
    labels = read_label(base / "annotations_detectron2" / "test" / f"{stems[0]}.png")
    assert (labels == raw_map(1, [stuff for _, stuff, _ in VALUES])).all()
    pictures = [base / f / f"{stems[0]}.jpg" for f in ("images", "images_detectron2/test")]
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
    assert is_sound("coco_2017_test_stuff_10k_sem_seg", coco_10k)
    metrics = evaluate_tiny(coco_10k, "coco_2017_test_stuff_10k_sem_seg")
    assert 0 <= metrics["coco_2017_test_stuff_10k_sem_seg"]["mIoU"] <= 100


def test_missing_maps_are_told_with_their_archive(tmp_path, caplog) -> None:
    assert prepare("coco_stuff", tmp_path, "--split", "val2017") == 1
    assert "stuffthingmaps/val2017, which is not there" in caplog.text
    assert "Unpack stuffthingmaps_trainval2017.zip" in caplog.text
    assert prepare("coco_stuff_10k", tmp_path) == 1
    assert "imageLists/train.txt, which is not there" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_bad_maps_are_set_aside_and_the_exit_status_says_so(coco, caplog) -> None:
    raw = coco / "coco" / "stuffthingmaps" / "val2017"
    write_png(raw / f"{STEMS[0]}.png", np.full((4, 4), 200, np.uint8))
    whole = (raw / f"{STEMS[1]}.png").read_bytes()
    (raw / f"{STEMS[1]}.png").write_bytes(whole[: len(whole) // 2])
    arguments = ("coco_stuff", coco, "--split", "val2017")
    assert prepare(*arguments) == 1
    assert "got 200 in 16 pixels" in caplog.text and "2 files could not be used" in caplog.text
    made = coco / "coco" / "stuffthingmaps_detectron2"
    assert [path.stem for path in (made / "val2017").glob("[!.]*")] == [STEMS[3]]
    reasons = json.loads((made / "prepare_val2017.json").read_text())["set_aside"]
    assert [Path(entry["file"]).stem for entry in reasons] == list(STEMS[:2])
    (raw / f"{STEMS[1]}.png").write_bytes(whole)
    (raw / f"{STEMS[0]}.png").unlink()
    assert prepare(*arguments) == 0
    assert len(list((made / "val2017").glob("[!.]*"))) == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda mat, jpg: mat.write_bytes(mat.read_bytes()[:150]), "damaged, or no MATLAB file"),
        (lambda mat, jpg: savemat(mat, {"T": np.zeros((41, 29))}), "expected a S"),
        (lambda mat, jpg: savemat(mat, {"S": np.full((41, 29), 500)}), "got 500"),
        (lambda mat, jpg: savemat(mat, {"S": np.ones((29, 41))}), r"size (41, 29), got (29, 41)"),
        (lambda mat, jpg: jpg.write_bytes(jpg.read_bytes()[:-400]), "truncated"),
        (lambda mat, jpg: jpg.unlink(), "no such file"),
    ],
)
def test_bad_files_of_the_10k_edition_are_set_aside(coco_10k, caplog, damage, reason) -> None:
    base = coco_10k / "coco" / "coco_stuff_10k"
    stem = f"COCO_train2014_{STEMS[1]}"
    damage(base / "annotations" / f"{stem}.mat", base / "images" / f"{stem}.jpg")
    assert prepare("coco_stuff_10k", coco_10k, "--split", "test") == 1
    assert reason in caplog.text
    for folder in ("annotations_detectron2", "images_detectron2"):
        assert len(list((base / folder / "test").glob("[!.]*"))) == 1


def captions_tree(root: Path) -> tuple[Path, dict]:
    for index, stem in enumerate(STEMS[:2]):
        write_picture(root / "coco" / "val2017" / f"{stem}.jpg", SIZES[index])
    content = {
        "images": [{"id": int(stem), "file_name": f"{stem}.jpg"} for stem in STEMS[:2]],
        "annotations": [
            {"id": number, "image_id": int(stem), "caption": f"A picture, {number}."}
            for number, stem in enumerate(STEMS[:2] * 5)
        ],
    }
    file = root / "coco" / "annotations" / "captions_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    return file, content


def test_captions_are_counted(tmp_path, capsys) -> None:
    captions_tree(tmp_path)
    assert script("prepare_coco_captions")(["--root", str(tmp_path), "--split", "val2017"]) == 0
    assert capsys.readouterr().out == "val2017: 2 pictures, 10 captions\n"


def test_faults_of_captions_and_pictures_are_told(tmp_path, capsys) -> None:
    file, content = captions_tree(tmp_path)
    content["annotations"][0]["caption"] = "  "
    content["annotations"][1]["image_id"] = 5
    content["images"].append({"id": 77, "file_name": "77.jpg"})
    file.write_text(json.dumps(content))
    arguments = ["--root", str(tmp_path), "--split", "val2017"]
    assert script("prepare_coco_captions")(arguments) == 1
    text = capsys.readouterr().err
    assert "1 pictures of the annotation are not in the folder" in text and "(77.jpg)" in text
    assert "1 pictures have no caption" in text
    assert "1 captions belong to no picture of the annotation; get it again (1)" in text
    assert "1 captions are empty or no text; get the annotation again (0)" in text
    file.write_text(file.read_text()[:-30])
    assert script("prepare_coco_captions")(arguments) == 1
    assert "captions_val2017.json" in capsys.readouterr().err
    file.write_text("[]")
    assert script("prepare_coco_captions")(arguments) == 1
    assert "expected a list of objects under 'images'" in capsys.readouterr().err
