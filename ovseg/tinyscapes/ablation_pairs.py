"""The pairs that the ablation adapts CLIP on: from true labels, and from captions by mining."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ovseg.clip_training.accuracy import label_regions
from ovseg.clip_training.adaptation_pairs import adaptation_pairs
from ovseg.clip_training.config import ClipTrainConfig
from ovseg.data.captions.sources import open_source
from ovseg.data.catalog import dataset_root
from ovseg.data.pairs import ArrayPairDataset, PairDataset, RecordPairDataset
from ovseg.miner import load_parts
from ovseg.mining.executors import run_mining
from ovseg.mining.nouns import NounConfig
from ovseg.mining.options import ModelChoice
from ovseg.mining.parts import MiningConfig, MiningParts
from ovseg.mining.records import read_records
from ovseg.tinyscapes import ALL_NAMES, SEEN_NAMES, ensure_split, render_scene

__all__ = [
    "PAIRS",
    "class_pairs",
    "collect_pairs",
    "mine_training_pictures",
    "records_of",
    "without_mask",
]

PAIRS = (
    "classes",
    "all_classes",
    "true_masks",
    "mined_1",
    "mined_5",
    "mutual",
    "unmasked",
    "adaptation",
)
# Folders of mining runs.
MINED, TRUE_MASKS, BESIDE_LABELS = "mined", "true_masks_mined", "mined_beside_labels"
TRAINING_SET = "tinyscapes_train_sem_seg"
TEMPLATE = "a photo of a {}."
MIN_PIXELS = 32  # smaller regions of true labels are left out


def records_of(kind: str) -> str:
    """Folder of the mining run that a row's pairs come from; "" for pairs of true labels."""
    if kind in ("", "classes", "all_classes"):
        return ""
    return {"true_masks": TRUE_MASKS, "adaptation": BESIDE_LABELS}.get(kind, MINED)


def collect_pairs(
    kind: str,
    *,
    folder: Path,
    base: Path,
    pictures: int,
    image_size: tuple[int, int],
    config: ClipTrainConfig,
    workers: int = 1,
) -> PairDataset:
    """Collect the pairs of one row.

    Args:
        kind: one of `PAIRS`: class names on true masks ("classes" of the seen ones only), nouns
            of one caption on true masks of the seen classes, nouns of one or of five captions on
            proposals, of the latter only those pairs whose noun is the region's best, too, of the
            former with their boxes unmasked, or what the bundled model's CLIP is adapted to
            ("adaptation").
        folder: where mining leaves its records; finished ones are used again.
        base: weights of the model that proposes and scores.
        pictures: training pictures that are used, from the first one on.
        image_size: of the CLIP.
        config: of the run that trains on them; its seed is that of the random crops.
        workers: processes that mine.

    Returns:
        The pairs, in memory.

    Raises:
        ValueError: an unknown kind.
    """
    if kind not in PAIRS:
        raise ValueError(f"pairs: expected one of {PAIRS}, got {kind!r}")
    mined = records_of(kind)
    if not mined:
        seen_only = kind == "classes"
        return class_pairs(pictures, seen_only=seen_only, image_size=image_size, seed=config.seed)
    records = mine_training_pictures(folder, base, pictures, records=mined, workers=workers)
    if kind == "adaptation":
        return adaptation_pairs(
            config,
            image_size=image_size,
            labels=TRAINING_SET,
            labels_limit=pictures,
            records=[folder / mined],
        )
    if kind == "mutual":
        records = records.filter(records["mutual"])
    elif kind != "mined_5":
        records = records.filter(pc.equal(records["caption_index"], 0))
    pairs = ArrayPairDataset.load(
        RecordPairDataset(
            records,
            image_size=image_size,
            image_root=_pictures_folder(),
            template=TEMPLATE,
            seed=config.seed,
        )
    )
    return without_mask(pairs) if kind == "unmasked" else pairs


def mine_training_pictures(
    folder: Path, base: Path, pictures: int, *, records: str = MINED, workers: int = 1
) -> pa.Table:
    """Mine tinyscapes' training pictures with all five captions; the first one's come first.

    Args:
        folder: where the run lies; an interrupted one is continued.
        base: weights of the model.
        pictures: how many.
        records: name of the run's folder; that of `TRUE_MASKS` matches nouns to the true masks of
            seen classes instead of proposals, that of `BESIDE_LABELS` names proposals on labelled
            regions by their labels.
        workers: processes.

    Returns:
        The records.
    """
    annotations = ensure_split(dataset_root(), "train") / "annotations"
    source = open_source(annotations / "captions_train2017.json", "coco")
    config = MiningConfig(captions="all", shard_size=100, nouns=NounConfig(lemma=True))
    labels = TRAINING_SET if records == BESIDE_LABELS else ""
    choice = ModelChoice(weights=str(base), labels=labels)
    make_parts = functools.partial(_make_parts, config, choice, records == TRUE_MASKS)
    run_mining(
        source, config, folder / records, make_parts=make_parts, workers=workers, limit=pictures
    )
    return read_records(folder / records)


def _make_parts(config: MiningConfig, choice: ModelChoice, true_masks: bool) -> MiningParts:
    parts = load_parts(config, choice)
    return dataclasses.replace(parts, proposer=_TrueMasks()) if true_masks else parts


class _TrueMasks:
    """The regions that training labels show: one per seen class and picture."""

    name = "tinyscapes training labels"

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        labels = render_scene("train", int(image_id)).labels
        ids, counts = np.unique(labels, return_counts=True)
        shown = ids[(ids < len(SEEN_NAMES)) & (counts >= MIN_PIXELS)]
        return labels == shown[:, None, None]  # (Q, H, W)


def _pictures_folder() -> Path:
    return dataset_root() / "tinyscapes" / "train2017"


def class_pairs(
    pictures: int, *, seen_only: bool, image_size: tuple[int, int], seed: int
) -> ArrayPairDataset:
    """Take the true region of every class of training scenes, with the class name.

    As in the paper's set from ground truth there is one region per class and picture.

    Args:
        pictures: scenes, from the first one on.
        seen_only: take the seen classes only; else all of them, which nothing but a ceiling may.
        image_size: of the CLIP.
        seed: of the random crops.

    Returns:
        The pairs, in memory.
    """
    scenes = (render_scene("train", index) for index in range(pictures))
    return label_regions(
        ((scene.image, scene.labels) for scene in scenes),
        SEEN_NAMES if seen_only else ALL_NAMES,
        image_size=image_size,
        min_pixels=MIN_PIXELS,
        template=TEMPLATE,
        seed=seed,
    )


def without_mask(pairs: ArrayPairDataset) -> ArrayPairDataset:
    """The same crops with their surroundings left in."""
    regions = (pairs.region(index) for index in range(len(pairs)))
    return ArrayPairDataset(
        ((image, np.ones_like(mask)) for image, mask in regions),
        texts=pairs.texts,
        nouns=pairs.nouns,
        image_size=pairs.image_size,
        min_scale=pairs.min_scale,
        seed=pairs.seed,
    )
