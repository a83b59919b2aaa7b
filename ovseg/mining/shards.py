"""Mining one shard: pictures and captions in, noun-region pairs out, with nothing lost on the way.

`mine_shard` is a function of its arguments alone: it writes no file, looks at no clock and keeps no
state. Which pictures go through a model together is fixed by the shard, so that its result is the
same whichever process mines it and whatever that process did before.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import torch

from ovseg.data.captions.sources import ImageRow, Shard
from ovseg.mining.explained import PictureLabels, means_one_of
from ovseg.mining.matching import Match, MatchConfig, known_match, match_nouns
from ovseg.mining.nouns import CaptionError, Noun, merge_nouns
from ovseg.mining.parts import (
    BatchScorer,
    MiningConfig,
    MiningError,
    MiningParts,
    NounFinder,
    ReadPicture,
    RegionScorer,
)
from ovseg.mining.records import make_pair_id
from ovseg.proposals import propose_batch
from ovseg.utils.masks import encode_rle
from ovseg.utils.wording import printable

__all__ = ["ShardResult", "mine_shard"]

logger = logging.getLogger(__name__)

# What one picture can be the cause of. A GPU out of memory is the settings' fault, not a picture's.
_IMAGE_ERRORS = (OSError, ValueError, RuntimeError, MemoryError)
# From so many pictures on, none getting through the models means that something else is wrong.
_MIN_SYSTEMATIC_FAILURES = 8

T = TypeVar("T")


@dataclass
class ShardResult:
    """What became of a shard.

    Attributes:
        records: the pairs, as rows of `ovseg.mining.records.SCHEMA`.
        quarantine: the pictures in quarantine: image_id, uri, kind (what was at fault) and reason.
        counts: images_in = images_with_pairs + images_without_pairs + images_quarantined; also
            captions, captions_unusable, nouns, regions, pairs, and with labels pairs_from_labels.
        without_pairs: pictures that were in order but gave no pair, by reason.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    quarantine: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    without_pairs: Counter[str] = field(default_factory=Counter)

    def add_quarantined(self, row: ImageRow, kind: str, reason: object) -> None:
        """Count a picture as quarantined and keep the reason."""
        shown = printable(row.image_id), kind, printable(str(reason))
        logger.debug("%s quarantined (%s): %s", *shown)
        text = str(reason) or type(reason).__name__
        entry = {"image_id": row.image_id, "uri": row.uri, "kind": kind, "reason": text}
        self.quarantine.append(entry)
        self.counts["images_quarantined"] += 1

    def add_without_pairs(self, reason: str) -> None:
        """Count a picture that gave no pair."""
        self.without_pairs[reason] += 1
        self.counts["images_without_pairs"] += 1


@dataclass
class _Picture:
    """A picture on its way through the shard."""

    row: ImageRow
    image: np.ndarray
    sha256: str
    nouns: list[tuple[int, Noun]]
    labels: PictureLabels | None = None
    masks: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), dtype=bool))
    explained: list[str | None] = field(default_factory=list)

    @property
    def texts(self) -> list[str]:
        """What CLIP is asked for."""
        return [noun.text for _, noun in self.nouns]


def mine_shard(
    shard: Shard,
    config: MiningConfig,
    parts: MiningParts,
    read: ReadPicture,
    *,
    config_hash: str = "",
) -> ShardResult:
    """Pair the nouns of captions with regions of their pictures.

    Args:
        shard: the pictures with their captions.
        config: the settings.
        parts: models and tagger.
        read: gives a row's picture and the sha256 of its bytes.
        config_hash: recorded with every pair.

    Returns:
        The pairs, in the order of the pictures and of the nouns in their captions, those that
        labels explain behind them, and what became of every other picture.

    Raises:
        MiningError: all pictures fail, so that the fault is not the pictures'.
    """
    result = ShardResult()
    opened = 0
    rows = shard.rows
    for start in range(0, len(rows), config.batch_size):
        batch = []
        for row in rows[start : start + config.batch_size]:
            result.counts["images_in"] += 1
            picture = _open(row, config, parts, read, result)
            if picture is not None:
                batch.append(picture)
        opened += len(batch)
        for picture, matches in _match(batch, config.matching, parts, result):
            for match in matches:
                result.records.append(_record(picture, match, parts, config_hash))
    result.counts["pairs"] = len(result.records)
    if parts.labels is not None:
        from_labels = sum(record["origin"] == "label" for record in result.records)
        result.counts["pairs_from_labels"] = from_labels
    kinds = ("labels", "regions", "scores")
    failed = [entry for entry in result.quarantine if entry["kind"] in kinds]
    readable = opened + sum(entry["kind"] == "labels" for entry in failed)
    if len(failed) == readable >= _MIN_SYSTEMATIC_FAILURES:
        raise MiningError(
            f"shard {shard.index}: none of its {readable} readable pictures could be mined, so the "
            f"pictures are not at fault. The first: {failed[0]['reason']}"
        )
    return result


