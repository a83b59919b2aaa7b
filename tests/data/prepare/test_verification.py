from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from ovseg.d2.data import MetadataCatalog
from ovseg.data.prepare.contact_sheet import contact_sheet, spread
from ovseg.data.prepare.subjects import prepared_names
from ovseg.data.prepare.verification import verify
from ovseg.readers.pictures import read_image
from ovseg.tinyscapes import write_split
from ovseg.utils.images import write_png
from ovseg.vocab import class_list
from tests.data.prepare.raw_trees import (
    CITIES,
    CONTEXT,
    SIZES,
    prepare,
    script,
    write_cityscapes,
    write_context,
    write_loveda,
    write_picture,
    write_vaihingen,
    write_voc,
)

pytestmark = pytest.mark.usefixtures("restored_catalogues")

PC59, PC459 = "pascal_context_59_sem_seg_val", "pascal_context_459_sem_seg_val"
VOC2010 = "VOCdevkit/VOC2010"


@pytest.fixture
def context(tmp_path):
    """A sound tree of Pascal Context."""
    write_context(tmp_path)
    assert prepare("pascal_context", tmp_path, "--split", "val") == 0
    return tmp_path


def write_tiny_files(root, numbers):
    """Pictures and labels where those of tinyscapes are."""
    for number in numbers:
        write_picture(root / "tinyscapes" / "val2017" / f"{number:012}.jpg", (16, 20))
        labels = np.full((16, 20), number % 50, np.uint8)
        write_png(root / "tinyscapes" / "stuffthingmaps" / "val2017" / f"{number:012}.png", labels)


def only(found):
    """The single complaint of a verification, as text."""
    assert len(found.complaints) == 1, str(found)
    return str(found.complaints[0])


@pytest.mark.parametrize(
    ("name", "write", "sets"),
    [
        ("voc", write_voc, ["pascalvoc20_sem_seg_val", "pascalvoc21_sem_seg_val"]),
        ("pascal_context", write_context, [PC59, "pascal_context_60_sem_seg_val", PC459]),
        ("cityscapes", write_cityscapes, ["cityscapes_fine_sem_seg_val"]),
        ("loveda", write_loveda, ["loveda_sem_seg_val"]),
        ("vaihingen", write_vaihingen, ["vaihingen_sem_seg_val"]),
    ],
)
def test_prepared_trees_are_sound(tmp_path, name, write, sets):
    write(tmp_path)
    assert prepare(name, tmp_path, "--split", "val") == 0
    assert prepared_names(tmp_path) == sets or set(sets) <= set(prepared_names(tmp_path))
    for dataset in sets:
        found = verify(dataset, root=tmp_path, subset=True)
        assert found.complaints == (), str(found)


def test_facts_are_counted(context):
    found = verify(PC459, root=context)
    assert found.facts == (
        "2 pictures with labels, 29 x 41 to 53 x 37 pixels, label maps of 16 bits",
        # 15 of 53 columns of the first picture, nothing of the second
        f"5 of 459 classes occur, {100 * 15 * 37 / (37 * 53 + 41 * 29):.1f} % of the pixels are "
        "labelled",
    )
    assert found.notes == ("1 label maps have nothing but ignored pixels",)
    assert str(found).startswith(f"{PC459}: sound\n  2 pictures")


def test_published_counts_are_asked_for_unless_a_part_is_enough(tmp_path):
    write_cityscapes(tmp_path)
    prepare("cityscapes", tmp_path, "--split", "val")
    text = only(verify("cityscapes_fine_sem_seg_val", root=tmp_path))
    assert "2 pictures with labels, where the published set has 500" in text
    assert "mend: unpack all archives, then run python datasets/prepare_cityscapes.py" in text
    assert "with --subset a part is enough" in text


def test_a_missing_folder_is_named_with_what_makes_it(tmp_path):
    write_context(tmp_path)
    text = only(verify(PC59, root=tmp_path))
    assert "no folder" in text and "annotations_detectron2/pc59_val" in text
    assert f"mend: run python datasets/prepare_pascal_context.py --root {tmp_path}" in text


def test_labels_out_of_range_are_named_with_their_values(context):
    file = context / VOC2010 / "annotations_detectron2" / "pc59_val" / f"{CONTEXT[0]}.png"
    labels = np.zeros(SIZES[0], np.uint8)
    labels[0, :3] = (59, 60, 255)
    write_png(file, labels)
    text = only(verify(PC59, root=context))
    assert "1 label map holds labels outside 0-58 and 255 (ignored): 59, 60" in text
    assert f"files: {CONTEXT[0]}" in text
    assert "mend: these may be raw ids" in text and "prepare_pascal_context.py" in text


