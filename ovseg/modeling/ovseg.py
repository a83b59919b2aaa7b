"""OVSeg: MaskFormer proposes masks of anything, a mask-adapted CLIP names them.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from ovseg.clip import load_clip
from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY
from ovseg.modeling.encoding import MaskEncoding, RegionFeatures
from ovseg.modeling.ensemble import (
    EnsembleSettings,
    ensemble_scores,
    ensemble_scores_by_class,
    keep_best_mask_per_class,
)
from ovseg.modeling.fast import FastSettings
from ovseg.modeling.mask_former import MaskFormer
from ovseg.modeling.prediction import MaskPrediction
from ovseg.modeling.region_classifier import RegionClassifier
from ovseg.modeling.segmentor import Encoding
from ovseg.vocab import TextBank, Vocabulary, are_trained, trained_names
from ovseg.weights.find import find_clip_weights, holds_part
from ovseg.weights.ovseg import CLIP

INFERENCE_MODES = ("semantic", "demo")
# What a single class is told apart from in demo mode.
OTHERS = "others"


def settle_config(cfg: CfgNode, *, evaluating: bool) -> None:
    """Says where CLIP's weights lie; see docs/new_method.md.

    Args:
        cfg: full configuration, not frozen; MODEL.CLIP_ADAPTER.CLIP_WEIGHTS is set.
        evaluating: whether a checkpoint will be loaded, which holds CLIP's weights. Training may
            start from one, too.
    """
    adapter = cfg.MODEL.CLIP_ADAPTER
    if evaluating or holds_part(cfg.MODEL.WEIGHTS, CLIP):
        adapter.CLIP_WEIGHTS = ""
    else:
        adapter.CLIP_WEIGHTS = find_clip_weights(adapter)


def build_region_classifier(cfg: CfgNode) -> RegionClassifier:
    """Builds CLIP and its adapter from MODEL.CLIP_ADAPTER.

    Args:
        cfg: full configuration.

    Returns:
        The classifier; CLIP is initialised from CLIP_WEIGHTS if that is set, else randomly.
    """
    adapter = cfg.MODEL.CLIP_ADAPTER
    if not adapter.REGION_RESIZED:
        raise ValueError(
            "MODEL.CLIP_ADAPTER.REGION_RESIZED: expected True, got False; regions are always "
            "resized to CLIP's input size."
        )
    return RegionClassifier(
        clip_model=load_clip(
            adapter.CLIP_MODEL_NAME,
            adapter.CLIP_WEIGHTS,
            mask_prompt_depth=adapter.MASK_PROMPT_DEPTH,
        ),
        mask_fill=adapter.MASK_FILL,
        mask_threshold=adapter.MASK_THR,
        expand_ratio=adapter.MASK_EXPAND_RATIO,
        matting=adapter.MASK_MATTING,
        mask_prompt=adapter.MASK_PROMPT_FWD,
        chunk_size=adapter.CHUNK_SIZE,
        fast=FastSettings.from_config(cfg),
    )


@META_ARCH_REGISTRY.register()
class OVSeg(MaskFormer):
    """Open-vocabulary segmentation in two stages.

    Args:
        clip_adapter: names masks; also holds the text features the proposals are trained with.
        ensemble: how the mask classifier and CLIP are combined.
        inference_mode: "semantic" merges all masks by their values; "demo" merges, cut at the
            threshold, the one best mask of every class and leaves other pixels blank.
        trained_names: of classes that the masks were trained with, see `ovseg.vocab`; only a
            weight of the ensemble for unseen names asks for them.
        parts: arguments of `MaskFormer`.

    Raises:
        ValueError: an argument is out of range.
    """

    @configurable
    def __init__(
        self,
        *,
        clip_adapter: RegionClassifier,
        ensemble: EnsembleSettings,
        inference_mode: str = "semantic",
        trained_names: frozenset[str] = frozenset(),
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        if inference_mode not in INFERENCE_MODES:
            raise ValueError(
                f"MODEL.INFERENCE_MODE: expected one of {INFERENCE_MODES} (or '' for the one of "
                f"the architecture), got {inference_mode!r}."
            )
        self.clip_adapter = clip_adapter
        self.ensemble = ensemble
        self.inference_mode = inference_mode
        self.trained_names = trained_names
        self._require_trained_names(ensemble)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL and TEST.OUTPUT."""
        demo = cfg.MODEL.META_ARCHITECTURE == "OVSegDEMO"
        adapter = cfg.MODEL.CLIP_ADAPTER
        unseen = adapter.CLIP_ENSEMBLE_WEIGHT_UNSEEN
        return super().from_config(cfg) | {
            "clip_adapter": build_region_classifier(cfg),
            "ensemble": EnsembleSettings(
                use_clip=adapter.CLIP_ENSEMBLE,
                weight=adapter.CLIP_ENSEMBLE_WEIGHT,
                mask_threshold=adapter.MASK_THR,
                weight_unseen=unseen if unseen >= 0 else None,
            ),
            "trained_names": trained_names(adapter.TRAINED_NAMES, adapter.TRAINED_CLASSES),
            "inference_mode": cfg.MODEL.INFERENCE_MODE or ("demo" if demo else "semantic"),
        }

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the choices of inference; see `Segmentor.protocol`."""
        stated = super().protocol() | {
            "ensemble": self.ensemble.use_clip,
            "ensemble_weight": float(self.ensemble.weight),
            "mask_threshold": float(self.ensemble.mask_threshold),
            "mask_prompt": self.clip_adapter.mask_prompt,
        }
        fast = self.clip_adapter.fast
        if fast != FastSettings():
            stated |= {f"fast_{name}": value for name, value in asdict(fast).items()}
        if self.ensemble.weight_unseen is not None:
            stated["ensemble_weight_unseen"] = float(self.ensemble.weight_unseen)
        return stated

    def text_banks(self) -> Sequence[TextBank]:
        """Lists what it keeps features of texts in; see `SegmentationModel.text_banks`."""
        return (self.clip_adapter.text_bank,)

    def class_logits(self, embeddings: Sequence[Tensor], vocabulary: Vocabulary) -> list[Tensor]:
        """Compares the head's embeddings with text features; see `MaskFormer.class_logits`."""
        text = self.clip_adapter.text_features(vocabulary)  # (K + 1, D)
        return [self.clip_adapter.similarity(own, text) for own in embeddings]

    def decode(
        self,
        encoding: Encoding,
        vocabulary: Vocabulary,
        *,
        ensemble: EnsembleSettings | None = None,
    ) -> MaskPrediction:
        """Names the masks by both classifiers; see `Segmentor.decode`.

        Args:
            encoding: of this model; receives the region features that it lacks.
            vocabulary: K classes.
            ensemble: other settings than the model's own.

        Returns:
            The prediction.
        """
        assert isinstance(encoding, MaskEncoding)
        ensemble = ensemble or self.ensemble
        told_apart = self._told_apart(vocabulary)
        prediction = super().decode(encoding, told_apart)
        prediction = replace(prediction, mask_threshold=ensemble.mask_threshold)
        if ensemble.use_clip:
            clip, valid = self._clip_scores(encoding, told_apart, ensemble.mask_threshold)
            scores = self._ensemble_scores(
                prediction.proposal_scores, clip, valid, told_apart, ensemble
            )
            scores = encoding.weigh(scores)
            prediction = replace(prediction, class_scores=scores, clip_scores=clip, valid=valid)
        if self.inference_mode == "demo":
            best = keep_best_mask_per_class(
                prediction.class_scores, prediction.valid, skip=_background_of_two(told_apart)
            )
            prediction = replace(prediction, class_scores=best, binary=True)
        return prediction if told_apart is vocabulary else _hide_last(prediction)

    def prefetch(self, encoding: Encoding) -> None:
        """Encodes the regions of all masks; see `Segmentor.prefetch`."""
        assert isinstance(encoding, MaskEncoding)
        super().prefetch(encoding)
        if self.ensemble.use_clip:
            self.region_features(encoding)

    @torch.no_grad()
    def region_features(
        self, encoding: MaskEncoding, threshold: float | None = None
    ) -> RegionFeatures:
        """CLIP's features of an encoding's masks, computed where the encoding lacks them.

        Args:
            encoding: of this model; it keeps the features.
            threshold: of the masks; None: the model's own.

        Returns:
            The features of all masks that are not empty.
        """
        threshold = self.ensemble.mask_threshold if threshold is None else threshold
        known = encoding.regions.get(threshold)
        if known is None or bool((known.valid & ~known.encoded).any()):
            if encoding.image is None:
                raise ValueError(
                    f"expected an encoding with region features for the threshold {threshold:g} "
                    "or with the image to make them from, got neither"
                )
            named_by = self.clip_adapter.fast.stand_ins(
                encoding.masks, encoding.quality, threshold=threshold
            )
            wanted = torch.zeros_like(named_by, dtype=torch.bool)
            wanted[named_by] = True
            known = self.clip_adapter(
                encoding.image, encoding.masks, threshold=threshold, wanted=wanted, known=known
            )
            known = encoding.regions[threshold] = known.lent(named_by)
        return known

    def _clip_scores(
        self, encoding: MaskEncoding, vocabulary: Vocabulary, threshold: float
    ) -> tuple[Tensor, Tensor]:
        """CLIP's probabilities (Q, K), ones for masks that are empty, and valid (Q,) bool."""
        regions = self.region_features(encoding, threshold)
        text = self.clip_adapter.text_features(vocabulary)  # (K + 1, D)
        logits = self.clip_adapter.similarity(regions.features[regions.valid], text)
        clip = logits.new_ones(len(regions.valid), len(vocabulary))
        # "No object" is dropped before the softmax here, unlike in the mask classifier's scores.
        clip[regions.valid] = logits[:, :-1].softmax(-1)
        return clip, regions.valid

    def _ensemble_scores(
        self,
        proposal: Tensor,
        clip: Tensor,
        valid: Tensor,
        vocabulary: Vocabulary,
        ensemble: EnsembleSettings,
    ) -> Tensor:
        """Scores of both classifiers combined, (Q, K)."""
        if ensemble.weight_unseen is None:
            return ensemble_scores(proposal, clip, valid, weight=ensemble.weight)
        self._require_trained_names(ensemble)
        trained = torch.tensor(are_trained(vocabulary, self.trained_names), device=clip.device)
        weights = (ensemble.weight, ensemble.weight_unseen)
        return ensemble_scores_by_class(proposal, clip, valid, weights=weights, unseen=~trained)

    def _require_trained_names(self, ensemble: EnsembleSettings) -> None:
        if ensemble.weight_unseen is not None and not self.trained_names:
            raise ValueError(
                "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT_UNSEEN: expected a class list in "
                "MODEL.CLIP_ADAPTER.TRAINED_NAMES that tells which names were seen, got none; set "
                "it, e.g. to coco_stuff_171."
            )

    def _told_apart(self, vocabulary: Vocabulary) -> Vocabulary:
        """Adds "others" to a single class in demo mode; a softmax over one class says nothing."""
        if self.inference_mode == "semantic" or len(vocabulary) > 1:
            return vocabulary
        name = OTHERS if vocabulary.names[0] != OTHERS else "background"
        return replace(
            vocabulary,
            names=(*vocabulary.names, name),
            prompts=(*vocabulary.prompts, (name,)),
            background=1,
        )


def _background_of_two(vocabulary: Vocabulary) -> int | None:
    """Index of the class whose best mask demo mode leaves out: the background of one other."""
    if len(vocabulary) != 2:
        return None
    if vocabulary.background is None and vocabulary.names[1] == OTHERS:
        return 1
    return vocabulary.background


def _hide_last(prediction: MaskPrediction) -> MaskPrediction:
    """Takes the class that was added out of the scores and keeps it for blank pixels."""
    clip = prediction.clip_scores
    return replace(
        prediction,
        class_scores=prediction.class_scores[:, :-1],
        proposal_scores=prediction.proposal_scores[:, :-1],
        clip_scores=None if clip is None else clip[:, :-1],
        hidden_scores=prediction.class_scores[:, -1],
    )


@META_ARCH_REGISTRY.register()
class OVSegDEMO(OVSeg):
    """The name under which released configurations ask for `OVSeg` in demo mode."""
