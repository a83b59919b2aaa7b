from __future__ import annotations

import logging

import pytest

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import (
    BENCHMARKS,
    DatasetFilesError,
    dataset_root,
    load_sem_seg,
    register_builtin,
    register_sem_seg,
)
from ovseg.tinyscapes import ALL_NAMES, SEEN_NAMES
from tests.helpers import run_python

pytestmark = pytest.mark.usefixtures("restored_catalogues")


@pytest.fixture
def empty_catalogues() -> None:
    DatasetCatalog.data.clear()
    MetadataCatalog.data.clear()


def touch(folder, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    ("name", "num_classes", "first", "ignore"),
    [
        ("coco_2017_train_stuff_sem_seg", 171, "person", 255),
        ("coco_2017_val_stuff_all_sem_seg", 171, "person", 255),
        ("coco_2017_train_stuff_10k_sem_seg", 171, "person", 255),
        ("coco_2017_test_stuff_10k_sem_seg", 171, "person", 255),
        ("coco_object_81_sem_seg_val", 81, "background", 255),
        ("ade20k_sem_seg_train", 150, "wall", 255),
        ("ade20k_sem_seg_val", 150, "wall", 255),
        ("ade20k_full_sem_seg_val", 847, "wall", 65535),
        ("pascalvoc20_sem_seg_val", 20, "aeroplane", 255),
        ("pascal_context_59_sem_seg_val", 59, "aeroplane", 255),
        ("pascalvoc21_sem_seg_val", 21, "background", 255),
        ("pascal_context_60_sem_seg_train", 60, "background", 255),
        ("pascal_context_459_sem_seg_val", 459, "accordion", 65535),
        ("cityscapes_fine_sem_seg_val", 19, "road", 255),
        ("loveda_sem_seg_val", 7, "background", 255),
        ("vaihingen_sem_seg_val", 6, "impervious surface", 255),
        ("tinyscapes_train_sem_seg", len(SEEN_NAMES), SEEN_NAMES[0], 255),
        ("tinyscapes_val_sem_seg", len(ALL_NAMES), SEEN_NAMES[0], 255),
        ("tinyscapes_test_sem_seg", len(ALL_NAMES), SEEN_NAMES[0], 255),
    ],
)
def test_builtin_sets_need_no_files_to_register(
    empty_catalogues, tmp_path, name: str, num_classes: int, first: str, ignore: int
) -> None:
    register_builtin(tmp_path / "nothing")
    metadata = MetadataCatalog.get(name)
    assert len(metadata.stuff_classes) == num_classes
    assert metadata.stuff_classes[0] == first
    assert metadata.ignore_label == ignore
    assert metadata.evaluator_type == "sem_seg"
    assert name in DatasetCatalog.list()
    assert not (tmp_path / "nothing").exists()


def test_coco_maps_raw_ids_to_labels(empty_catalogues, tmp_path) -> None:
    register_builtin(tmp_path)
    mapping = MetadataCatalog.get("coco_2017_train_stuff_sem_seg").stuff_dataset_id_to_contiguous_id
    assert mapping[1] == 0
    assert mapping[182] == 170
    assert 12 not in mapping  # one of COCO's unused ids
    full = MetadataCatalog.get("ade20k_full_sem_seg_val")
    assert full.thing_classes == full.stuff_classes


def test_tinyscapes_states_its_groups(empty_catalogues, tmp_path) -> None:
    register_builtin(tmp_path)
    metadata = MetadataCatalog.get("tinyscapes_val_sem_seg")
    assert metadata.evaluation_set == {"seen": list(range(len(SEEN_NAMES)))}
    assert metadata.stuff_classes[: len(SEEN_NAMES)] == list(SEEN_NAMES)
    everything = sorted(i for ids in metadata.class_groups.values() for i in ids)
    assert everything == list(range(len(ALL_NAMES)))
    assert MetadataCatalog.get("tinyscapes_train_sem_seg").get("evaluation_set") is None


def test_registering_again_does_no_harm_and_moves_to_a_new_root(empty_catalogues, tmp_path) -> None:
    register_builtin(tmp_path / "a")
    register_builtin(tmp_path / "a")
    register_builtin(tmp_path / "b")
    metadata = MetadataCatalog.get("pascalvoc20_sem_seg_val")
    assert metadata.image_root == str(tmp_path / "b" / "VOCdevkit/VOC2012/JPEGImages")
    touch(tmp_path / "b" / "VOCdevkit/VOC2012/JPEGImages", "1.jpg")
    touch(tmp_path / "b" / "VOCdevkit/VOC2012/annotations_detectron2/val", "1.png")
    assert len(DatasetCatalog.get("pascalvoc20_sem_seg_val")) == 1


