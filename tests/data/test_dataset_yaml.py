from __future__ import annotations

import json
import textwrap
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import DatasetFilesError
from ovseg.data.coco_labels import draw_labels
from ovseg.data.dataset_yaml import DatasetYaml, register_yaml, resolve_dataset
from ovseg.data.loaders import build_test_loader, build_train_loader, get_records
from ovseg.data.prepare.pipeline import PreparationError
from ovseg.readers.pictures import read_label
from ovseg.utils.images import write_png
from ovseg.utils.masks import encode_rle

pytestmark = pytest.mark.usefixtures("restored_catalogues")

GARDEN = """
    name: garden
    images: pictures
    labels: labels
    classes: [lawn, flower bed, path]
    split: validation
    evaluation_set:
      green: [lawn, flower bed]
"""


def write(folder, text: str = GARDEN, name: str = "set.yaml"):
    path = folder / name
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def write_garden(folder):
    for index in range(2):
        write_png(folder / "pictures" / f"{index}.png", np.full((8, 10, 3), 9, np.uint8))
        labels = np.full((8, 10), index, np.uint8)
        labels[0] = 255
        write_png(folder / "labels" / f"{index}.png", labels)
    return write(folder)


def write_coco(folder, *, images=2):
    """Two pictures of 6 x 8; in the first a dog (run lengths) on a sofa (polygon)."""
    dog = np.zeros((6, 8), bool)
    dog[2:4, 3:5] = True
    for index in range(images):
        Image.new("RGB", (8, 6)).save(folder / f"{index}.jpg")
    content = {
        "images": [
            {"id": i + 1, "file_name": f"{i}.jpg", "height": 6, "width": 8} for i in range(2)
        ],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 18, "segmentation": dict(encode_rle(dog))},
            {"id": 2, "image_id": 1, "category_id": 63, "iscrowd": 0,
             "segmentation": [[1, 1, 7, 1, 7, 5, 1, 5]]},
        ],
        "categories": [{"id": 63, "name": "sofa"}, {"id": 18, "name": "dog"}],
    }  # fmt: skip
    (folder / "instances.json").write_text(json.dumps(content))
    return content


def test_ten_lines_of_yaml_become_a_data_set(tmp_path):
    name = register_yaml(write_garden(tmp_path))
    assert name == "garden"
    metadata = MetadataCatalog.get(name)
    assert metadata.stuff_classes == ["lawn", "flower bed", "path"]
    assert metadata.ignore_label == 255 and metadata.evaluator_type == "sem_seg"
    assert metadata.evaluation_set == {"green": [0, 1]}
    assert metadata.split == "validation"  # settings may be tuned on it
    records = DatasetCatalog.get(name)
    assert [record["image_id"] for record in records] == ["0", "1"]
    assert records[1]["sem_seg_file_name"] == str(tmp_path / "labels" / "1.png")


def test_a_config_may_name_the_file_in_place_of_the_data_set(tmp_path, toy_cfg):
    path = str(write_garden(tmp_path))
    toy_cfg.DATASETS.TEST = (path,)
    [first, _] = build_test_loader(toy_cfg, toy_cfg.DATASETS.TEST[0])
    assert first[0]["meta"] == {"dataset_name": "garden"}
    toy_cfg.DATASETS.TRAIN = (path,)
    toy_cfg.SOLVER.IMS_PER_BATCH = 2
    toy_cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 3
    samples = next(build_train_loader(toy_cfg))
    assert {s["meta"]["dataset_name"] for s in samples} == {"garden"}
    assert get_records(path) == get_records("garden")
    assert resolve_dataset("tinyscapes_val_sem_seg") == "tinyscapes_val_sem_seg"


def test_the_file_is_evaluated_under_the_name_in_it(tmp_path, evaluate_tiny):
    path = str(write_garden(tmp_path))
    metrics = evaluate_tiny(tmp_path, path)[path]
    assert {"mIoU", "mIoU-green", "pAcc-green"} <= metrics.keys()
    results = json.loads((tmp_path / "output/inference/garden/metrics.json").read_text())
    assert results["dataset"] == "garden" and results["images"]["scored"] == 2


