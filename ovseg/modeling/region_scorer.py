"""Regions of pictures compared with nouns, for the caption miner.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.modeling.region_classifier import Crops, RegionClassifier
from ovseg.vocab import Vocabulary

__all__ = ["ClipScorer"]


class ClipScorer:
    """Compares regions with nouns by CLIP on the masked crops, as OVSeg does at inference.

    Args:
        classifier: crops the regions and holds CLIP.
        name: which CLIP it is; recorded with every pair.
        templates: name of the templates that nouns are put into, or the templates.
        dtype: compute the regions' features in this precision where torch's autocast allows;
            None: as the weights are.
    """

    def __init__(
        self,
        *,
        classifier: RegionClassifier,
        name: str,
        templates: str | Sequence[str] = "vild",
        dtype: torch.dtype | None = None,
    ) -> None:
        self.classifier = classifier.eval()
        self.name = name
        self.templates = templates
        self.dtype = dtype
        self.device = classifier.pixel_mean.device

    def __call__(self, image: np.ndarray, masks: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Score the regions of one picture; see `ovseg.mining.parts.RegionScorer`."""
        return self.score_batch([image], [masks], [texts])[0]

    @torch.no_grad()
    def score_batch(
        self,
        images: Sequence[np.ndarray],
        masks: Sequence[np.ndarray],
        texts: Sequence[Sequence[str]],
    ) -> list[np.ndarray]:
        """Score the regions of several pictures; see `ovseg.mining.parts.BatchScorer`."""
        regions = F.normalize(self._encode(images, masks), dim=-1)  # (sum of V, D)
        parts = regions.split([len(one) for one in masks])
        return [
            (part @ self._text_features(names).T).cpu().numpy()
            for part, names in zip(parts, texts, strict=True)
        ]

    def _encode(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Tensor:
        """Features of all regions, full batches across pictures: (sum of V, D)."""
        return self.classifier.encode_crops(self._crops(images, masks), dtype=self.dtype)

    def _crops(self, images: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> Iterator[Crops]:
        for image, found in zip(images, masks, strict=True):
            pixels = torch.from_numpy(image).to(self.device).permute(2, 0, 1)  # (3, H, W)
            regions = torch.from_numpy(found).to(self.device)  # (V, H, W) bool
            valid, boxes = self.classifier.locate(regions)
            if not bool(valid.all()):
                raise ValueError("expected regions that are not empty, got an empty one")
            yield from self.classifier.crops(pixels, regions, boxes)

    def _text_features(self, texts: Sequence[str]) -> Tensor:
        """Unit rows (N, D). Each noun is encoded alone: its row depends on no other noun."""
        bank = self.classifier.text_bank
        rows = [bank.features(Vocabulary.make([text], templates=self.templates)) for text in texts]
        return torch.cat([self.classifier.pixel_mean.new_empty(0, rows[0].shape[1]), *rows])
