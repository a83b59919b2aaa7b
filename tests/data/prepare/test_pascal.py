from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ovseg.data.prepare.pascal_voc import voc20_labels, voc21_labels
from ovseg.readers.pictures import read_label
from ovseg.vocab import class_list
from tests.data.prepare.raw_trees import (
    CONTEXT,
    SIZES,
    VOC,
    context_number,
    prepare,
    stripes,
    write_context,
    write_listing,
    write_names,
    write_palette_png,
    write_voc,
)

VOC2010 = "VOCdevkit/VOC2010"
VOC2012 = "VOCdevkit/VOC2012"


def test_voc_labels_are_those_of_the_published_convention():
    raw = np.array([[0, 1, 20, 255]])
    assert voc20_labels(raw).tolist() == [[255, 0, 19, 255]]
    assert voc21_labels(raw).tolist() == [[0, 1, 20, 255]]
    with pytest.raises(ValueError, match="got 21 in 1 pixels"):
        voc20_labels(np.array([[21]]))


def test_voc_is_prepared_and_evaluated(tmp_path, evaluate_tiny):
    write_voc(tmp_path)
    assert prepare("voc", tmp_path, "--split", "val") == 0
    made = tmp_path / VOC2012 / "annotations_detectron2"
    # The picture of nothing but background is no part of VOC-20.
    assert sorted(path.stem for path in (made / "val").glob("[!.]*")) == list(VOC[:2])
    assert sorted(path.stem for path in (made / "voc21_val").glob("[!.]*")) == list(VOC)
    found = read_label(made / "val" / f"{VOC[0]}.png")
    assert (found == stripes(SIZES[0], [255, 0, 19, 255, 14])).all()
    found = read_label(made / "voc21_val" / f"{VOC[0]}.png")
    assert (found == stripes(SIZES[0], [0, 1, 20, 255, 15])).all()
    with Image.open(made / "val" / f"{VOC[1]}.png") as image:
        assert image.mode == "L"
    record = json.loads((made / "prepare_voc_val.json").read_text())
    assert (record["written"], record["skipped_without_labels"]) == (5, 1)
    metrics = evaluate_tiny(tmp_path, "pascalvoc20_sem_seg_val", "pascalvoc21_sem_seg_val")
    assert all(0 <= found["mIoU"] <= 100 for found in metrics.values())
    results = tmp_path / "output" / "inference" / "pascalvoc20_sem_seg_val" / "metrics.json"
    assert json.loads(results.read_text())["images"]["scored"] == 2


def test_the_extension_of_voc_is_preferred(tmp_path):
    write_voc(tmp_path)
    name = VOC[0]
    extension = tmp_path / VOC2012 / "SegmentationClassAug"
    for name, size in zip(VOC, SIZES, strict=True):
        write_palette_png(extension / f"{name}.png", np.full(size, 3))
    assert prepare("voc", tmp_path, "--split", "val") == 0
    made = tmp_path / VOC2012 / "annotations_detectron2"
    assert (read_label(made / "val" / f"{VOC[2]}.png") == 2).all()


def test_missing_parts_of_voc_are_named(tmp_path, caplog):
    assert prepare("voc", tmp_path, "--split", "val") == 1
    assert "ImageSets/Segmentation/val.txt, which is not there" in caplog.text
    write_listing(tmp_path / VOC2012 / "ImageSets/Segmentation/val.txt", VOC)
    assert prepare("voc", tmp_path, "--split", "val") == 1
    assert "SegmentationClassAug or SegmentationClass" in caplog.text
    write_listing(tmp_path / VOC2012 / "ImageSets/Segmentation/val.txt", [*VOC, VOC[0]])
    assert prepare("voc", tmp_path, "--split", "val") == 1
    assert f"got twice: {VOC[0]}" in caplog.text


def test_a_coloured_mask_is_set_aside(tmp_path, caplog):
    write_voc(tmp_path)
    file = tmp_path / VOC2012 / "SegmentationClass" / f"{VOC[0]}.png"
    Image.open(file).convert("RGB").save(file)
    assert prepare("voc", tmp_path, "--split", "val") == 1
    # Named once, though two tasks read it, and without the path in front of the reason.
    reasons = [r.getMessage() for r in caplog.records if r.getMessage().startswith("quarantined")]
    assert len(reasons) == 1 and reasons[0].count(str(file)) == 1
    assert "store the class ids, not colours" in reasons[0]
    assert "1 file could not be used" in caplog.text
    made = tmp_path / VOC2012 / "annotations_detectron2" / "val"
    assert [path.stem for path in made.glob("[!.]*")] == [VOC[1]]