def test_registering_again_follows_the_file_and_other_owners_keep_their_names(tmp_path):
    path = write_garden(tmp_path)
    register_yaml(path)
    register_yaml(path)
    write(tmp_path, GARDEN.replace("path]", "path, pond]"))
    register_yaml(path)
    assert MetadataCatalog.get("garden").stuff_classes[3] == "pond"
    other = write(tmp_path, name="other.yaml")
    with pytest.raises(ValueError, match=r"'garden' is taken by another dataset; change `name`"):
        register_yaml(other)


def test_paths_are_relative_to_the_file_or_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_DATA", "/elsewhere")
    text = GARDEN.replace("images: pictures", "images: $MY_DATA/pictures")
    found = DatasetYaml.read(write(tmp_path, text))
    assert str(found.images) == "/elsewhere/pictures"
    assert found.labels == tmp_path / "labels"


def test_a_shipped_class_list_may_be_named(tmp_path):
    text = GARDEN.replace("[lawn, flower bed, path]", "ade20k_847").split("    evaluation")[0]
    found = DatasetYaml.read(write(tmp_path, text))
    assert len(found.classes) == 847 and found.ignore_label == 65535


def test_a_shipped_list_brings_its_background_and_synonyms(tmp_path):
    text = "name: things\nimages: pictures\nlabels: labels\nclasses: coco_object_81\n"
    register_yaml(write(tmp_path, text))
    metadata = MetadataCatalog.get("things")
    assert metadata.background_class == 0 and len(metadata.class_synonyms) == 81
    register_yaml(write(tmp_path, text.replace("coco_object_81", "ade20k_150")))
    assert MetadataCatalog.get("things").get("background_class") is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("name: garden", "name: ../garden", r"name: expected letters, .*got '\.\./garden'"),
        ("images: pictures", "image: pictures", r"unknown key 'image'; .*did you mean 'images'"),
        ("images: pictures", "images:", r"expected a value for the key 'images'"),
        ("labels: labels", "ignore_label: 255", r"expected the key labels or coco_json, got neith"),
        ("path]", "no]", r"expected names, got False; put quotes"),
        ("path]", "lawn]", r"each name once, got twice: \['lawn'\]"),
        ("[lawn, flower bed, path]", "ade20k", r"or one of ade20k_150, .*got 'ade20k'"),
        ("labels: labels", "labels: labels\n    ignore_label: 2", r"no class, got 2, .*\(0-2\)"),
        ("validation", "dev", r"split: expected one of train, validation, val, test, got 'dev'"),
        ("[lawn, flower bed]", "[tree]", r"evaluation_set: expected names of classes.*'tree'"),
        ("    green:", "    gt:", r"evaluation_set: .*got 'gt'; .*rename the set"),
        ("classes:", "classes: !!python/object/apply:os.getcwd []\n    #", r"plain YAML"),
    ],
)
def test_unusable_files_say_what_to_change(tmp_path, old, new, message):
    path = write(tmp_path, GARDEN.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        register_yaml(path)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no dataset file .*nothing\.yaml"):
        resolve_dataset(str(tmp_path / "nothing.yaml"))
    name = register_yaml(write(tmp_path))
    with pytest.raises(DatasetFilesError, match=r"no folder .*pictures"):
        DatasetCatalog.get(name)


def test_the_ending_is_found_where_there_is_only_one(tmp_path):
    name = register_yaml(write_garden(tmp_path))
    (tmp_path / "pictures" / "notes.txt").touch()
    assert len(DatasetCatalog.get(name)) == 2
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures" / "2.jpg")
    with pytest.raises(DatasetFilesError, match=r"one kind in .*pictures, got \.jpg, \.png"):
        DatasetCatalog.get(name)
    register_yaml(write(tmp_path, GARDEN + "    image_suffix: png\n"))
    assert len(DatasetCatalog.get(name)) == 2


COCO = """
    name: rooms
    images: .
    coco_json: instances.json
"""
#  a sofa of 6 x 4 pixels from (1, 1) and a dog of 2 x 2 on it; categories in the order of ids
SOFA_AND_DOG = [
    [255, 255, 255, 255, 255, 255, 255, 255],
    [255, 1, 1, 1, 1, 1, 1, 255],
    [255, 1, 1, 0, 0, 1, 1, 255],
    [255, 1, 1, 0, 0, 1, 1, 255],
    [255, 1, 1, 1, 1, 1, 1, 255],
    [255, 255, 255, 255, 255, 255, 255, 255],
]


def test_a_coco_json_becomes_label_maps_small_things_on_large_ones(tmp_path):
    write_coco(tmp_path)
    name = register_yaml(write(tmp_path, COCO))
    assert MetadataCatalog.get(name).stuff_classes == ["dog", "sofa"]
    first, second = DatasetCatalog.get(name)
    assert (first["height"], first["width"], first["image_id"]) == (6, 8, 1)
    assert read_label(first["sem_seg_file_name"]).tolist() == SOFA_AND_DOG
    assert (read_label(second["sem_seg_file_name"]) == 255).all()


def test_outside_of_instances_is_background_where_that_is_a_class(tmp_path):
    write_coco(tmp_path)
    name = register_yaml(write(tmp_path, COCO + "    classes: [background, dog]\n"))
    labels = read_label(DatasetCatalog.get(name)[0]["sem_seg_file_name"])
    assert labels[0].tolist() == [0] * 8
    assert labels[2].tolist() == [0, 255, 255, 1, 1, 255, 255, 0]  # sofa is no class: ignored


def test_label_maps_are_drawn_once_and_again_when_the_json_changes(tmp_path):
    content = write_coco(tmp_path)
    name = register_yaml(write(tmp_path, COCO))
    file = tmp_path / "instances_labels" / "0.png"
    DatasetCatalog.get(name)
    before = file.stat().st_mtime_ns
    DatasetCatalog.get(name)
    assert file.stat().st_mtime_ns == before
    content["annotations"].pop(0)
    (tmp_path / "instances.json").write_text(json.dumps(content))
    DatasetCatalog.get(name)
    assert read_label(file)[2].tolist() == [255, 1, 1, 1, 1, 1, 1, 255]


def test_unusable_coco_files_say_what_is_wrong(tmp_path):
    content = write_coco(tmp_path, images=0)
    name = register_yaml(write(tmp_path, COCO))
    with pytest.raises(DatasetFilesError, match=r"none of the 2 pictures .*correct `images`"):
        DatasetCatalog.get(name)
    register_yaml(write(tmp_path, COCO + "    classes: [cat]\n"))
    with pytest.raises(ValueError, match=r"got \['cat'\]; its categories: dog, sofa"):
        DatasetCatalog.get(name)
    for key, change, message in (
        ("images", {"height": 2**40}, "picture pixels"),
        ("images", {"width": "9"}, "the size"),
        ("images", {"file_name": 5}, "the file name 5"),
        ("annotations", {"id": "x"}, "ids of annotations that .*such as 'x'"),
        ("categories", {"id": "x"}, "ids of categories that .*such as 'x'"),
        ("images", {"id": [1]}, "ids of images"),
    ):
        first, *others = content[key]
        changed = {**content, key: [{**first, **change}, *others]}
        (tmp_path / "instances.json").write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=rf"instances\.json: expected a COCO .*{message}"):
            register_yaml(write(tmp_path, COCO))
    del content["categories"]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"expected a COCO JSON .*KeyError: 'categories'"):
        register_yaml(write(tmp_path, COCO))


