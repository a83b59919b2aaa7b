"""Which region each noun of a caption gets.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2: every noun is paired with the proposal that CLIP finds most similar, whatever the
similarity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Match", "MatchConfig", "known_match", "match_nouns"]

# Scores are compared as they are stored, so that filtering later gives what mining with the same
# limits would have given.
_DECIMALS = 4


@dataclass(frozen=True)
class MatchConfig:
    """Which matches are kept; the defaults keep one per noun, as the paper does.

    Attributes:
        threshold: lowest score, a cosine in [-1, 1].
        margin: lowest difference to the second-best region; a match without one goes.
        mutual: keep a match only if the region, too, has no better noun.
        softmax_temperature: factor on the scores in the softmax over nouns.
    """

    threshold: float | None = None
    margin: float | None = None
    mutual: bool = False
    softmax_temperature: float = 100.0

    def __post_init__(self) -> None:
        if not self.softmax_temperature > 0:
            raise ValueError(
                f"softmax_temperature: expected a positive factor, got {self.softmax_temperature}; "
                "CLIP's own is 100"
            )


@dataclass(frozen=True)
class Match:
    """A noun and its region.

    Attributes:
        noun_index: column of the scores.
        region_index: row of the scores.
        score: cosine, rounded to 4 decimals as all figures here.
        runner_up: score of the noun's second-best region; None where there is one region only.
        margin: score minus runner_up, or None.
        probability: softmax over the nouns for this region.
        mutual: whether the region has no better noun.
    """

    noun_index: int
    region_index: int
    score: float
    runner_up: float | None
    margin: float | None
    probability: float
    mutual: bool


def match_nouns(scores: np.ndarray, config: MatchConfig) -> list[Match]:
    """Give each noun its best region; two nouns may share one.

    Equal scores go to the lower index.

    Args:
        scores: (V, N) cosines of V regions with N nouns.
        config: which matches are kept.

    Returns:
        At most one match per noun, in the order of the nouns.

    Raises:
        ValueError: the scores are not a finite (V, N) array.
    """
    scores = np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or not np.isfinite(scores).all():
        raise ValueError(
            f"expected finite scores (regions, nouns), got shape {scores.shape} with "
            f"{np.count_nonzero(~np.isfinite(scores))} values that are not finite"
        )
    if not scores.size:
        return []
    best = scores.argmax(axis=0)  # (N,)
    best_noun = scores.argmax(axis=1)  # (V,)
    matches = []
    for noun, region in enumerate(best.tolist()):
        column = scores[:, noun]
        score, runner_up, margin = round(float(column[region]), _DECIMALS), None, None
        if len(column) > 1:
            runner_up = round(float(np.delete(column, region).max()), _DECIMALS)
            margin = round(score - runner_up, _DECIMALS)
        match = Match(
            noun_index=noun,
            region_index=region,
            score=score,
            runner_up=runner_up,
            margin=margin,
            probability=_probability(scores[region], noun, config.softmax_temperature),
            mutual=int(best_noun[region]) == noun,
        )
        if _is_kept(match, config):
            matches.append(match)
    return matches


def known_match(scores: np.ndarray, noun: int, region: int) -> Match:
    """Note a noun that a region is known to have, with CLIP's score for it.

    Args:
        scores: (V, N) cosines of V regions with N nouns.
        noun: column.
        region: row.

    Returns:
        A match that is mutual and has no rival.
    """
    score = round(float(scores[region, noun]), _DECIMALS)
    return Match(noun, region, score, runner_up=None, margin=None, probability=1.0, mutual=True)


def _probability(scores: np.ndarray, noun: int, temperature: float) -> float:
    """Softmax over the nouns (N,) of one region, for one of them."""
    weights = np.exp(temperature * (scores - scores.max()))
    return round(float(weights[noun] / weights.sum()), _DECIMALS)


def _is_kept(match: Match, config: MatchConfig) -> bool:
    if config.threshold is not None and match.score < config.threshold:
        return False
    if config.margin is not None and (match.margin is None or match.margin < config.margin):
        return False
    return match.mutual or not config.mutual
