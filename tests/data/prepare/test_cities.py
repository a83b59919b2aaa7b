from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ovseg.data.prepare.cityscapes import cityscapes_labels
from ovseg.data.prepare.loveda import loveda_labels
from ovseg.data.prepare.vaihingen import AREAS, squares, vaihingen_labels
from ovseg.readers.pictures import read_image, read_label
from ovseg.utils.images import write_png
from tests.data.prepare.raw_trees import (
    CITIES,
    SIZES,
    VAIHINGEN_COLORS,
    prepare,
    stripes,
    write_cityscapes,
    write_loveda,
    write_vaihingen,
)


def test_ids_of_cityscapes_become_its_19_classes():
    raw = np.array([[7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]])
    assert cityscapes_labels(raw).tolist() == [list(range(19))]
    others = np.array([[0, 6, 9, 14, 16, 18, 29, 30, 255]])
    assert (cityscapes_labels(others) == 255).all()
    with pytest.raises(ValueError, match="got 34 in 1 pixels"):
        cityscapes_labels(np.array([[34]]))


def test_cityscapes_is_prepared_beside_its_own_files_and_evaluated(tmp_path, evaluate_tiny):
    write_cityscapes(tmp_path)
    assert prepare("cityscapes", tmp_path, "--split", "val") == 0
    folder = tmp_path / "cityscapes" / "gtFine" / "val" / "munster"
    found = read_label(folder / f"{CITIES[1]}_gtFine_labelTrainIds.png")
    assert (found == stripes(SIZES[1], [0, 11, 18, 255, 255, 255])).all()
    assert len(list(folder.glob("[!.]*"))) == 5
    metrics = evaluate_tiny(tmp_path, "cityscapes_fine_sem_seg_val")
    assert 0 <= metrics["cityscapes_fine_sem_seg_val"]["mIoU"] <= 100
    results = tmp_path / "output" / "inference" / "cityscapes_fine_sem_seg_val" / "metrics.json"
    assert json.loads(results.read_text())["images"]["scored"] == 2


def test_labels_that_the_benchmarks_scripts_made_are_kept(tmp_path):
    write_cityscapes(tmp_path)
    folder = tmp_path / "cityscapes" / "gtFine" / "val" / "frankfurt"
    theirs = folder / f"{CITIES[0]}_gtFine_labelTrainIds.png"
    write_png(theirs, np.full(SIZES[0], 255, np.uint8))
    before = theirs.read_bytes()
    assert prepare("cityscapes", tmp_path, "--split", "val") == 0
    assert theirs.read_bytes() == before
    # Nor are they written over on demand: who wants others moves them away.
    assert prepare("cityscapes", tmp_path, "--split", "val", "--force") == 1
    assert theirs.read_bytes() == before
    theirs.unlink()
    assert prepare("cityscapes", tmp_path, "--split", "val", "--force") == 0
    assert read_label(theirs)[0, 0] == 0


def test_loveda_is_prepared_and_evaluated(tmp_path, evaluate_tiny):
    write_loveda(tmp_path)
    assert prepare("loveda", tmp_path, "--split", "val") == 0
    made = tmp_path / "LoveDA" / "annotations_detectron2" / "val"
    assert [path.name for path in made.glob("[!.]*")] == ["2522.png"]  # the other has no data
    found = read_label(made / "2522.png")
    assert (found == stripes(SIZES[0], [255, 0, 6, 3, 1])).all()
    metrics = evaluate_tiny(tmp_path, "loveda_sem_seg_val")
    assert 0 <= metrics["loveda_sem_seg_val"]["mIoU"] <= 100
    with pytest.raises(ValueError, match="got 8 in 1 pixels"):
        loveda_labels(np.array([[8]]))