def test_a_json_cannot_make_files_outside_of_its_folder(tmp_path):
    content = write_coco(tmp_path)
    (tmp_path / "sub").mkdir()
    content["images"][0]["file_name"] = "../0.jpg"
    (tmp_path / "instances.json").write_text(json.dumps(content))
    name = register_yaml(write(tmp_path, COCO.replace("images: .", "images: sub")))
    with pytest.raises(ValueError, match=r"below the folder of the pictures, got '\.\./0\.jpg'"):
        DatasetCatalog.get(name)


def test_broken_segmentations_are_named():
    bad = {"id": 7, "category_id": 1, "segmentation": {"size": [3, 3], "counts": "02"}}
    with pytest.raises(ValueError, match=r"annotation 7: expected size \(6, 8\), got \(3, 3\)"):
        draw_labels([bad], (6, 8), {1: 0}, outside=255)
    with pytest.raises(ValueError, match=r"annotation 8: expected polygons of at least three"):
        draw_labels([{**bad, "id": 8, "segmentation": [[1, 1, 2, 2]]}], (6, 8), {1: 0}, outside=9)
    with pytest.raises(ValueError, match=r"annotations \[7\]: expected a category"):
        draw_labels([bad], (3, 3), {2: 0}, outside=255)
    empty = draw_labels([{**bad, "segmentation": []}], (2, 2), {1: 0}, outside=255)
    assert (empty == 255).all()
    runs = {"size": [2, 3], "counts": [2, 3, 1]}  # column by column: 2 off, 3 on, 1 off
    drawn = draw_labels(
        [{**bad, "segmentation": runs}], (2, 3), {1: 4}, outside=300, dtype=np.uint16
    )
    assert drawn.tolist() == [[300, 4, 4], [300, 4, 300]]


