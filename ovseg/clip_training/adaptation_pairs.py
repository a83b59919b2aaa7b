"""The pairs that a CLIP is adapted on: from labels, from mined records, or from both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from ovseg.clip_training.config import ClipTrainConfig
from ovseg.clip_training.mined_pairs import open_records
from ovseg.data.balanced_pairs import NounBalancedPairs
from ovseg.data.label_pairs import JoinedPairDataset, LabelPairDataset
from ovseg.data.labelled import LabelledPictures
from ovseg.data.pairs import ArrayPairDataset, PairDataset, RecordPairDataset
from ovseg.mining.records import filter_records

__all__ = ["adaptation_pairs", "join_pairs", "label_pairs", "record_pairs"]

logger = logging.getLogger(__name__)


def adaptation_pairs(
    config: ClipTrainConfig,
    *,
    image_size: tuple[int, int],
    labels: str | None = None,
    labels_limit: int | None = None,
    records: Sequence[str | Path] = (),
    mutual: bool = True,
) -> PairDataset:
    """Collect pairs in memory: what `tools/train_clip.py` trains on, for small training sets.

    Args:
        config: template, damage, shares, cropping and seed.
        image_size: (height, width) that the CLIP takes.
        labels: training set whose labels give pairs; None takes none.
        labels_limit: number of its pictures, from the first one on; None takes all.
        records: folders of the miner or record files.
        mutual: of records matched with captions, take those that chose each other.

    Returns:
        The pairs. Pictures with labels are kept whole, because each sample's mask is damaged anew.

    Raises:
        FileNotFoundError, ValueError: labels or records that cannot be used, or neither is given.
    """
    from_labels = from_records = None
    if labels is not None:
        from_labels = label_pairs(
            labels, config, image_size=image_size, limit=labels_limit, in_memory=True
        )
    if records:
        table, root = open_records(records)
        table = filter_records(table, mutual=mutual)
        from_records = ArrayPairDataset.load(record_pairs(table, root, config, image_size))
    return join_pairs(config, from_labels, from_records)


def label_pairs(
    dataset: str,
    config: ClipTrainConfig,
    *,
    image_size: tuple[int, int],
    limit: int | None = None,
    index_file: Path | None = None,
    in_memory: bool = False,
) -> LabelPairDataset:
    """Make pairs of the labels of a training set.

    Args:
        dataset: see `ovseg.data.labelled.LabelledPictures`.
        config: template, damage, cropping, seed and, for the first reading, workers count.
        image_size: (height, width) that the CLIP takes.
        limit: number of pictures, from the first one on; None takes all.
        index_file: where the list of regions is kept between runs.
        in_memory: whether the pictures are kept; else each sample reads its own.

    Returns:
        The pairs, one per class and picture.

    Raises:
        FileNotFoundError, ValueError: a dataset that cannot be used.
    """
    files = LabelledPictures(dataset, limit=limit)
    regions = files.regions(workers=config.workers, index_file=index_file)
    logger.info("%s: %d regions in %d pictures", files.name, len(regions), len(files))
    return LabelPairDataset(
        [files[number] for number in range(len(files))] if in_memory else files,
        regions,
        nouns={number: words[0] for number, words in files.words.items()},
        image_size=image_size,
        damage=config.damage,
        template=config.template,
        expand_ratio=config.expand_ratio,
        min_scale=config.min_scale,
        seed=config.seed,
    )


def record_pairs(
    records: pa.Table, image_root: Path, config: ClipTrainConfig, image_size: tuple[int, int]
) -> RecordPairDataset:
    """Make pairs of mined records.

    Args:
        records: those to train on.
        image_root: folder that their relative addresses lie in.
        config: template, cropping and seed count.
        image_size: (height, width) that the CLIP takes.

    Returns:
        The pairs, in the order of the records.
    """
    return RecordPairDataset(
        records,
        image_root=image_root,
        image_size=image_size,
        template=config.template,
        expand_ratio=config.expand_ratio,
        min_scale=config.min_scale,
        seed=config.seed,
    )


def join_pairs(
    config: ClipTrainConfig, labels: PairDataset | None, others: PairDataset | None
) -> PairDataset:
    """Put pairs from labels and other pairs together, in the shares that the config says.

    Args:
        config: `label_share`, `noun_exponent` and seed count.
        labels: None where there are none.
        others: likewise.

    Returns:
        One of them, or both joined.

    Raises:
        ValueError: there are neither, or one of them is empty.
    """
    given = [pairs for pairs in (labels, others) if pairs is not None]
    if not given:
        raise ValueError("expected labels, mined pairs or both, got neither")
    joined = given[0]
    if len(given) > 1:
        share = config.label_share
        joined = JoinedPairDataset(given, shares=None if share is None else (share, 1 - share))
    if config.noun_exponent == 1:
        return joined
    return NounBalancedPairs(joined, exponent=config.noun_exponent, seed=config.seed)