def test_8_bits_where_16_are_needed_are_told(context):
    file = context / VOC2010 / "annotations_detectron2" / "pc459_val" / f"{CONTEXT[1]}.tif"
    Image.fromarray(np.zeros(SIZES[1], np.uint8)).save(file)
    text = only(verify(PC459, root=context))
    assert "1 label map has 8 bits, where 459 classes and the ignore label 65535 need 16" in text
    assert "mend: whatever wrote them has cut numbers off: run python" in text


@pytest.mark.parametrize("file", ["labels.txt", "59_labels.txt"])
def test_another_order_in_the_lists_of_names_is_told(context, file):
    path = context / VOC2010 / file
    lines = path.read_text().splitlines()
    lines[4], lines[5] = (
        f"{i}: {line.split(': ')[1]}" for i, line in ((5, lines[5]), (6, lines[4]))
    )
    path.write_text("\n".join(lines))
    text = only(verify(PC59, root=context))
    assert f"{file}: expected " in text and "as number 5 of" in text
    assert "every label would mean another class" in text
    assert "mend: datasets/README.md says which files" in text


def test_another_order_in_the_catalogue_is_told(context):
    names = class_list("pascal_context_59").names
    MetadataCatalog.data.pop(PC59, None)
    MetadataCatalog.get(PC59).set(stuff_classes=sorted(names))
    text = only(verify(PC59, root=context))
    assert "59 instead of 59; the first difference is label 1: 'bag' instead of 'bicycle'" in text
    MetadataCatalog.data.pop(PC59)
    MetadataCatalog.get(PC59).set(stuff_classes=["plane", *names[1:]])
    found = verify(PC59, root=context)
    assert found.complaints == ()
    assert "other names: 'plane' for 'aeroplane'" in found.notes[0]


def test_truncated_files_are_told_apart_and_do_not_stop_the_rest(context):
    picture = context / VOC2010 / "JPEGImages" / f"{CONTEXT[0]}.jpg"
    label = context / VOC2010 / "annotations_detectron2" / "pc59_val" / f"{CONTEXT[1]}.png"
    picture.write_bytes(picture.read_bytes()[:-300])
    label.write_bytes(label.read_bytes()[:60])
    found = verify(PC59, root=context, sheet=context / "sheet.png")
    first, second = map(str, found.complaints)
    assert "1 picture cannot be read, the first:" in first and f"files: {CONTEXT[0]}" in first
    assert "mend: unpack their archive again" in first
    assert "1 label map cannot be read" in second and f"files: {CONTEXT[1]}" in second
    assert not (context / "sheet.png").exists()  # no sound pair is left


def test_colours_in_place_of_ids_are_told(context):
    file = context / VOC2010 / "annotations_detectron2" / "pc59_val" / f"{CONTEXT[0]}.png"
    file.unlink()
    write_picture(file, SIZES[0])
    assert "store the class ids, not colours" in only(verify(PC59, root=context))


def test_labels_without_pictures_and_pictures_without_labels(context):
    base = context / VOC2010
    (base / "JPEGImages" / f"{CONTEXT[0]}.jpg").unlink()
    text = only(verify(PC59, root=context))
    assert "1 label map or name of the split has no picture in" in text
    assert f"files: {CONTEXT[0]}" in text and "mend: unpack the archive of the pictures" in text
    write_picture(base / "JPEGImages" / f"{CONTEXT[0]}.jpg", SIZES[0])
    (base / "annotations_detectron2" / "pc59_val" / f"{CONTEXT[1]}.png").unlink()
    text = only(verify(PC59, root=context))
    assert "1 picture has no label map in" in text and f"files: {CONTEXT[1]}" in text
    assert verify(PC59, root=context, subset=True).complaints == ()


def test_pictures_of_other_splits_are_no_fault_but_their_labels_are(tmp_path):
    write_voc(tmp_path)
    prepare("voc", tmp_path, "--split", "val")
    found = verify("pascalvoc20_sem_seg_val", root=tmp_path, subset=True)
    # 2012_004331 is of another split; the last picture of val is nothing but background.
    assert found.complaints == ()
    assert found.notes[0].startswith("1 picture has no label map")
    folder = tmp_path / "VOCdevkit/VOC2012/annotations_detectron2/voc21_val"
    write_png(folder / "2012_004331.png", np.zeros((20, 20), np.uint8))
    text = only(verify("pascalvoc21_sem_seg_val", root=tmp_path, subset=True))
    assert "1 label map is not named in" in text and "files: 2012_004331" in text


