"""From a dataset record to what a model takes.

A record is Detectron2's dict: `file_name`, `sem_seg_file_name`, optionally `height` and `width`,
and `meta` with the `dataset_name`. A mapper adds `image` and, for training, `instances`.

Training samples come from the mapper that `INPUT.DATASET_MAPPER_NAME` names: a function in
`TRAIN_MAPPER_REGISTRY` that takes the config. A method's module can register its own. One that is
not trained on label maps brings its `records`, a sequence of dicts with a `file_name` each, which
then stand for those of DATASETS.TRAIN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fvcore.common.registry import Registry

from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.data import MetadataCatalog
from ovseg.d2.structures import Instances
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.segment_augmentation import FREE_LABEL, SegmentAugmentation
from ovseg.data.transforms import ColorAugSSD, Labelled, TrainTransform
from ovseg.readers.pictures import ImageError, read_image, read_label
from ovseg.utils.resizing import resize_shortest_edge

__all__ = [
    "LABEL_MAP_MAPPER",
    "TRAIN_MAPPER_REGISTRY",
    "TestMapper",
    "TrainMapper",
    "build_train_mapper",
    "check_labels",
    "semantic_instances",
]

TRAIN_MAPPER_REGISTRY = Registry("TRAIN_MAPPER")
LABEL_MAP_MAPPER = "mask_former_semantic"  # the one below; others bring records of their own


def build_train_mapper(
    cfg: CfgNode,
) -> Callable[[Mapping[str, Any], np.random.Generator], dict[str, Any]]:
    """Build the mapper that `cfg.INPUT.DATASET_MAPPER_NAME` names.

    Args:
        cfg: a full config.

    Returns:
        Callable from a dataset record and a random generator to a training sample.

    Raises:
        ValueError: if no mapper of that name is registered.
    """
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in TRAIN_MAPPER_REGISTRY:
        choices = sorted(known for known, _ in TRAIN_MAPPER_REGISTRY)
        raise ValueError(
            f"expected INPUT.DATASET_MAPPER_NAME to be one of {choices}, got {name!r}; a method's "
            "module may register its own in ovseg.data.mappers.TRAIN_MAPPER_REGISTRY"
        )
    return TRAIN_MAPPER_REGISTRY.get(name)(cfg)


@TRAIN_MAPPER_REGISTRY.register()
def mask_former_semantic(cfg: CfgNode) -> TrainMapper:
    """Build the mapper that upstream's configs name: one mask per class of the label map."""
    return TrainMapper(cfg)


class TrainMapper:
    """Read a picture and its labels, change both at random, and give one mask per class.

    Args:
        transform: the random changes.
        ignore_label: label of pixels without a class.
        num_classes: labels must be below this.
        segments: changes of single segments after that; None for none.
    """

    @configurable
    def __init__(
        self,
        *,
        transform: TrainTransform,
        ignore_label: int,
        num_classes: int,
        segments: SegmentAugmentation | None = None,
    ) -> None:
        self.transform = transform
        self.ignore_label = ignore_label
        self.num_classes = num_classes
        self.segments = segments

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the INPUT section of a config, and the ignore label of the training set."""
        head = cfg.MODEL.SEM_SEG_HEAD
        ignore_label = head.IGNORE_VALUE
        if cfg.DATASETS.TRAIN:
            metadata = MetadataCatalog.get(resolve_dataset(cfg.DATASETS.TRAIN[0]))
            ignore_label = metadata.get("ignore_label", ignore_label)
        crop = cfg.INPUT.CROP
        _require("INPUT.FORMAT", cfg.INPUT.FORMAT, "RGB")
        _require("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, "horizontal", "none")
        if crop.ENABLED:
            _require("INPUT.CROP.TYPE", crop.TYPE, "absolute")
        short_edges = cfg.INPUT.MIN_SIZE_TRAIN
        transform = TrainTransform(
            short_edges=(short_edges,) if isinstance(short_edges, int) else tuple(short_edges),
            max_size=cfg.INPUT.MAX_SIZE_TRAIN,
            sampling=cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING,
            crop_size=(int(crop.SIZE[0]), int(crop.SIZE[1])) if crop.ENABLED else None,
            max_area=crop.SINGLE_CATEGORY_MAX_AREA,
            color=ColorAugSSD() if cfg.INPUT.COLOR_AUG_SSD else None,
            flip=cfg.INPUT.RANDOM_FLIP == "horizontal",
            size_divisibility=cfg.INPUT.SIZE_DIVISIBILITY,
            ignore_label=ignore_label,
        )
        return {
            "transform": transform,
            "ignore_label": ignore_label,
            "num_classes": head.NUM_CLASSES,
            "segments": _segment_augmentation(cfg, ignore_label),
        }

    def __call__(
        self, record: Mapping[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Make a training sample.

        Args:
            record: dataset record, left unchanged.
            rng: source of all random choices; None draws from fresh entropy.

        Returns:
            The record with `image` (3, H, W) uint8 RGB, `height` and `width` of the file, and
            `instances`: `gt_classes` (N,) int64, sorted but for segments without a class, which
            come last as -1, and `gt_masks` (N, H, W) bool; `ignored` (H, W) bool: padding and
            pixels without a label.

        Raises:
            ImageError: a file is unreadable, or picture and labels differ in size.
            ValueError: a label is not below `num_classes`.
        """
        image = _read_picture(record)
        labels = check_labels(
            record["sem_seg_file_name"],
            num_classes=self.num_classes,
            ignore_label=self.ignore_label,
        )
        if labels.shape != image.shape[:2]:
            raise ImageError(
                f"{record['sem_seg_file_name']}: expected labels of the picture's size "
                f"{image.shape[:2]}, got {labels.shape} (height, width)"
            )
        rng = np.random.default_rng() if rng is None else rng
        sample = self.transform(Labelled(image, labels), rng)
        if self.segments is not None:
            sample = self.segments(sample, rng)
        return {
            **record,
            "height": image.shape[0],
            "width": image.shape[1],
            "image": _to_tensor(sample.image),
            "instances": semantic_instances(sample.labels, self.ignore_label),
            "ignored": torch.from_numpy(sample.labels == self.ignore_label),
        }


