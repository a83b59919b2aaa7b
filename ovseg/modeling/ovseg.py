"""OVSeg: MaskFormer proposes masks of anything, a mask-adapted CLIP names them.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP", CVPR 2023.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ovseg.clip import build_clip
from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY
from ovseg.modeling.ensemble import ensemble_scores, keep_best_mask_per_class
from ovseg.modeling.mask_former import MaskFormer
from ovseg.modeling.prediction import MaskPrediction
from ovseg.modeling.region_classifier import RegionClassifier
from ovseg.modeling.segmentor import ImageBatch
from ovseg.vocab import Vocabulary
from ovseg.weights.clip import MASK_EMBEDDING, load_clip_state
from ovseg.weights.load import load_strict

INFERENCE_MODES = ("semantic", "demo")
# What a single class is told apart from in demo mode.
OTHERS = "others"


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
    depth, state = adapter.MASK_PROMPT_DEPTH, None
    if adapter.CLIP_WEIGHTS:
        state = load_clip_state(adapter.CLIP_WEIGHTS)
        depth = len(state.get(MASK_EMBEDDING, range(depth)))  # an adapted CLIP brings its own
    clip_model = build_clip(adapter.CLIP_MODEL_NAME, mask_prompt_depth=depth)
    if state is not None:
        load_strict(clip_model, state, recomputable=(MASK_EMBEDDING,))
    return RegionClassifier(
        clip_model=clip_model,
        mask_fill=adapter.MASK_FILL,
        mask_threshold=adapter.MASK_THR,
        expand_ratio=adapter.MASK_EXPAND_RATIO,
        matting=adapter.MASK_MATTING,
        mask_prompt=adapter.MASK_PROMPT_FWD,
        chunk_size=adapter.CHUNK_SIZE,
    )


@META_ARCH_REGISTRY.register()
class OVSeg(MaskFormer):
    """Open-vocabulary segmentation in two stages.

    Args:
        clip_adapter: names masks; also holds the text features the proposals are trained with.
        clip_ensemble: whether CLIP takes part in inference.
        clip_ensemble_weight: CLIP's exponent; 0 means CLIP alone.
        inference_mode: "semantic" merges all masks by their values; "demo" merges, cut at the
            threshold, the one best mask of every class and leaves other pixels blank.
        parts: arguments of `MaskFormer`.

    Raises:
        ValueError: an argument is out of range.
    """

    @configurable
    def __init__(
        self,
        *,
        clip_adapter: RegionClassifier,
        clip_ensemble: bool,
        clip_ensemble_weight: float,
        inference_mode: str = "semantic",
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        if inference_mode not in INFERENCE_MODES:
            raise ValueError(
                f"MODEL.INFERENCE_MODE: expected one of {INFERENCE_MODES} (or '' for the one of "
                f"the architecture), got {inference_mode!r}."
            )
        if not 0 <= clip_ensemble_weight <= 1:
            raise ValueError(
                "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT: expected a number in [0, 1], got "
                f"{clip_ensemble_weight}."
            )
        self.clip_adapter = clip_adapter
        self.clip_ensemble = clip_ensemble
        self.clip_ensemble_weight = clip_ensemble_weight
        self.inference_mode = inference_mode

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL and TEST.OUTPUT."""
        demo = cfg.MODEL.META_ARCHITECTURE == "OVSegDEMO"
        return super().from_config(cfg) | {
            "clip_adapter": build_region_classifier(cfg),
            "clip_ensemble": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE,
            "clip_ensemble_weight": cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT,
            "inference_mode": cfg.MODEL.INFERENCE_MODE or ("demo" if demo else "semantic"),
        }

    def class_logits(self, outputs: dict[str, Any], vocabulary: Vocabulary) -> dict[str, Any]:
        """Compares the head's embeddings with text features; see `MaskFormer.class_logits`."""
        text = self.clip_adapter.text_features(vocabulary)  # (K + 1, D)
        layers = [outputs, *outputs.get("aux_outputs", ())]
        converted = [
            layer | {"pred_logits": self.clip_adapter.similarity(layer["pred_logits"], text)}
            for layer in layers
        ]
        if len(converted) > 1:
            converted[0]["aux_outputs"] = converted[1:]
        return converted[0]

    def predict(self, batch: ImageBatch, vocabulary: Vocabulary) -> Iterator[MaskPrediction]:
        """Predicts masks and scores; see `Segmentor.predict`."""
        asked = len(vocabulary)
        for prediction in super().predict(batch, self._told_apart(vocabulary)):
            yield prediction if prediction.num_classes == asked else _hide_last(prediction)

    def score(
        self,
        image: Tensor,
        masks: Tensor,
        proposal: Tensor,
        vocabulary: Vocabulary,
        output_size: tuple[int, int],
    ) -> MaskPrediction:
        """Combines the head's scores with CLIP's; see `MaskFormer.score`."""
        if not self.clip_ensemble:
            prediction = super().score(image, masks, proposal, vocabulary, output_size)
        else:
            logits, valid = self.clip_adapter.classify(image, masks, vocabulary)
            clip = torch.ones_like(proposal)  # (Q, K)
            # no-object is dropped before the softmax here, unlike in the head's scores.
            clip[valid] = logits[:, :-1].softmax(-1)
            weight = self.clip_ensemble_weight
            scores = ensemble_scores(proposal, clip, valid, weight=weight)
            prediction = MaskPrediction(masks, scores, proposal, clip, valid, output_size)
        if self.inference_mode == "semantic":
            return prediction
        best = keep_best_mask_per_class(
            prediction.class_scores, prediction.valid, skip=_background_of_two(vocabulary)
        )
        return replace(prediction, class_scores=best, threshold=self.mask_threshold)

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
