"""Zero-shot accuracy of a CLIP on regions: what naming costs when the regions are given.

Source: OVSeg (Liang et al., CVPR 2023), section 3.2: CLIP is measured on the ground-truth masks of
a validation set, one region per class and image; the released recipe takes ADE20K's 150 classes and
14 templates. The same on proposals shows what remains of it where regions are cut out as they are
at inference.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from ovseg.clip import MaskPromptedCLIP, encode_texts
from ovseg.clip_training.model import collate_pairs
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.pairs import ArrayPairDataset, PairDataset, crop_region
from ovseg.modeling import MaskPrediction
from ovseg.readers.pictures import read_image, read_label
from ovseg.vocab import TextBank, Vocabulary

__all__ = [
    "MIN_PIXELS",
    "accuracy_of_ranks",
    "class_ranks",
    "dataset_evaluation",
    "evaluate_regions",
    "has_trained_prompt",
    "label_regions",
    "proposal_scores",
    "top_accuracy",
]

Picture = tuple[NDArray[np.uint8], NDArray[np.integer]]
TOP = (1, 5)
# Regions of true labels with fewer pixels say little about whoever names them.
MIN_PIXELS = 64


def has_trained_prompt(clip: MaskPromptedCLIP) -> bool:
    """Whether the CLIP's mask prompt was trained: one of zeros was not."""
    return bool(clip.visual.mask_embedding.count_nonzero())


def label_regions(
    pictures: Iterable[Picture],
    names: Sequence[str],
    *,
    image_size: tuple[int, int],
    min_pixels: int = MIN_PIXELS,
    template: str = "{}",
    seed: int = 0,
) -> ArrayPairDataset:
    """Cut out the regions of label maps, one per class and picture.

    Args:
        pictures: image (H, W, 3) uint8 RGB and labels (H, W); ids from K on are passed over.
        names: K class names in the order of the ids.
        image_size: (height, width) that the CLIP takes.
        min_pixels: smaller regions are left out.
        template: what a name is put into to become a text.
        seed: of random crops, where the regions are trained on.

    Returns:
        Pairs whose noun is the class's name.
    """
    regions, nouns = [], []
    for image, labels in pictures:
        ids, pixels = np.unique(labels, return_counts=True)
        for number in ids[(ids < len(names)) & (pixels >= min_pixels)]:
            regions.append(crop_region(image, labels == number))
            nouns.append(names[number])
    texts = [template.format(noun) for noun in nouns]
    return ArrayPairDataset(regions, texts=texts, nouns=nouns, image_size=image_size, seed=seed)


