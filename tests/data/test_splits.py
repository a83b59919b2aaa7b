from __future__ import annotations

import pytest

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.benchmarks import BENCHMARKS
from ovseg.data.catalog import register_builtin
from ovseg.data.splits import TEST_SPLIT_FLAG, SplitError, require_tunable, split_role


@pytest.fixture
def registered(tmp_path):
    before, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    register_builtin(tmp_path)
    yield
    for catalogue, old in ((DatasetCatalog, before), (MetadataCatalog, metadata)):
        catalogue.data.clear()
        catalogue.data.update(old)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("tinyscapes_train_sem_seg", "train"),
        ("tinyscapes_val_sem_seg", "validation"),
        ("tinyscapes_test_sem_seg", "test"),
        ("coco_2017_train_stuff_sem_seg", "train"),
        ("coco_2017_train_stuff_10k_sem_seg", "train"),
        ("ade20k_sem_seg_train", "train"),
        ("ade20k_sem_seg_val", "test"),
        ("ade20k_full_sem_seg_val", "test"),
        ("pascal_context_459_sem_seg_val", "test"),
        ("pascalvoc20_sem_seg_val", "test"),
        ("street_train2017", "train"),
        ("trains_of_the_world", "unknown"),
        ("my_pictures", "unknown"),
    ],
)
def test_the_val_split_of_a_benchmark_is_a_test_split_unless_there_is_another(
    registered, name, role
):
    assert split_role(name) == role


def test_every_benchmark_that_papers_report_is_refused(registered):
    names = [f.name for f in BENCHMARKS if "_val" in f.name and f.classes != "tinyscapes"]
    assert len(names) == 12
    for name in names:
        with pytest.raises(SplitError, match=f"{name}', a test split"):
            require_tunable(name)


def test_a_test_split_that_somebody_else_registers_opens_no_benchmark_to_tuning(registered):
    # Detectron2 has one of this name.
    if "cityscapes_fine_sem_seg_test" not in DatasetCatalog.list():
        DatasetCatalog.register("cityscapes_fine_sem_seg_test", list)
    assert split_role("cityscapes_fine_sem_seg_val") == "test"
    DatasetCatalog.register("garden_val", list)
    assert split_role("garden_val") == "test"
    DatasetCatalog.register("garden_test", list)
    assert split_role("garden_val") == "validation"


def test_the_refusal_names_what_may_be_used_and_the_words_to_insist(registered):
    with pytest.raises(SplitError) as refused:
        require_tunable("tinyscapes_test_sem_seg")
    assert "'tinyscapes_val_sem_seg'" in str(refused.value)
    assert "'tinyscapes_test_sem_seg'" not in str(refused.value).split("Choose them on")[1]
    assert TEST_SPLIT_FLAG == "--i-know-this-is-the-test-split"
    assert TEST_SPLIT_FLAG in str(refused.value)
    assert require_tunable("tinyscapes_test_sem_seg", known_as_test=True) == "test"
    with pytest.raises(KeyError, match="tinyscapes_vall"):
        require_tunable("tinyscapes_vall")


def test_what_the_metadata_say_counts_more_than_the_name(registered):
    DatasetCatalog.register("my_pictures", list)
    with pytest.raises(SplitError, match="unknown purpose"):
        require_tunable("my_pictures")
    MetadataCatalog.get("my_pictures").set(split="validation")
    assert require_tunable("my_pictures") == "validation"
    DatasetCatalog.register("my_train", list)
    MetadataCatalog.get("my_train").set(split="test")
    with pytest.raises(SplitError, match="a test split"):
        require_tunable("my_train")