def test_a_name_registered_elsewhere_becomes_ours_below_the_present_root(
    empty_catalogues, tmp_path, caplog, monkeypatch
) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for name in ("cityscapes_fine_sem_seg_val", "cityscapes_fine_panoptic_val"):
        DatasetCatalog.register(name, lambda: ["theirs"])
        MetadataCatalog.get(name).set(ignore_label=0, gt_dir="theirs", evaluator_type="theirs")
    with caplog.at_level(logging.INFO, "ovseg"):
        register_builtin()
        register_builtin()
    city = tmp_path / "cityscapes"
    touch(city / "leftImg8bit" / "val" / "ulm", "ulm_1_leftImg8bit.png")
    touch(city / "gtFine" / "val" / "ulm", "ulm_1_gtFine_labelTrainIds.png")
    (record,) = DatasetCatalog.get("cityscapes_fine_sem_seg_val")
    assert record["sem_seg_file_name"].startswith(str(city))
    metadata = MetadataCatalog.get("cityscapes_fine_sem_seg_val")
    assert (metadata.ignore_label, metadata.evaluator_type) == (255, "sem_seg")
    assert metadata.get("gt_dir") is None
    said = [r.message for r in caplog.records if "registered elsewhere" in r.message]
    assert len(said) == 1 and "stands for cityscapes_fine_sem_seg_val, which" in said[0]
    assert DatasetCatalog.get("cityscapes_fine_panoptic_val") == ["theirs"]
    assert MetadataCatalog.get("cityscapes_fine_panoptic_val").gt_dir == "theirs"


def test_metadata_without_a_data_set_do_not_stand_in_the_way(empty_catalogues, tmp_path) -> None:
    MetadataCatalog.get("ade20k_sem_seg_val").set(stuff_classes=["theirs"])
    register_builtin(tmp_path)
    assert len(MetadataCatalog.get("ade20k_sem_seg_val").stuff_classes) == 150


@pytest.mark.real_d2
def test_detectron2_has_its_other_names_and_we_have_ours_below_the_root_of_now(tmp_path) -> None:
    code = (
        "import os, detectron2.data\n"
        f"os.environ['DETECTRON2_DATASETS'] = {str(tmp_path / 'now')!r}\n"
        "theirs = dict(detectron2.data.DatasetCatalog.items())\n"
        "from ovseg.data.catalog import BENCHMARKS, register_builtin; register_builtin()\n"
        "data, known = detectron2.data.DatasetCatalog, detectron2.data.MetadataCatalog\n"
        "ours = {folders.name for folders in BENCHMARKS}\n"
        "print(sorted(theirs.keys() & ours))\n"
        "print(all(data[n] is f for n, f in theirs.items() if n not in ours), len(theirs) > 50)\n"
        "print(known.get('ade20k_sem_seg_val').image_root)"
    )
    done = run_python("-c", code, OVSEG_D2="real", DETECTRON2_DATASETS=str(tmp_path / "before"))
    names, others_kept, place = done.stdout.splitlines()
    assert names == str(
        [f"{n}_sem_seg_{s}" for n in ("ade20k", "cityscapes_fine") for s in ("train", "val")]
    )
    assert others_kept == "True True"
    assert place == str(tmp_path / "now/ADEChallengeData2016/images/validation")