def _open(
    row: ImageRow, config: MiningConfig, parts: MiningParts, read: ReadPicture, result: ShardResult
) -> _Picture | None:
    """Read a picture, its nouns and its labels, or count why there is nothing to mine."""
    try:
        _check_unicode(row.image_id + row.uri, "the picture's name or address")
        image, sha256 = read(row)
        height, width = image.shape[:2]
        if height * width > config.max_pixels:
            raise ValueError(
                f"{width} x {height} pixels, the limit is {config.max_pixels}; scale it down"
            )
    except Exception as error:  # noqa: BLE001 - whatever one picture is the cause of
        result.add_quarantined(row, "picture", error)
        return None
    nouns, problem = _nouns(row, config, parts.nouns, result)
    if problem is not None:
        result.add_quarantined(row, "caption", problem)
        return None
    labels = None
    if parts.labels is not None:
        try:
            labels = parts.labels(row, (height, width))
        except Exception as error:  # noqa: BLE001 - as above
            result.add_quarantined(row, "labels", error)
            return None
    elif not nouns:
        result.add_without_pairs("no nouns")
        return None
    return _Picture(row, image, sha256, nouns, labels)


def _nouns(
    row: ImageRow, config: MiningConfig, finder: NounFinder, result: ShardResult
) -> tuple[list[tuple[int, Noun]], str | None]:
    """Nouns of the chosen captions, each text once, with their captions' indices.

    Returns a problem instead if none of the captions can be used.
    """
    found: list[tuple[int, list[Noun]]] = []
    problem: str | None = None
    if config.captions == "all":
        chosen = range(len(row.captions))
    else:
        index = 0 if config.captions == "first" else int(config.captions)
        chosen = range(index, min(index + 1, len(row.captions)))
    for index in chosen:
        caption = row.captions[index]
        try:
            if caption is None:
                raise CaptionError("the caption is null")
            _check_unicode(caption, "the caption")
            found.append((index, finder.extract(caption)))
        except ValueError as error:
            problem = problem or f"caption {index}: {error}"
            result.counts["captions_unusable"] += 1
    nouns = merge_nouns(found)
    result.counts["captions"] += len(found)
    result.counts["nouns"] += len(nouns)
    if not chosen:
        problem = f"it has {len(row.captions)} captions; asked for was: {config.captions}"
    return nouns, None if found else problem


def _check_unicode(text: str, what: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} holds half a character (\\u{ord(text[error.start]):04x} at "
            f"{error.start}), which can be neither tokenized nor stored"
        ) from error


def _match(
    batch: list[_Picture], config: MatchConfig, parts: MiningParts, result: ShardResult
) -> Iterator[tuple[_Picture, list[Match]]]:
    """Yield the pictures of a batch that give pairs; count the others."""

    def propose(pictures: list[_Picture]) -> list[np.ndarray]:
        images = [picture.image for picture in pictures]
        return propose_batch(parts.proposer, images, [p.row.image_id for p in pictures])

    def score(pictures: list[_Picture]) -> list[np.ndarray]:
        return _score_batch(parts.scorer, pictures)

    with_regions = []
    for picture, masks in _run_or_isolate(propose, batch, "regions", result):
        picture.masks = masks
        _explain(picture)
        result.counts["regions"] += len(masks)
        if not len(masks):
            result.add_without_pairs("no regions")
        elif not picture.nouns:
            result.add_without_pairs("no nouns")
        else:
            with_regions.append(picture)
    for picture, scores in _run_or_isolate(score, with_regions, "scores", result):
        matches = _matches(picture, scores, config)
        if matches:
            result.counts["images_with_pairs"] += 1
            yield picture, matches
        else:
            result.add_without_pairs("no match within the limits")


