"""The benchmarks as data: where their files lie, how many there are, what makes their labels.

Folder layouts are those that users of Detectron2-based open-vocabulary projects have on disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ovseg.vocab import class_list

__all__ = ["BENCHMARKS", "SemSegFolders"]

Role = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class SemSegFolders:
    """A dataset of pictures and label maps of the same names.

    Args:
        name: name in the catalogue.
        classes: name of its class list.
        images: folder of the pictures, below the root of all datasets; a part `*` stands for
            every folder there.
        labels: folder of the label maps; `*` likewise.
        image_suffix: ending of the pictures; with a dot in it, such as `_leftImg8bit.png`, it is
            cut off the name in full.
        label_suffix: ending of the label maps; likewise.
        ignore_label: label of pixels without a class.
        count: published number of pictures, None where the publications disagree.
        listings: files with the names of the split, one a line, the first that is there counts;
            none where folders are splits.
        partial: label maps of nothing but ignored pixels are left out, so that a picture without
            one is no mistake.
        script: what makes the label maps.
        split: what the pictures are for; nothing is tuned on "test".
        seen_only: the label maps show the seen classes of the list only.
        maker: module, function and further argument of a dataset that can make its own files:
            `function(root, argument)` is called before they are listed. In words, because such a
            dataset is built on top of this package.
        counted_in: JSON file that says under `images` how many pictures were made.
    """

    name: str
    classes: str
    images: str
    labels: str
    image_suffix: str = "jpg"
    label_suffix: str = "png"
    ignore_label: int = 255
    count: int | None = None
    listings: tuple[str, ...] = ()
    partial: bool = False
    script: str = ""
    split: Role = "test"
    seen_only: bool = False
    maker: tuple[str, str, str] | None = None
    counted_in: str | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes in the label maps, in the order of the labels."""
        classes = class_list(self.classes)
        return tuple(classes.names[i] for i in classes.seen) if self.seen_only else classes.names


def _role(split: str) -> Role:
    """The "val" of most benchmarks is what papers report: their test labels are not public."""
    return "train" if split == "train" else "test"


def _coco() -> list[SemSegFolders]:
    """COCO-Stuff, its edition of 10 000 pictures, and COCO-Object.

    The test set of the 10k edition is MaskFormer's, the validation set that of its successors.
    """
    stuff = [
        SemSegFolders(
            name=name,
            classes="coco_stuff_171",
            images=f"coco/{split}2017",
            labels=f"coco/stuffthingmaps_detectron2/{split}2017",
            count=count,
            partial=True,
            script="datasets/prepare_coco_stuff.py",
            split=_role(split),
        )
        for name, split, count in (
            ("coco_2017_train_stuff_sem_seg", "train", 118287),
            ("coco_2017_val_stuff_all_sem_seg", "val", 5000),
        )
    ]
    edition_10k = [
        SemSegFolders(
            name=f"coco_2017_{split}_stuff_10k_sem_seg",
            classes="coco_stuff_171",
            images=f"coco/coco_stuff_10k/images_detectron2/{split}",
            labels=f"coco/coco_stuff_10k/annotations_detectron2/{split}",
            script="datasets/prepare_coco_stuff_10k.py",
            split=_role(split),
        )
        for split in ("train", "test")
    ]
    objects = SemSegFolders(
        name="coco_object_81_sem_seg_val",
        classes="coco_object_81",
        images="coco/val2017",
        labels="coco/object_detectron2/val2017",
        count=5000,
        script="datasets/prepare_coco_object.py",
    )
    return [*stuff, *edition_10k, objects]


def _ade20k() -> list[SemSegFolders]:
    small = [
        SemSegFolders(
            name=f"ade20k_sem_seg_{split}",
            classes="ade20k_150",
            images=f"ADEChallengeData2016/images/{folder}",
            labels=f"ADEChallengeData2016/annotations_detectron2/{folder}",
            count=count,
            script="datasets/prepare_ade20k.py",
            split=_role(split),
        )
        for split, folder, count in (("train", "training", 20210), ("val", "validation", 2000))
    ]
    full = SemSegFolders(
        name="ade20k_full_sem_seg_val",
        classes="ade20k_847",
        images="ADE20K_2021_17_01/images_detectron2/validation",
        labels="ADE20K_2021_17_01/annotations_detectron2/validation",
        label_suffix="tif",
        ignore_label=65535,
        count=2000,
        script="datasets/prepare_ade20k_full.py",
    )
    return [*small, full]