def test_an_interrupted_preparation_is_told_from_maps_left_out_on_purpose(tmp_path):
    write_voc(tmp_path)
    prepare("voc", tmp_path, "--split", "val")
    first, second = verify("pascalvoc20_sem_seg_val", root=tmp_path).complaints
    assert str(first).startswith("1 picture has no label map in")
    assert str(second).startswith("3 pictures, where the published set has 1449")
    (tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt").unlink()
    text = only(verify("pascalvoc20_sem_seg_val", root=tmp_path, subset=True))
    assert "expected the list" in text and "val.txt, which is not there" in text


def test_sizes_that_differ_are_told(tmp_path):
    write_cityscapes(tmp_path)
    prepare("cityscapes", tmp_path, "--split", "val")
    folder = tmp_path / "cityscapes" / "leftImg8bit" / "val" / "munster"
    write_picture(folder / f"{CITIES[1]}_leftImg8bit.png", (9, 9))
    text = only(verify("cityscapes_fine_sem_seg_val", root=tmp_path, subset=True))
    assert "1 label map differs in size from the picture" in text
    assert "mend: picture and label map are of different versions" in text


def test_tinyscapes_is_verified_and_looked_at(tmp_path, capsys):
    write_split(tmp_path, "val", 2, workers=0)
    write_tiny_files(tmp_path, range(2, 12))
    (tmp_path / "tinyscapes" / "version_val.json").write_text('{"images": 12}')
    sheets = tmp_path / "sheets"
    arguments = ["--root", str(tmp_path), "--sheets", str(sheets), "--workers", "1"]
    assert script("verify")(arguments) == 0
    text = capsys.readouterr().out
    assert "tinyscapes_val_sem_seg: sound\n  12 pictures with labels" in text
    height, width, _ = read_image(sheets / "tinyscapes_val_sem_seg.png").shape
    assert height == 5 * (288 + 22 + 10) - 10 and width > 1000  # ten pictures in two columns
    (tmp_path / "tinyscapes" / "val2017" / "000000000003.jpg").unlink()
    assert script("verify")(arguments) == 1
    text = capsys.readouterr().out
    assert "FAULT: 1 label map or name of the split has no picture" in text
    assert "FAULT: 11 pictures with labels, where the published set has 12" in text


def test_a_data_set_of_ones_own_is_verified_before_it_is_registered(tmp_path, capsys):
    write_picture(tmp_path / "images" / "a.png", (9, 9))
    write_png(tmp_path / "labels" / "a.png", np.full((9, 9), 4, np.uint8))
    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\nimages: images\nlabels: labels\nclasses: [cat, dog]\n")
    assert script("verify")([str(file), "--sheets", str(tmp_path / "sheets")]) == 1
    text = capsys.readouterr().out
    assert "1 label map holds labels outside 0-1 and 255 (ignored): 4" in text
    assert f"correct the label maps, or `classes` and `ignore_label` in {file}" in text
    assert (tmp_path / "sheets" / "mine.png").is_file()


def test_a_coco_json_is_verified_by_the_maps_drawn_from_it(tmp_path):
    write_picture(tmp_path / "a.png", (6, 8))
    box = [[1, 1, 7, 1, 7, 5, 1, 5]]
    content = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "segmentation": box}],
        "categories": [{"id": 3, "name": "sofa"}],
    }
    (tmp_path / "i.json").write_text(json.dumps(content))
    file = tmp_path / "rooms.yaml"
    file.write_text("name: rooms\nimages: .\ncoco_json: i.json\n")
    found = verify(str(file))
    assert found.complaints == ()
    assert found.facts[1] == "1 of 1 classes occur, 50.0 % of the pixels are labelled"


def test_unknown_names_are_refused_with_the_choices(tmp_path, capsys):
    with pytest.raises(ValueError, match=r"got 'voc'; valid: .*pascalvoc20_sem_seg_val"):
        verify("voc", root=tmp_path)
    assert script("verify")(["voc", "--root", str(tmp_path)]) == 1
    assert script("verify")(["--root", str(tmp_path)]) == 1
    assert "no label maps of a known dataset" in capsys.readouterr().err


@pytest.mark.slow
def test_several_processes_find_the_same(tmp_path):
    write_tiny_files(tmp_path, range(70))
    one, two = (verify("tinyscapes_val_sem_seg", root=tmp_path, workers=n) for n in (1, 2))
    assert one == two


def test_examples_are_spread_from_first_to_last():
    assert spread(3, 10) == [0, 1, 2]
    assert spread(100, 10) == [0, 11, 22, 33, 44, 55, 66, 77, 88, 99]
    assert spread(0, 10) == [] and spread(5, 1) == [0]


def test_ignored_and_unknown_labels_stay_as_photographed():
    image = np.full((288, 288, 3), 200, np.uint8)
    labels = np.zeros((288, 288), np.int32)
    labels[:, 100:] = 255
    labels[:, 200:] = 7
    sheet = contact_sheet([("one", image, labels)], ["cat"], 255)
    row = sheet[10 + 22 + 150, 10 + 288 + 2 :]  # through the tinted copy
    assert (row[50] != 200).any()
    assert (row[150] == 200).all() and (row[250] == 200).all()
    with pytest.raises(ValueError, match="at least one picture"):
        contact_sheet([], ["cat"], 255)
    with pytest.raises(ValueError, match=r"one: the picture is \(288, 288\), its labels \(2, 2\)"):
        contact_sheet([("one", image, labels[:2, :2])], ["cat"], 255)