def _explain(picture: _Picture) -> None:
    """Give proposals on labelled regions their nouns, and take what labels show from the others.

    The nouns of labels stand behind those of captions, with -1 for the caption.
    """
    picture.explained = [None] * len(picture.masks)
    if picture.labels is not None:
        shown = picture.labels.shown
        picture.explained = picture.labels.explain(picture.masks)
        left = [(index, noun) for index, noun in picture.nouns if not means_one_of(noun, shown)]
        known = dict.fromkeys(word for word in picture.explained if word is not None)
        picture.nouns = left + [(-1, Noun(word, word, 0, len(word))) for word in known]


def _matches(picture: _Picture, scores: np.ndarray, config: MatchConfig) -> list[Match]:
    """Match captions with what labels leave over, and note what they explain.

    A noun whose best region of all is explained means what is labelled there, in other words than
    the label's, and gets no second choice.
    """
    free = [region for region, word in enumerate(picture.explained) if word is None]
    asked = [number for number, (index, _) in enumerate(picture.nouns) if index >= 0]
    best = scores.argmax(axis=0)  # (N,)
    found = [
        replace(match, noun_index=asked[match.noun_index], region_index=free[match.region_index])
        for match in match_nouns(scores[np.ix_(free, asked)], config)
        if picture.explained[best[asked[match.noun_index]]] is None
    ]
    columns = {noun.text: n for n, (index, noun) in enumerate(picture.nouns) if index < 0}
    for region, word in enumerate(picture.explained):
        if word is not None:
            found.append(known_match(scores, columns[word], region))
    return found


def _score_batch(scorer: RegionScorer, pictures: list[_Picture]) -> list[np.ndarray]:
    """Scores (V, N) of each picture, checked."""
    images, masks = [p.image for p in pictures], [p.masks for p in pictures]
    texts = [p.texts for p in pictures]
    if isinstance(scorer, BatchScorer):
        scores = scorer.score_batch(images, masks, texts)
    else:
        scores = [scorer(*one) for one in zip(images, masks, texts, strict=True)]
    for picture, one in zip(pictures, scores, strict=True):
        expected = (len(picture.masks), len(picture.nouns))
        if one.shape != expected or not np.isfinite(one).all():
            raise ValueError(f"expected finite scores {expected}, got {one.shape} or not finite")
    return scores


def _run_or_isolate(
    run: Callable[[list[_Picture]], list[T]],
    pictures: list[_Picture],
    kind: str,
    result: ShardResult,
) -> list[tuple[_Picture, T]]:
    """Run pictures through a model together; if that fails, one by one, to find the culprit."""
    if not pictures:
        return []
    try:
        return list(zip(pictures, run(pictures), strict=True))
    except torch.cuda.OutOfMemoryError:
        raise
    except _IMAGE_ERRORS as error:
        if len(pictures) == 1:
            result.add_quarantined(pictures[0].row, kind, error)
            return []
    return [pair for one in pictures for pair in _run_or_isolate(run, [one], kind, result)]


def _record(
    picture: _Picture, match: Match, parts: MiningParts, config_hash: str
) -> dict[str, Any]:
    """The row of one pair; see `ovseg.mining.records.SCHEMA`."""
    index, noun = picture.nouns[match.noun_index]
    caption = str(picture.row.captions[index]) if index >= 0 else noun.text
    mask = picture.masks[match.region_index]
    counts = encode_rle(mask)["counts"]
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    span = (noun.start, noun.end)
    return {
        "pair_id": make_pair_id(picture.sha256, caption, span, counts, noun.text),
        "image_id": picture.row.image_id,
        "image_uri": picture.row.uri,
        "image_sha256": picture.sha256,
        "height": mask.shape[0],
        "width": mask.shape[1],
        "caption": caption,
        "caption_index": index,
        "span_start": noun.start,
        "span_end": noun.end,
        "noun": noun.text,
        "lemma": noun.lemma,
        "rle_counts": counts,
        "bbox": [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1],
        "area": int(np.count_nonzero(mask)),
        "clip_score": match.score,
        "runner_up_score": match.runner_up,
        "margin": match.margin,
        "noun_probability": match.probability,
        "mutual": match.mutual,
        "proposal_model": parts.proposer.name,
        "clip_model": parts.scorer.name,
        "noun_tagger": parts.nouns.name,
        "config_hash": config_hash,
        "origin": "caption" if index >= 0 else "label",
    }