class TestMapper:
    """Read a picture and resize it for inference; the labels are not touched.

    Args:
        short: length of the shorter edge, pixels; 0 keeps the size.
        max_size: longest allowed edge, pixels.
    """

    __test__ = False  # not a test class, whatever its name

    @configurable
    def __init__(self, *, short: int, max_size: int) -> None:
        self.short = short
        self.max_size = max_size

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the INPUT section of a config."""
        _require("INPUT.FORMAT", cfg.INPUT.FORMAT, "RGB")
        return {"short": cfg.INPUT.MIN_SIZE_TEST, "max_size": cfg.INPUT.MAX_SIZE_TEST}

    def __call__(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Make a test input.

        Args:
            record: dataset record, left unchanged.

        Returns:
            The record with `image` (3, h, w) uint8 RGB, `height` and `width` of the file.

        Raises:
            ImageError: the picture is unreadable or not of the size the record states.
        """
        image = _read_picture(record)
        resized = resize_shortest_edge(image, self.short, self.max_size)
        return {
            **record,
            "height": image.shape[0],
            "width": image.shape[1],
            "image": _to_tensor(resized),
        }


def check_labels(path: str | Path, *, num_classes: int, ignore_label: int) -> np.ndarray:
    """Read a label map of a training set.

    Args:
        path: the file.
        num_classes: labels must be below this.
        ignore_label: label of pixels without a class.

    Returns:
        (H, W) integers.

    Raises:
        ImageError: the file is unreadable.
        ValueError: a label is no class. Not an ImageError, which would quarantine the picture: one
            such file means that labels and classes do not belong together.
    """
    labels = read_label(path, classes=num_classes)
    if labels.size and labels[labels != ignore_label].max(initial=0) >= num_classes:
        found = np.unique(labels[(labels != ignore_label) & (labels >= num_classes)])
        raise ValueError(
            f"{path}: expected labels in 0..{num_classes - 1} or {ignore_label} (ignored), as the "
            f"dataset has {num_classes} classes, got {found[:5].tolist()}; add the classes that "
            "are missing, correct the ignore label, or convert the labels (the first class is 0)"
        )
    return labels


def semantic_instances(labels: np.ndarray, ignore_label: int) -> Instances:
    """Turn a label map into one mask per class.

    Args:
        labels: (H, W) integers.
        ignore_label: label that gets no mask.

    Returns:
        Instances with `gt_classes` (N,) int64, ascending, -1 for labels from `FREE_LABEL` on,
        which are the last, and `gt_masks` (N, H, W) bool; N = 0 where all is ignored.
    """
    classes = np.unique(labels)
    classes = classes[classes != ignore_label]
    masks = labels[None] == classes[:, None, None]  # (N, H, W)
    classes = np.where(classes < FREE_LABEL, classes, -1)
    return Instances(
        (labels.shape[0], labels.shape[1]),
        gt_classes=torch.from_numpy(classes.astype(np.int64)),
        gt_masks=torch.from_numpy(masks),
    )


def _segment_augmentation(cfg: CfgNode, ignore_label: int) -> SegmentAugmentation | None:
    """The changes that INPUT.SEGMENT_AUG asks for."""
    if not cfg.INPUT.SEGMENT_AUG.ENABLED:
        return None
    if cfg.MODEL.MASK_FORMER.QUERIES != "points":
        raise ValueError(
            "INPUT.SEGMENT_AUG.ENABLED: it makes masks without a class, which learned queries "
            "cannot be trained on; set MODEL.MASK_FORMER.QUERIES to points, or switch it off"
        )
    return SegmentAugmentation(
        changed=cfg.INPUT.SEGMENT_AUG.CHANGED,
        pasted=cfg.INPUT.SEGMENT_AUG.PASTED,
        ignore_label=ignore_label,
    )


def _read_picture(record: Mapping[str, Any]) -> np.ndarray:
    image = read_image(record["file_name"])
    stated = (record.get("height", image.shape[0]), record.get("width", image.shape[1]))
    if stated != image.shape[:2]:
        raise ImageError(
            f"{record['file_name']}: expected {stated} (height, width) as the dataset states, "
            f"got {image.shape[:2]}; the annotation belongs to another version of the picture"
        )
    return image


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))  # (3, H, W)


def _require(key: str, value: str, *valid: str) -> None:
    if value not in valid:
        raise ValueError(f"expected {key} to be one of {valid}, got {value!r}")