@torch.no_grad()
def evaluate_regions(
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
        See `top_accuracy`.

    Raises:
        ValueError: if a noun is no class of the vocabulary, or there are no regions.
    """
    targets = _class_ids(pairs, vocabulary)  # (N,)
    device = clip.logit_scale.device
    prompted = has_trained_prompt(clip) if mask_prompt is None else mask_prompt
    loader = DataLoader(
        pairs,
        batch_size=batch_size,
        collate_fn=collate_pairs,
        num_workers=workers,
        generator=torch.Generator(),  # or it would draw a number from the run's
    )
    training = clip.training
    clip.eval()
    try:
        text_rows = TextBank(lambda texts: encode_texts(clip, texts)).features(vocabulary)  # (K, D)
        scores = []
        for batch in loader:
            masks = batch.masks.to(device) if prompted else None
            rows = F.normalize(clip.visual(batch.images.to(device), masks).float(), dim=-1)
            scores.append((rows @ text_rows.T).cpu())  # (B, K)
    finally:
        clip.train(training)
    return top_accuracy(torch.cat(scores), targets, groups=groups)


def top_accuracy(
    scores: Tensor, targets: Tensor, *, groups: Mapping[str, Sequence[int]] | None = None
) -> dict[str, float]:
    """Share of regions whose class is among the best, over regions and over classes.

    Args:
        scores: (N, K), higher is better; a class is right as long as no other scores higher.
        targets: (N,) int64, the classes of the regions.
        groups: class ids by name of a group.

    Returns:
        See `accuracy_of_ranks`.
    """
    return accuracy_of_ranks(class_ranks(scores, targets), targets, scores.shape[1], groups=groups)


def class_ranks(scores: Tensor, targets: Tensor) -> Tensor:
    """Count the classes that fit a region better than its own.

    Args:
        scores: (N, K), higher is better.
        targets: (N,) int64, the classes of the regions.

    Returns:
        (N,) int64 in [0, K); 0 where no other class scores higher.
    """
    return (scores > scores.gather(1, targets[:, None])).sum(1)


def accuracy_of_ranks(
    ranks: Tensor,
    targets: Tensor,
    num_classes: int,
    *,
    groups: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, float]:
    """Share of regions whose class is among the best, over regions and over classes.

    Args:
        ranks: (N,), see `class_ranks`.
        targets: (N,) int64, the classes of the regions.
        num_classes: K.
        groups: class ids by name of a group.

    Returns:
        In percent: "top1" and "top5", the shares of the regions whose class is the best, or among
        the best five; "macro-top1" and "macro-top5", averaged over the classes that occur; and
        "macro-top1/<group>" over those of a group, NaN where none occurs.
    """
    counts = torch.bincount(targets, minlength=num_classes).float()  # (K,)
    figures: dict[str, float] = {}
    for top in TOP:
        hits = (ranks < top).float()  # (N,)
        per_class = torch.zeros_like(counts).index_add_(0, targets, hits) / counts  # NaN: no region
        figures[f"top{top}"] = _percent(hits.mean())
        figures[f"macro-top{top}"] = _percent(per_class.nanmean())
        if top == 1:
            for name, ids in (groups or {}).items():
                figures[f"macro-top1/{name}"] = _percent(per_class[list(ids)].nanmean())
    return figures


def proposal_scores(
    prediction: MaskPrediction, labels: Tensor, *, min_share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """What CLIP makes of proposals, and what they show.

    Args:
        prediction: Q proposals of K classes, with CLIP's scores.
        labels: (H, W) class ids; others are ignored.
        min_share: a proposal counts if one class has at least this share of its pixels.

    Returns:
        (N, K) CLIP's scores of the N proposals that count, and (N,) the classes that have the most
        pixels in them; as `top_accuracy` takes them.

    Raises:
        ValueError: if CLIP was not asked.
    """
    if prediction.clip_scores is None:
        raise ValueError("expected a prediction with CLIP's scores, got one without")
    count = prediction.num_classes
    size = prediction.masks.shape[1:]
    small = F.interpolate(labels[None, None].float(), size, mode="nearest")[0, 0].long()  # (h, w)
    small[(small < 0) | (small >= count)] = count
    regions = prediction.masks > prediction.mask_threshold  # (Q, h, w)
    pixels = torch.stack([small[r].bincount(minlength=count + 1) for r in regions])  # (Q, K + 1)
    most, ids = pixels[:, :-1].max(1)
    clear = prediction.valid & (most >= min_share * pixels.sum(1)) & (most > 0)
    return prediction.clip_scores[clear], ids[clear]


def dataset_evaluation(
    name: str,
    *,
    image_size: tuple[int, int],
    templates: str | Sequence[str] = "vild",
    limit: int | None = None,
) -> Callable[[MaskPromptedCLIP], dict[str, float]]:
    """Prepare the evaluation on the label maps of a registered dataset.

    The regions are cut out once and kept in memory.

    Args:
        name: a registered dataset such as "ade20k_sem_seg_val", or the path of a dataset YAML.
        image_size: (height, width) that the CLIP takes.
        templates: see `Vocabulary.make`.
        limit: number of pictures; None takes all.

    Returns:
        Maps a CLIP to the figures of `evaluate_regions`, by the groups of classes that the dataset
        has.

    Raises:
        ValueError: there is no such dataset, or its YAML file is unusable.
        FileNotFoundError: there is no such YAML file.
        DatasetFilesError: its files are missing.
    """
    name = resolve_dataset(name)
    if name not in DatasetCatalog.list():
        close = difflib.get_close_matches(name, DatasetCatalog.list(), n=1)
        raise ValueError(
            f"expected a registered dataset with label maps or a dataset YAML, got {name!r}"
            + (f"; did you mean {close[0]!r}?" if close else "")
        )
    metadata = MetadataCatalog.get(name)
    records = DatasetCatalog.get(name)[:limit]
    vocabulary = Vocabulary.make(metadata.stuff_classes, templates=templates)
    pairs = label_regions(_pictures(records), vocabulary.names, image_size=image_size)
    groups = getattr(metadata, "class_groups", None)

    def evaluate(clip: MaskPromptedCLIP) -> dict[str, float]:
        return evaluate_regions(clip, pairs, vocabulary, groups=groups)

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


def _percent(share: Tensor) -> float:
    return round(100 * share.item(), 2)