@pytest.mark.parametrize("word", ["val", "validation"])
def test_both_words_for_the_validation_split_are_understood(tmp_path, word):
    text = GARDEN.replace("split: validation", f"split: {word}")
    assert DatasetYaml.read(write(tmp_path, text)).split == "validation"


def test_a_file_in_another_encoding_is_named(tmp_path):
    path = tmp_path / "set.yaml"
    path.write_bytes(textwrap.dedent(GARDEN).replace("lawn", "Wüste").encode("latin-1"))
    with pytest.raises(ValueError, match=r"set\.yaml: expected text in UTF-8, got the byte 0xfc"):
        register_yaml(path)


@pytest.mark.parametrize("labels", [".", "link", "sub/.."])
def test_label_maps_are_never_drawn_over_the_pictures(tmp_path, labels):
    content = write_coco(tmp_path)
    for image in content["images"]:  # as PNG, so that the names are the same
        file = tmp_path / image["file_name"]
        image["file_name"] = str(Path(image["file_name"]).with_suffix(".png"))
        file.rename(tmp_path / image["file_name"])
    (tmp_path / "instances.json").write_text(json.dumps(content))
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}
    name = register_yaml(write(tmp_path, COCO + f"    labels: {labels}\n"))
    with pytest.raises(ValueError, match=r"labels: expected a folder of its own"):
        DatasetCatalog.get(name)
    assert len(before) == 2
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == before


def test_label_maps_of_somebody_else_are_not_drawn_over(tmp_path):
    write_coco(tmp_path)
    mine = tmp_path / "mine" / "0.png"
    write_png(mine, np.full((6, 8), 3, np.uint8))
    before = mine.read_bytes()
    name = register_yaml(write(tmp_path, COCO + "    labels: mine\n"))
    with pytest.raises(PreparationError, match=r"0\.png: 1 file would be written over"):
        DatasetCatalog.get(name)
    assert mine.read_bytes() == before
    assert [path.name for path in mine.parent.glob("*.png")] == ["0.png"]


@pytest.mark.parametrize("number", ["NaN", "1e8", "Infinity"])
def test_a_coordinate_that_is_no_place_names_its_annotation(tmp_path, number):
    content = write_coco(tmp_path)
    text = json.dumps(content).replace('"segmentation": [[', f'"segmentation": [[{number}, ', 1)
    text = text.replace(f"[[{number}, ", f"[[{number}, 1, ", 1)
    (tmp_path / "instances.json").write_text(text)
    name = register_yaml(write(tmp_path, COCO))
    with pytest.raises(PreparationError, match=r"annotation \d+: expected polygons in or around"):
        DatasetCatalog.get(name)
