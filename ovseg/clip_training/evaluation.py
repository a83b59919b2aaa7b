"""Zero-shot accuracy of a CLIP on ground-truth regions, as one number of each kind.

Source: OVSeg (Liang et al., CVPR 2023), section 3.2: what naming costs when the masks are given.
The released recipe measures it on the masks of ADE20K's 150 classes, with 14 templates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ovseg.clip import MaskPromptedCLIP, encode_texts
from ovseg.clip_training.objective import collate_pairs
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.pairs import ArrayPairDataset, PairDataset, crop_region
from ovseg.utils.images import read_image, read_label
from ovseg.vocab import TextBank, Vocabulary

__all__ = ["dataset_evaluation", "evaluate_masks", "has_trained_prompt", "label_regions"]

Picture = tuple[NDArray[np.uint8], NDArray[np.integer]]
TOP = (1, 5)


def has_trained_prompt(clip: MaskPromptedCLIP) -> bool:
    """Whether the CLIP's mask prompt was trained: one of zeros was not."""
    return bool(clip.visual.mask_embedding.count_nonzero())


def label_regions(
    pictures: Iterable[Picture],
    names: Sequence[str],
    *,
    image_size: tuple[int, int],
    min_pixels: int = 64,
) -> ArrayPairDataset:
    """Cut out the regions of label maps, one per class and picture.

    Args:
        pictures: image (H, W, 3) uint8 RGB and labels (H, W); ids from K on are passed over.
        names: K class names in the order of the ids.
        image_size: (height, width) that the CLIP takes.
        min_pixels: smaller regions are left out.

    Returns:
        Pairs whose text and noun are the class's name.
    """
    regions, nouns = [], []
    for image, labels in pictures:
        ids, pixels = np.unique(labels, return_counts=True)
        for number in ids[(ids < len(names)) & (pixels >= min_pixels)]:
            regions.append(crop_region(image, labels == number))
            nouns.append(names[number])
    return ArrayPairDataset(regions, texts=nouns, image_size=image_size)


@torch.no_grad()
def evaluate_masks(
    clip: MaskPromptedCLIP,
    pairs: PairDataset,
    vocabulary: Vocabulary,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
    mask_prompt: bool | None = None,
    batch_size: int = 256,
    workers: int = 0,
) -> dict[str, float]:
    """Compare each region with all classes.

    Args:
        clip: left in the mode that it is in.
        pairs: regions; their nouns are names of the vocabulary.
        vocabulary: K classes.
        groups: class ids by name of a group.
        mask_prompt: whether CLIP sees the masks; None lets it where its prompt was trained.
        batch_size: regions per forward pass.
        workers: processes that read regions.

    Returns:
        In percent: "top1" and "top5", the shares of the regions whose class is the best, or among
        the best five; "macro-top1" and "macro-top5", averaged over the classes that occur; and
        "macro-top1/<group>" over those of a group, NaN where none occurs.

    Raises:
        ValueError: if a noun is no class of the vocabulary, or there are no regions.
    """
    targets = _class_ids(pairs, vocabulary)  # (N,)
    training = clip.training
    clip.eval()
    try:
        ranks = _ranks(clip, pairs, vocabulary, targets, mask_prompt, batch_size, workers)
    finally:
        clip.train(training)
    counts = torch.bincount(targets, minlength=len(vocabulary)).float()  # (K,)
    figures: dict[str, float] = {}
    for top in TOP:
        hits = (ranks < top).float()  # (N,)
        per_class = torch.zeros(len(vocabulary)).index_add_(0, targets, hits) / counts
        figures[f"top{top}"] = _percent(hits.mean())
        figures[f"macro-top{top}"] = _percent(per_class.nanmean())
        if top == 1:
            for name, ids in (groups or {}).items():
                figures[f"macro-top1/{name}"] = _percent(per_class[list(ids)].nanmean())
    return figures


def dataset_evaluation(
    name: str,
    *,
    image_size: tuple[int, int],
    templates: str | Sequence[str] = "vild",
    limit: int | None = None,
) -> Callable[[MaskPromptedCLIP], dict[str, float]]:
    """Prepare the evaluation on the label maps of a registered data set.

    The regions are cut out once and kept in memory.

    Args:
        name: such as "ade20k_sem_seg_val".
        image_size: (height, width) that the CLIP takes.
        templates: see `Vocabulary.make`.
        limit: number of pictures; None takes all.

    Returns:
        Maps a CLIP to the figures of `evaluate_masks`, by the groups of classes that the data set
        has.
    """
    metadata = MetadataCatalog.get(name)
    records = DatasetCatalog.get(name)[:limit]
    vocabulary = Vocabulary.make(metadata.stuff_classes, templates=templates)
    pairs = label_regions(_pictures(records), vocabulary.names, image_size=image_size)
    groups = getattr(metadata, "class_groups", None)

    def evaluate(clip: MaskPromptedCLIP) -> dict[str, float]:
        return evaluate_masks(clip, pairs, vocabulary, groups=groups)

    return evaluate


def _pictures(records: Iterable[Mapping[str, str]]) -> Iterator[Picture]:
    for record in records:
        yield read_image(record["file_name"]), read_label(record["sem_seg_file_name"])


def _class_ids(pairs: PairDataset, vocabulary: Vocabulary) -> Tensor:
    ids = {name: number for number, name in enumerate(vocabulary.names)}
    unknown = sorted({noun for noun in pairs.nouns if noun not in ids})
    if unknown or not len(pairs):
        raise ValueError(
            f"expected regions of the {len(ids)} classes, got {len(pairs)} regions, of other "
            f"classes: {unknown[:5]}; evaluate with the class list of the regions"
        )
    return torch.tensor([ids[noun] for noun in pairs.nouns])


def _ranks(
    clip: MaskPromptedCLIP,
    pairs: PairDataset,
    vocabulary: Vocabulary,
    targets: Tensor,
    mask_prompt: bool | None,
    batch_size: int,
    workers: int,
) -> Tensor:
    """How many classes fit better than the right one, per region: (N,)."""
    device = clip.logit_scale.device
    prompted = has_trained_prompt(clip) if mask_prompt is None else mask_prompt
    text_rows = TextBank(lambda texts: encode_texts(clip, texts)).features(vocabulary)  # (K, D)
    loader = DataLoader(
        pairs,
        batch_size=batch_size,
        collate_fn=collate_pairs,
        num_workers=workers,
        generator=torch.Generator(),  # or it would draw a number from the run's
    )
    ranks = []
    for batch, wanted in zip(loader, targets.split(batch_size), strict=True):
        masks = batch.masks.to(device) if prompted else None
        rows = F.normalize(clip.visual(batch.images.to(device), masks).float(), dim=-1)
        scores = (rows @ text_rows.T).cpu()  # (B, K)
        ranks.append((scores > scores.gather(1, wanted[:, None])).sum(1))
    return torch.cat(ranks)


def _percent(share: Tensor) -> float:
    return round(100 * share.item(), 2)
