"""A picture that a model has encoded, ready to be asked for words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ovseg.modeling.ensemble import EnsembleSettings
from ovseg.modeling.prediction import Prediction
from ovseg.modeling.segmentor import Encoding
from ovseg.segmentation import Segmentation
from ovseg.utils.specks import merge_specks
from ovseg.visualization import BLANK
from ovseg.vocab import Names, Vocabulary

if TYPE_CHECKING:
    from ovseg.predictor import Predictor


class EncodedPicture:
    """A picture that is ready to be asked for words; made by `Predictor.set_image`.

    Args:
        predictor: whose model encoded it.
        image: (H, W, 3) uint8 RGB.
        encoding: what the model found.
        file: the picture's file as provenance, where it has one.
    """

    def __init__(
        self,
        predictor: Predictor,
        image: np.ndarray,
        encoding: Encoding,
        file: Mapping[str, Any],
    ) -> None:
        self.predictor = predictor
        self.image = image
        self.encoding = encoding
        self._file = file

    @torch.no_grad()
    def segment(
        self,
        names: Names | str | Vocabulary,
        *,
        background: str | None = None,
        templates: str | Sequence[str] | None = None,
        threshold: float = 0.0,
        mask_threshold: float | None = None,
        proposals: bool = False,
        min_region_area: int = 0,
    ) -> Segmentation:
        """Cut the picture into the regions of the classes named; see `Predictor.segment`.

        Args:
            names: class names, alone or with synonyms, a benchmark's name, or a vocabulary.
            background: a further class for everything else.
            templates: other prompt templates than the model's.
            threshold: a class with a lower score loses its pixels.
            mask_threshold: a pixel belongs to a mask above this value; None: the model's own.
            proposals: also list the model's masks, where it has any.
            min_region_area: parts with fewer pixels join what surrounds them.

        Returns:
            The segmentation, at the picture's own size.

        Raises:
            ValueError: unusable names, or a value out of range.
        """
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold: expected a score from 0 to 1, got {threshold}")
        vocabulary = self.predictor.vocabulary(names, background=background, templates=templates)
        prediction = self._decode(vocabulary, mask_threshold)
        named = prediction.labels(blank=BLANK).to("cpu", torch.int32)  # (H, W)
        labels = merge_specks(named.numpy(), min_region_area)
        scores = prediction.region_scores(labels)  # (K,)
        lost = scores < threshold
        labels[lost[labels] & (labels != BLANK)] = BLANK
        return Segmentation(
            image=self.image,
            labels=labels,
            names=vocabulary.names,
            scores=np.where(lost, np.float32(0), scores),
            proposals=prediction.proposals() if proposals else None,
            background=vocabulary.background,
            provenance={
                **self._file,
                **self.predictor.provenance,
                "templates": len(vocabulary.templates),
                "threshold": threshold,
                "min_region_area": min_region_area,
            }
            | ({} if mask_threshold is None else {"mask_threshold": mask_threshold}),
        )

    def _decode(self, vocabulary: Vocabulary, mask_threshold: float | None) -> Prediction:
        model: Any = self.predictor.model
        if mask_threshold is None:
            return model.decode(self.encoding, vocabulary)
        settings = getattr(model, "ensemble", None)
        if not isinstance(settings, EnsembleSettings):
            raise ValueError(
                f"mask_threshold: expected None for {type(model).__name__}, which cuts no masks at "
                f"a threshold of each call, got {mask_threshold}"
            )
        own = replace(settings, mask_threshold=mask_threshold)
        return model.decode(self.encoding, vocabulary, ensemble=own)