def test_the_root_comes_from_the_argument_then_the_environment(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    assert dataset_root("x").as_posix() == "x"
    assert dataset_root() == tmp_path
    monkeypatch.delenv("DETECTRON2_DATASETS")
    assert dataset_root().as_posix() == "datasets"


def test_missing_files_show_the_expected_tree(empty_catalogues, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_builtin()
    with pytest.raises(DatasetFilesError) as caught:
        DatasetCatalog.get("pascal_context_459_sem_seg_val")
    text = str(caught.value)
    assert "VOCdevkit/VOC2010/JPEGImages/*.jpg" in text
    assert "VOCdevkit/VOC2010/annotations_detectron2/pc459_val/*.tif" in text
    assert "datasets/prepare_pascal_context.py makes the label maps" in text
    assert f"DETECTRON2_DATASETS to the folder that holds your datasets (now {tmp_path})" in text


def test_pictures_and_labels_are_paired_by_name_not_by_place(tmp_path, caplog) -> None:
    touch(tmp_path / "images", "b.jpg", "a.jpg", "extra.jpg", "c.d.jpg", "notes.txt")
    touch(tmp_path / "labels", "a.png", "c.d.png", "orphan.png", "b.png", ".hidden.png")
    with caplog.at_level(logging.WARNING, "ovseg"):
        records = load_sem_seg(tmp_path / "labels", tmp_path / "images", name="set")
    assert [record["image_id"] for record in records] == ["a", "b", "c.d"]
    assert records[0] == {
        "file_name": str(tmp_path / "images" / "a.jpg"),
        "sem_seg_file_name": str(tmp_path / "labels" / "a.png"),
        "image_id": "a",
        "meta": {"dataset_name": "set"},
    }
    assert "has 4 jpg files" in caplog.text
    assert "has 4 png files; using the 3 that are in both" in caplog.text
    load_sem_seg(tmp_path / "labels", tmp_path / "images", name="set")
    assert caplog.text.count("has 4 jpg files") == 1


def test_complete_pairs_give_no_warning(tmp_path, caplog) -> None:
    touch(tmp_path / "images", "a.JPG")
    touch(tmp_path / "labels", "a.tif")
    records = load_sem_seg(tmp_path / "labels", tmp_path / "images", label_suffix="tif")
    assert records[0]["file_name"].endswith("a.JPG")
    assert not caplog.records


@pytest.mark.parametrize(
    ("images", "labels", "text"),
    [
        ([], ["a.png"], r"no \*\.jpg files in"),
        (["a.jpg"], ["b.png"], "none of the 1 files in"),
        (None, ["a.png"], "no folder .*images"),
    ],
)
def test_unusable_folders_are_told_apart(tmp_path, images, labels, text: str) -> None:
    if images is not None:
        touch(tmp_path / "images", *images)
    touch(tmp_path / "labels", *labels)
    with pytest.raises(DatasetFilesError, match=text):
        load_sem_seg(tmp_path / "labels", tmp_path / "images", name="mine")


def test_own_datasets_register_with_their_groups(tmp_path) -> None:
    register_sem_seg(
        "mine",
        images=tmp_path,
        labels=tmp_path,
        stuff_classes=["cat", "dog"],
        evaluation_set={"seen": [0]},
    )
    assert MetadataCatalog.get("mine").evaluation_set == {"seen": [0]}
    with pytest.raises(AssertionError, match="already registered"):
        register_sem_seg("mine", images=tmp_path, labels=tmp_path, stuff_classes=["cat"])
    with pytest.raises(ValueError, match="name of its own, got 'gt'"):
        register_sem_seg(
            "other",
            images=tmp_path,
            labels=tmp_path,
            stuff_classes=["cat"],
            evaluation_set={"gt": [0]},
        )
    assert "other" not in DatasetCatalog.list()


def test_tinyscapes_is_drawn_on_first_use(empty_catalogues, tmp_path, monkeypatch) -> None:
    drawn = []

    def ensure_split(root, split: str) -> None:
        drawn.append((root, split))
        touch(tmp_path / "tinyscapes" / "val2017", "0.jpg")
        touch(tmp_path / "tinyscapes" / "stuffthingmaps" / "val2017", "0.png")

    monkeypatch.setattr("ovseg.tinyscapes.ensure_split", ensure_split)
    register_builtin(tmp_path)
    assert drawn == []
    records = DatasetCatalog.get("tinyscapes_val_sem_seg")
    assert drawn == [(tmp_path, "val")]
    assert records[0]["meta"] == {"dataset_name": "tinyscapes_val_sem_seg"}


def test_benchmark_names_are_unique() -> None:
    names = [folders.name for folders in BENCHMARKS]
    assert len(set(names)) == len(names)
    places = [folders.labels for folders in BENCHMARKS]
    assert len(set(places)) == len(places)


def test_a_star_stands_for_every_folder_and_long_endings_are_cut_off_in_full(tmp_path) -> None:
    touch(tmp_path / "images" / "ulm", "ulm_1_picture.png", "ulm_2_picture.png")
    touch(tmp_path / "images" / "aachen", "aachen_1_picture.png", "aachen_1_depth.png")
    touch(tmp_path / "labels" / "ulm" / "fine", "ulm_1_labels.png")
    touch(tmp_path / "labels" / "aachen" / "fine", "aachen_1_labels.png")
    touch(tmp_path / "labels" / "empty")
    records = load_sem_seg(
        tmp_path / "labels" / "*" / "fine",
        tmp_path / "images" / "*",
        image_suffix="_picture.png",
        label_suffix="_labels.png",
    )
    assert [record["image_id"] for record in records] == ["aachen_1", "ulm_1"]
    assert records[1]["sem_seg_file_name"] == str(tmp_path / "labels/ulm/fine/ulm_1_labels.png")
    with pytest.raises(DatasetFilesError, match=r"no folder .*nothing"):
        load_sem_seg(tmp_path / "labels" / "*", tmp_path / "nothing" / "*")