def test_context_is_prepared_and_evaluated(tmp_path, evaluate_tiny):
    write_context(tmp_path)
    assert prepare("pascal_context", tmp_path, "--split", "val") == 0
    made = tmp_path / VOC2010 / "annotations_detectron2"
    # aeroplane, person, wood, accordion, unknown, unlabelled
    expected = {
        "pc59_val/{}.png": [0, 14, 58, 255, 255, 255],
        "pc60_val/{}.png": [1, 37, 59, 0, 0, 0],
        "pc459_val/{}.tif": [1, 294, 452, 0, 430, 65535],
    }
    names = class_list("pascal_context_459").names
    expected["pc459_val/{}.tif"][1:3] = [names.index("person"), names.index("wood")]
    for pattern, values in expected.items():
        found = read_label(made / pattern.format(CONTEXT[0]))
        assert (found == stripes(SIZES[0], values)).all(), pattern
    with Image.open(made / "pc459_val" / f"{CONTEXT[0]}.tif") as image:
        assert image.mode == "I;16"
    for pattern, value in zip(expected, (255, 0, 65535), strict=True):
        assert (read_label(made / pattern.format(CONTEXT[1])) == value).all()
    sets = [f"pascal_context_{classes}_sem_seg_val" for classes in (59, 60, 459)]
    metrics = evaluate_tiny(tmp_path, *sets)
    assert all(0 <= metrics[name]["mIoU"] <= 100 for name in sets)


def test_lists_of_the_original_spellings_and_of_mmsegmentation_serve_as_well(tmp_path):
    write_context(tmp_path)
    base = tmp_path / VOC2010
    old = {"table": "diningtable", "bedclothes": "bedcloth", "cloth": "clothes",
           "pottedplant": "potted plant"}  # fmt: skip
    names = [old.get(name, name) for name in class_list("pascal_context_59").names]
    write_names(base / "59_labels.txt", names)
    (base / "pascalcontext_val.txt").unlink()
    lines = [f"JPEGImages/{name}.jpg masks/{name}.png" for name in CONTEXT]
    write_listing(base / "ImageSets" / "SegmentationContext" / "val.txt", lines)
    assert prepare("pascal_context", tmp_path, "--split", "val") == 0
    assert read_label(base / "annotations_detectron2/pc59_val" / f"{CONTEXT[0]}.png")[0, 3] == 14


@pytest.mark.parametrize(("file", "number"), [("labels.txt", 3), ("59_labels.txt", 1)])
def test_another_order_of_the_classes_is_refused_before_anything_is_written(
    tmp_path, caplog, file, number
):
    write_context(tmp_path)
    path = tmp_path / VOC2010 / file
    lines = path.read_text().splitlines()
    first, second = (line.split(": ")[1] for line in lines[number - 1 : number + 1])
    lines[number - 1 : number + 1] = [f"{number}: {second}", f"{number + 1}: {first}"]
    path.write_text("\n".join(lines))
    assert prepare("pascal_context", tmp_path, "--split", "val") == 1
    assert f"{file}: expected {first!r} as number {number} of" in caplog.text
    assert f"got {second!r}; with another order every label would mean another" in caplog.text
    assert not (tmp_path / VOC2010 / "annotations_detectron2").exists()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda mat: mat.write_bytes(mat.read_bytes()[:150]), "damaged, or no MATLAB file"),
        (lambda mat: savemat(mat, {"LabelMap": np.full((41, 29), 460)}), "got 460"),
        (lambda mat: mat.unlink(), "no such file"),
    ],
)
def test_bad_label_maps_of_context_are_set_aside(tmp_path, caplog, damage, reason):
    write_context(tmp_path)
    damage(tmp_path / VOC2010 / "trainval" / f"{CONTEXT[1]}.mat")
    assert prepare("pascal_context", tmp_path, "--split", "val") == 1
    assert reason in caplog.text
    for folder in ("pc59_val", "pc60_val", "pc459_val"):
        made = tmp_path / VOC2010 / "annotations_detectron2" / folder
        assert [path.stem for path in made.glob("[!.]*")] == [CONTEXT[0]]


def test_numbers_of_context_count_from_one():
    assert context_number("accordion") == 1 and context_number("unknown") == 431
