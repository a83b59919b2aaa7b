"""How many mined pairs are right, on tinyscapes, where the truth about every pixel is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ovseg.tinyscapes import CLASSES, render_scene
from ovseg.utils.masks import RunLength, decode_rle

__all__ = ["Judgement", "judge_pairs", "precision_curve", "precision_table"]

QUANTILES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9)


@dataclass(frozen=True)
class Judgement:
    """What the truth says about one pair.

    Attributes:
        class_id: class that the noun means; -1 where it is no class of the world.
        visible: whether that class has a pixel in the picture.
        right: whether it has more pixels in the region than any other class.
        iou: of the region with all pixels of the class, in [0, 1].
        margin: lead of the region over the runner-up; NaN where there was only one proposal.
    """

    class_id: int
    visible: bool
    right: bool
    iou: float
    margin: float


def judge_pairs(records: pa.Table, *, split: str = "train") -> list[Judgement]:
    """Hold mined pairs against the labels of the scenes that they were mined from.

    Args:
        records: the miner's table; `image_id` is the scene's number.
        split: of the scenes.

    Returns:
        One judgement a row.
    """
    meaning = {noun: i for i, kind in enumerate(CLASSES) for noun in kind.nouns}
    judged: list[Judgement] = []
    labels, drawn = np.empty(0, dtype=np.uint8), ""
    columns = ("image_id", "height", "width", "rle_counts", "noun", "lemma", "margin")
    for row in records.select(columns).to_pylist():
        if row["image_id"] != drawn:
            drawn = row["image_id"]
            labels = render_scene(split, int(drawn)).labels
        encoded: RunLength = {"size": [row["height"], row["width"]], "counts": row["rle_counts"]}
        region = decode_rle(encoded)
        class_id = meaning.get(row["lemma"].split(" ")[-1], meaning.get(row["noun"], -1))
        truth = labels == class_id
        union = int((truth | region).sum())
        counts = np.bincount(labels[region], minlength=len(CLASSES))[: len(CLASSES)]
        judged.append(
            Judgement(
                class_id=class_id,
                visible=bool(truth.any()),
                right=class_id >= 0 and int(counts.argmax()) == class_id and counts.max() > 0,
                iou=float((truth & region).sum()) / max(union, 1),
                margin=float("nan") if row["margin"] is None else float(row["margin"]),
            )
        )
    return judged


def precision_table(judged: Sequence[Judgement]) -> list[tuple[str, int, float, float]]:
    """Share of right pairs, by kind of class.

    Returns:
        Rows (kind, pairs, precision in percent, mean IoU in percent); nouns that name no class
        are a row of their own.
    """
    rows = []
    for name, chosen in _kinds(judged).items():
        right = 100 * float(np.mean([j.right for j in chosen])) if chosen else float("nan")
        iou = 100 * float(np.mean([j.iou for j in chosen])) if chosen else float("nan")
        rows.append((name, len(chosen), right, iou))
    return rows


def precision_curve(judged: Sequence[Judgement]) -> list[tuple[float, float, dict[str, float]]]:
    """Precision of the pairs whose margin is at least that of a given share of all pairs.

    Returns:
        Rows (share of pairs kept, least margin, precision in percent by kind).
    """
    known = [j for j in judged if not np.isnan(j.margin)]
    if not known:
        return []
    margins = np.array([j.margin for j in known])
    rows = []
    for quantile in QUANTILES:
        least = float(np.quantile(margins, quantile))
        kept = [j for j in known if j.margin >= least]
        rows.append((len(kept) / len(known), least, {n: p for n, _, p, _ in precision_table(kept)}))
    return rows


def _kinds(judged: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    named = [j for j in judged if j.class_id >= 0]
    kinds = {"all": list(judged), "of a class": named}
    for seen in (True, False):
        for kind, plural in (("thing", "things"), ("stuff", "stuff")):
            ids = {i for i, c in enumerate(CLASSES) if c.kind == kind and c.seen is seen}
            word = "seen" if seen else "unseen"
            kinds[f"{word} {plural}"] = [j for j in named if j.class_id in ids]
    kinds["of no class"] = [j for j in judged if j.class_id < 0]
    return kinds