def _pascal_voc() -> list[SemSegFolders]:
    """VOC-20 and VOC-21; pictures and lists serve both."""
    base = "VOCdevkit/VOC2012"
    return [
        SemSegFolders(
            name=f"pascalvoc{classes}_sem_seg_{split}",
            classes=f"pascal_voc_{classes}",
            images=f"{base}/JPEGImages",
            labels=f"{base}/annotations_detectron2/{prefix}{split}",
            listings=(f"{base}/ImageSets/Segmentation/{split}.txt",),
            count=count,
            partial=classes == 20,
            script="datasets/prepare_voc.py",
            split=_role(split),
        )
        for classes, prefix in ((20, ""), (21, "voc21_"))
        for split, count in (("train", 1464), ("val", 1449))
    ]


def _pascal_context() -> list[SemSegFolders]:
    base = "VOCdevkit/VOC2010"
    return [
        SemSegFolders(
            name=f"pascal_context_{classes}_sem_seg_{split}",
            classes=f"pascal_context_{classes}",
            images=f"{base}/JPEGImages",
            labels=f"{base}/annotations_detectron2/pc{classes}_{split}",
            label_suffix="tif" if classes == 459 else "png",
            ignore_label=65535 if classes == 459 else 255,
            listings=(
                f"{base}/pascalcontext_{split}.txt",
                f"{base}/ImageSets/SegmentationContext/{split}.txt",
            ),
            script="datasets/prepare_pascal_context.py",
            split=_role(split),
        )
        for classes in (59, 60, 459)
        for split in ("train", "val")
    ]


def _cityscapes() -> list[SemSegFolders]:
    """Under Detectron2's names, with the label files of the benchmark's own scripts."""
    return [
        SemSegFolders(
            name=f"cityscapes_fine_sem_seg_{split}",
            classes="cityscapes_19",
            images=f"cityscapes/leftImg8bit/{split}/*",
            labels=f"cityscapes/gtFine/{split}/*",
            image_suffix="_leftImg8bit.png",
            label_suffix="_gtFine_labelTrainIds.png",
            count=count,
            script="datasets/prepare_cityscapes.py",
            split=_role(split),
        )
        for split, count in (("train", 2975), ("val", 500))
    ]


def _aerial() -> list[SemSegFolders]:
    loveda = [
        SemSegFolders(
            name=f"loveda_sem_seg_{split}",
            classes="loveda",
            images=f"LoveDA/{split.capitalize()}/*/images_png",
            labels=f"LoveDA/annotations_detectron2/{split}",
            image_suffix="png",
            count=count,
            partial=True,
            script="datasets/prepare_loveda.py",
            split=_role(split),
        )
        for split, count in (("train", 2522), ("val", 1669))
    ]
    vaihingen = [
        SemSegFolders(
            name=f"vaihingen_sem_seg_{split}",
            classes="vaihingen",
            images=f"Vaihingen/images_detectron2/{split}",
            labels=f"Vaihingen/annotations_detectron2/{split}",
            image_suffix="png",
            count=count,
            script="datasets/prepare_vaihingen.py",
            split=_role(split),
        )
        for split, count in (("train", 344), ("val", 398))
    ]
    return [*loveda, *vaihingen]


def _tinyscapes() -> list[SemSegFolders]:
    """The miniature world, which has a test split beside the one that settings are tuned on."""
    roles: dict[str, Role] = {"train": "train", "val": "validation", "test": "test"}
    return [
        SemSegFolders(
            name=f"tinyscapes_{split}_sem_seg",
            classes="tinyscapes",
            images=f"tinyscapes/{split}2017",
            labels=f"tinyscapes/stuffthingmaps/{split}2017",
            script="datasets/prepare_tinyscapes.py",
            split=role,
            seen_only=split == "train",
            maker=("ovseg.tinyscapes", "ensure_split", split),
            counted_in=f"tinyscapes/version_{split}.json",
        )
        for split, role in roles.items()
    ]


BENCHMARKS = (
    *_coco(),
    *_ade20k(),
    *_pascal_voc(),
    *_pascal_context(),
    *_cityscapes(),
    *_aerial(),
    *_tinyscapes(),
)
"""All datasets with folders of label maps; `ovseg.data.catalog` registers them."""
