"""Every format is read back as its tool reads it, and gives the label maps back exactly."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from PIL import Image

from ovseg.exports import EXPORT_FORMATS, make_exporter
from ovseg.segmentation import Segmentation
from tests.exports import readers

NAMES = ("sky", "árbol & <co>", "others", "road")
READERS = {
    "coco": readers.read_coco,
    "yolo": readers.read_yolo,
    "labelme": partial(readers.read_labelme, names=list(NAMES)),
    "cvat": readers.read_cvat,
    "label_studio": readers.read_label_studio,
}


def make_result(seed: int, size: tuple[int, int] = (50, 70), **changes: object) -> Segmentation:
    """Blobs of three of four classes, with holes, specks and pixels without a class."""
    rng = np.random.default_rng(seed)
    fields = [cv2.GaussianBlur(rng.random(size).astype(np.float32), (0, 0), 3) for _ in range(4)]
    labels = np.argmax(fields, axis=0).astype(np.int32)
    labels[labels == 3] = -1
    labels[5, 5] = labels[0, 0] = labels[-1, -1] = 1
    parts: dict[str, object] = {
        "image": rng.integers(0, 256, (*size, 3), np.uint8),
        "labels": labels,
        "names": NAMES,
        "scores": np.array([0.9, 0.5, 0.25, 0.0], np.float32),
    }
    return Segmentation(**{**parts, **changes})  # type: ignore[arg-type]


def test_all_formats_have_a_reader():
    assert tuple(READERS) == EXPORT_FORMATS


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_pictures_of_a_run_are_read_back_exactly(tmp_path, name):
    exporter = make_exporter(name, tmp_path / "out", NAMES)
    results = {"a.jpg": make_result(0), "b b.png": make_result(1, (31, 47))}
    for file, result in results.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(result.image).save(tmp_path / "in" / file)
        exporter.add(result, stem=Path(file).stem, source=tmp_path / "in" / file)
    files = exporter.finish()
    assert files and all(file.is_file() for file in files)
    maps = READERS[name](tmp_path / "out")
    assert list(maps) == list(results)
    for file, result in results.items():
        np.testing.assert_array_equal(maps[file], result.labels)


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_the_background_is_listed_and_has_no_annotation(tmp_path, name):
    result = make_result(2, background=2)
    result.export(name, tmp_path, stem="x")
    [labels] = READERS[name](tmp_path).values()
    assert (result.labels == 2).any()
    np.testing.assert_array_equal(labels, np.where(result.labels == 2, -1, result.labels))


@pytest.mark.parametrize("name", EXPORT_FORMATS)
def test_a_picture_without_any_class_is_exported_too(tmp_path, name):
    result = make_result(0, labels=np.full((50, 70), -1, np.int32))
    result.export(name, tmp_path, stem="x")
    [(file, labels)] = READERS[name](tmp_path).items()
    assert Path(file).name == "x.png"
    assert labels is None or (labels == -1).all()


@pytest.mark.parametrize("name", ["labelme", "yolo"])
def test_a_picture_without_a_file_is_written_beside(tmp_path, name):
    result = make_result(0)
    result.export(name, tmp_path, stem="x")
    written = np.asarray(Image.open(tmp_path / "images" / "x.png"))
    np.testing.assert_array_equal(written, result.image)


def test_pictures_that_yolo_cannot_read_become_png(tmp_path):
    result = make_result(0)
    Image.fromarray(result.image).save(tmp_path / "a.gif")
    made = make_result(0, provenance={"image": str(tmp_path / "a.gif")})
    made.export("yolo", tmp_path / "yolo")
    assert [file.name for file in (tmp_path / "yolo" / "images").iterdir()] == ["a.png"]
    assert (tmp_path / "yolo" / "labels" / "a.txt").is_file()


def test_files_of_one_name_in_two_folders_stay_apart(tmp_path):
    exporter = make_exporter("coco", tmp_path / "out", NAMES)
    for folder, stem in (("x", "a"), ("y", "a_2")):
        (tmp_path / folder).mkdir()
        Image.fromarray(make_result(0).image).save(tmp_path / folder / "a.png")
        exporter.add(make_result(0), stem=stem, source=tmp_path / folder / "a.png")
    exporter.finish()
    assert list(readers.read_coco(tmp_path / "out")) == ["x/a.png", "y/a.png"]


def test_scores_go_along(tmp_path):
    result = make_result(0)
    [file] = result.export("coco", tmp_path / "coco", stem="x")
    scores = {a["category_id"]: a["score"] for a in json.loads(file.read_text())["annotations"]}
    assert scores == {1: 0.9, 2: 0.5, 3: 0.25}
    result.export("label_studio", tmp_path / "ls", stem="x")
    [task] = json.loads((tmp_path / "ls" / "tasks.json").read_text())
    assert task["predictions"][0]["score"] == pytest.approx(0.55, abs=1e-6)
    ids = [found["id"] for found in task["predictions"][0]["result"]]
    assert len(set(ids)) == len(ids) > 3


def test_a_tolerance_makes_outlines_simpler(tmp_path):
    exact, coarse = (
        make_result(0).export("labelme", tmp_path / str(t), stem="x", tolerance=t)[0]
        for t in (0, 2)
    )
    points = [
        sum(len(shape["points"]) for shape in json.loads(file.read_text())["shapes"])
        for file in (exact, coarse)
    ]
    assert points[1] < 0.6 * points[0]


def test_cvats_masks_are_those_of_its_documentation(tmp_path):
    # The mask of the example in https://docs.cvat.ai/docs/other/xml_format.
    text = (
        "3, 5, 7, 7, 5, 9, 3, 11, 2, 11, 2, 12, 1, 12, 1, 26, 1, 12, 1, 12, 2, 11, 3, 9, 5, 7, 7, "
        "5, 3"
    )
    mask = readers.decode_cvat_rle(text, 15, 13)
    labels = np.full((910, 730), -1, np.int32)
    labels[888:903, 707:720][mask] = 0
    image = np.zeros((910, 730, 3), np.uint8)
    [file] = make_result(0, labels=labels, image=image).export("cvat", tmp_path)
    written = ElementTree.parse(file).getroot().find("image/mask").attrib
    expected = {"rle": text, "left": "707", "top": "888", "width": "13", "height": "15"}
    assert {key: written[key] for key in expected} == expected


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "annotations.json").write_text("theirs")
    with pytest.raises(FileExistsError, match="a folder that is empty or holds an earlier"):
        make_result(0).export("coco", tmp_path)
    assert (tmp_path / "annotations.json").read_text() == "theirs"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_earlier_export_is_replaced_if_it_is_of_the_same_classes(tmp_path):
    for seed in (0, 1):
        make_result(seed).export("coco", tmp_path, stem="x")
    np.testing.assert_array_equal(readers.read_coco(tmp_path)["x.png"], make_result(1).labels)
    for name, names in (("coco", ("a", "b", "c", "d")), ("cvat", NAMES)):
        with pytest.raises(FileExistsError, match=f"these classes to {name}, found one of others"):
            make_result(0, names=names).export(name, tmp_path)


def test_unknown_formats_and_other_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"export: expected some of \['coco', .*got \['voc'\]"):
        make_result(0).export("voc", tmp_path)
    exporter = make_exporter("coco", tmp_path, ("sky",))
    with pytest.raises(ValueError, match=r"expected a result of the classes \['sky'\], got one of"):
        exporter.add(make_result(0), stem="x")


def test_ultralytics_itself_reads_the_label_files(tmp_path):
    utils = pytest.importorskip("ultralytics.data.utils")
    result = make_result(0)
    result.export("yolo", tmp_path, stem="x")
    image = str(tmp_path / "images" / "x.png")
    checked = utils.verify_image_label(
        (image, utils.img2label_paths([image])[0], "", False, len(NAMES), 0, 0, False)
    )
    classes, polygons, message = checked[1][:, 0].astype(int), checked[3], checked[-1]
    assert message == ""
    height, width = result.labels.shape
    labels = np.full((height, width), -1, np.int32)
    for label, polygon in zip(classes, polygons, strict=True):
        points = (polygon * [width, height]).reshape(-1)
        labels[utils.polygons2masks((height, width), [points], 1, 1)[0] > 0] = label
    np.testing.assert_array_equal(labels, result.labels)


def test_labelme_itself_reads_its_files(tmp_path):
    files = pytest.importorskip("labelme.label_file")  # of version 5
    utils = pytest.importorskip("labelme.utils")
    result = make_result(0)
    [file] = result.export("labelme", tmp_path, stem="x")
    labels = np.full(result.labels.shape, -1, np.int32)
    for shape in files.LabelFile(str(file)).shapes:
        mask = utils.shape_to_mask(labels.shape, shape["points"], shape["shape_type"])
        labels[mask] = NAMES.index(shape["label"])
    np.testing.assert_array_equal(labels, result.labels)


def test_supervision_itself_reads_coco_and_yolo(tmp_path):
    supervision = pytest.importorskip("supervision")
    result = make_result(0)
    [file] = result.export("coco", tmp_path / "coco", stem="x")
    result.export("yolo", tmp_path / "yolo", stem="x")
    found = supervision.DetectionDataset.from_coco(
        images_directory_path=str(tmp_path / "coco" / "images"),
        annotations_path=str(file),
        force_masks=True,
    )
    [(_, _, detections)] = found
    assert found.classes == list(NAMES)
    for mask, label in zip(detections.mask, detections.class_id, strict=True):
        np.testing.assert_array_equal(mask, result.labels == label)
    read = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(tmp_path / "yolo" / "images"),
        annotations_directory_path=str(tmp_path / "yolo" / "labels"),
        data_yaml_path=str(tmp_path / "yolo" / "data.yaml"),
        force_masks=True,
    )
    assert read.classes == list(NAMES)