def test_colours_of_vaihingen_become_labels():
    colors = np.array([VAIHINGEN_COLORS], np.uint8)
    assert vaihingen_labels(colors).tolist() == [[0, 1, 2, 3, 4, 5, 255]]
    colors[0, 2] = (0, 254, 255)
    with pytest.raises(ValueError, match=r"got \(0, 254, 255\) in 1 pixels; .* saved with loss"):
        vaihingen_labels(colors)


def test_squares_overlap_by_half_and_end_at_the_edge():
    # left, top, right, bottom, row by row
    assert squares(600, 800) == [
        (0, 0, 512, 512), (256, 0, 768, 512), (288, 0, 800, 512),
        (0, 88, 512, 600), (256, 88, 768, 600), (288, 88, 800, 600),
    ]  # fmt: skip
    assert squares(512, 1024) == [(0, 0, 512, 512), (256, 0, 768, 512), (512, 0, 1024, 512)]
    assert squares(300, 512) == [(0, 0, 512, 300)]
    assert len(AREAS["train"]) == 16 and len(AREAS["val"]) == 17
    assert not set(AREAS["train"]) & set(AREAS["val"])


def test_vaihingen_is_cut_and_evaluated(tmp_path, evaluate_tiny):
    write_vaihingen(tmp_path)
    assert prepare("vaihingen", tmp_path, "--split", "val") == 0
    base = tmp_path / "Vaihingen"
    names = [f"area2_{box}.png" for box in
             ("0_0_512_512", "0_88_512_600", "18_0_530_512", "18_88_530_600")]  # fmt: skip
    for folder in ("images_detectron2", "annotations_detectron2"):
        assert sorted(path.name for path in (base / folder / "val").glob("[!.]*")) == names
    labels = read_label(base / "annotations_detectron2" / "val" / names[3])
    assert labels.shape == (512, 512)
    # From column 18 on all is the last colour, black; column 15 to 17 is clutter.
    assert (labels == 255).all()
    first = read_label(base / "annotations_detectron2" / "val" / names[0])
    assert first[5, [0, 3, 6, 9, 12, 15, 18]].tolist() == [0, 1, 2, 3, 4, 5, 255]
    top = base / "ISPRS_semantic_labeling_Vaihingen" / "top" / "top_mosaic_09cm_area2.tif"
    picture = read_image(base / "images_detectron2" / "val" / names[3])
    assert (picture == read_image(top)[88:600, 18:530]).all()
    before = (base / "images_detectron2" / "val" / names[0]).stat().st_mtime_ns
    assert prepare("vaihingen", tmp_path, "--split", "val") == 0
    assert (base / "images_detectron2" / "val" / names[0]).stat().st_mtime_ns == before
    metrics = evaluate_tiny(tmp_path, "vaihingen_sem_seg_val")
    assert 0 <= metrics["vaihingen_sem_seg_val"]["mIoU"] <= 100


def test_damaged_tiles_leave_no_square(tmp_path, caplog):
    write_vaihingen(tmp_path)
    base = tmp_path / "Vaihingen"
    truth = base / "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE"
    Image.new("RGB", (20, 20)).save(truth / "top_mosaic_09cm_area2_noBoundary.tif")
    assert prepare("vaihingen", tmp_path, "--split", "val") == 1
    assert "expected labels of the picture's size (600, 530), got (20, 20)" in caplog.text
    assert list((base / "images_detectron2" / "val").glob("[!.]*")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("cityscapes", "cityscapes/gtFine/val, which is not there\nunpack gtFine_trainvaltest.zip"),
        ("loveda", "LoveDA/Val/Rural/masks_png, which is not there\nunpack Train.zip and Val.zip"),
        ("vaihingen", "ISPRS_semantic_labeling_Vaihingen/top, which is not there\nunpack each"),
    ],
)
def test_missing_raw_data_are_named_with_their_archive(tmp_path, caplog, name, text):
    assert prepare(name, tmp_path, "--split", "val") == 1
    assert text in caplog.text
    assert list(tmp_path.iterdir()) == []
