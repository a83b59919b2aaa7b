"""Naming masks: each region, cut out and resized, goes through the mask-prompted CLIP.

Source: OVSeg (Liang et al., CVPR 2023), sections 3.1 and 3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, ClipTexts, MaskPromptedCLIP
from ovseg.clip.int8 import int8_copy
from ovseg.clip.mask_prompt import MaskPromptedVisionTransformer
from ovseg.modeling.encoding import RegionFeatures
from ovseg.modeling.fast import FastSettings
from ovseg.utils.boxes import Box, expand_box, masks_to_boxes
from ovseg.vocab import TextBank, Vocabulary

# Inverse temperature of every comparison with text features; CLIP's own scale saturates here.
LOGIT_SCALE = 100.0

MASK_FILLS = ("mean", "zero")

Crops = tuple[Tensor, Tensor]
"""Regions (N, 3, S, S) and their masks (N, 1, S, S)."""


class RegionClassifier(nn.Module):
    """CLIP, frozen, comparing image regions with the classes of a vocabulary.

    Only `non_object_embedding` is trained. Text features are kept per class until weights are
    loaded or the module moves to another device.

    Args:
        clip_model: the mask-prompted CLIP; it stays in eval mode.
        mask_fill: what surrounds a region: "mean" (CLIP's mean colour) or "zero" (black).
        mask_threshold: a pixel belongs to a mask above this value.
        expand_ratio: factor on the sides of a region's tight box.
        matting: blend with the mask's values instead of cutting at the threshold. Every patch that
            has any mask value then counts as foreground, which switches the mask prompt off.
        mask_prompt: whether CLIP sees the masks besides the regions.
        chunk_size: regions per CLIP forward.
        fast: what may be saved; None: nothing. Which masks need not be looked at is up to the
            caller.

    Raises:
        ValueError: an argument is out of range.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        clip_model: MaskPromptedCLIP,
        mask_fill: str = "mean",
        mask_threshold: float = 0.4,
        expand_ratio: float = 1.0,
        matting: bool = False,
        mask_prompt: bool = True,
        chunk_size: int = 32,
        fast: FastSettings | None = None,
    ) -> None:
        super().__init__()
        if mask_fill not in MASK_FILLS:
            raise ValueError(
                f"MODEL.CLIP_ADAPTER.MASK_FILL: expected one of {MASK_FILLS}, got {mask_fill!r}."
            )
        if chunk_size < 1:
            raise ValueError(
                f"MODEL.CLIP_ADAPTER.CHUNK_SIZE: expected at least 1, got {chunk_size}."
            )
        self.clip_model = clip_model.requires_grad_(False).eval()
        self.mask_fill = mask_fill
        self.mask_threshold = mask_threshold
        self.expand_ratio = expand_ratio
        self.matting = matting
        self.mask_prompt = mask_prompt
        self.chunk_size = chunk_size
        self.fast = fast or FastSettings()
        visual = clip_model.visual
        self._merge_after = self.fast.blocks_before_merging(
            len(visual.transformer.resblocks), visual.mask_prompt_depth if mask_prompt else 0
        )
        # The tower in int8, once it was needed; in a list, so that it is no part of the module.
        self._int8: list[MaskPromptedVisionTransformer] = []
        self.register_buffer("pixel_mean", torch.tensor(CLIP_PIXEL_MEAN).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(CLIP_PIXEL_STD).view(1, 3, 1, 1))
        text_width = clip_model.token_embedding.embedding_dim
        self.non_object_embedding = nn.Parameter(
            torch.randn(1, clip_model.embed_dim) * text_width**-0.5
        )
        # Objects, not closures: a deep copy must refer to the copied CLIP.
        self.text_bank = TextBank(ClipTexts(clip_model))
        clip_model.register_load_state_dict_post_hook(self._forget)

    def train(self, mode: bool = True) -> RegionClassifier:
        """Sets the mode of everything but CLIP, which stays in eval mode."""
        super().train(mode)
        self.clip_model.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> RegionClassifier:
        self._forget()
        return super()._apply(fn, recurse)

    def _forget(self, *_: Any) -> None:
        self.text_bank.clear()
        self._int8.clear()

    def text_features(self, vocabulary: Vocabulary) -> Tensor:
        """Unit rows that embeddings are compared with.

        Args:
            vocabulary: K classes.

        Returns:
            (K + 1, D) float32; the last row is the trainable "no object" embedding.
        """
        no_object = F.normalize(self.non_object_embedding.float(), dim=-1)
        return torch.cat((self.text_bank.features(vocabulary), no_object))

    def similarity(self, embeddings: Tensor, text_features: Tensor) -> Tensor:
        """Scaled cosine similarity.

        Args:
            embeddings: (..., D), of any length.
            text_features: (K + 1, D) unit rows.

        Returns:
            (..., K + 1) float32 logits.
        """
        with torch.autocast(embeddings.device.type, enabled=False):
            return LOGIT_SCALE * F.normalize(embeddings.float(), dim=-1) @ text_features.T

    def locate(self, masks: Tensor, *, threshold: float | None = None) -> tuple[Tensor, list[Box]]:
        """Finds the masks that are not empty, and their boxes.

        Args:
            masks: (Q, h, w) in [0, 1], or bool.
            threshold: a pixel belongs to a mask above this value; None: the classifier's own.

        Returns:
            valid (Q,) bool, and the (expanded) boxes of the V valid masks.
        """
        threshold = self.mask_threshold if threshold is None else threshold
        tight = masks_to_boxes(masks > threshold)  # (Q, 4)
        valid = tight[:, 2] > 0  # the box of an empty mask is all zeros
        boxes = [(x0, y0, x1, y1) for x0, y0, x1, y1 in tight.tolist() if x1 > 0]
        if self.expand_ratio != 1.0:
            size = (masks.shape[1], masks.shape[2])
            boxes = [expand_box(box, self.expand_ratio, size) for box in boxes]
        return valid, boxes

    def crop_regions(
        self,
        image: Tensor,
        masks: Sequence[Tensor],
        boxes: Sequence[Box],
        *,
        threshold: float | None = None,
    ) -> Crops:
        """Cuts regions out, fills what lies outside the mask, and resizes them for CLIP.

        The fill and the normalisation precede the resizing, which has no antialiasing and does not
        keep the aspect ratio: the released CLIP was adapted to regions made so.

        Args:
            image: (3, h, w) normalised with CLIP's statistics.
            masks: N masks (h, w) in [0, 1].
            boxes: N boxes XYXY.
            threshold: see `locate`.

        Returns:
            (N, 3, S, S) regions (bicubic) and (N, 1, S, S) masks (nearest).
        """
        threshold = self.mask_threshold if threshold is None else threshold
        size = self.clip_model.image_size
        regions = image.new_empty(len(masks), 3, *size)
        prompts = image.new_empty(len(masks), 1, *size)
        fill = None if self.mask_fill == "mean" else (-self.pixel_mean / self.pixel_std)[0]
        for index, (mask, (left, top, right, bottom)) in enumerate(zip(masks, boxes, strict=True)):
            alpha = mask[None, top:bottom, left:right]  # (1, ch, cw)
            if not self.matting:
                alpha = alpha > threshold
            alpha = alpha.to(image.dtype)
            region = image[:, top:bottom, left:right] * alpha  # the mean colour is 0 here
            if fill is not None:
                region = region + fill * (1 - alpha)
            regions[index] = F.interpolate(
                region[None], size=size, mode="bicubic", align_corners=False
            )[0]
            if self.mask_prompt or self._merge_after is not None:
                prompts[index] = F.interpolate(alpha[None], size=size, mode="nearest")[0]
        return regions, prompts

    def crops(
        self,
        image: Tensor,
        masks: Sequence[Tensor] | Tensor,
        boxes: Sequence[Box],
        *,
        threshold: float | None = None,
    ) -> Iterator[Crops]:
        """Cuts the regions of a picture out, at most `chunk_size` at a time.

        Args:
            image: (3, h, w) RGB 0-255.
            masks: N masks (h, w) in [0, 1], or bool; none empty.
            boxes: their N boxes XYXY.
            threshold: see `locate`.

        Yields:
            See `crop_regions`.
        """
        normalised = (image.float() - self.pixel_mean[0]) / self.pixel_std[0]
        for start in range(0, len(boxes), self.chunk_size):
            chunk = slice(start, start + self.chunk_size)
            chosen = list(masks[chunk])
            yield self.crop_regions(normalised, chosen, boxes[chunk], threshold=threshold)

    def encode_crops(self, crops: Iterable[Crops], *, dtype: torch.dtype | None = None) -> Tensor:
        """Encodes crops, `chunk_size` at a time, whichever pictures they come from.

        Args:
            crops: see `crop_regions`.
            dtype: compute in this precision where torch's autocast allows; None: as the weights
                are.

        Returns:
            (N, D) float32 features, not normalised.
        """
        features = [self.pixel_mean.new_empty(0, self.clip_model.embed_dim)]
        features += [
            self.encode_batch(regions, inside, dtype)
            for regions, inside in _full_batches(crops, self.chunk_size)
        ]
        return torch.cat(features)

    def encode_batch(self, regions: Tensor, inside: Tensor, dtype: torch.dtype | None) -> Tensor:
        """Encodes crops at once; see `encode_crops`.

        Args:
            regions: (N, 3, S, S), see `crop_regions`.
            inside: (N, 1, S, S), their masks.
            dtype: to compute in.

        Returns:
            (N, D) float32 features, not normalised.
        """
        precision = self.fast.precision_on(regions.device)
        visual = self._visual_in_int8() if precision == "int8" else self.clip_model.visual
        dtype = torch.bfloat16 if precision == "bfloat16" else dtype
        prompts = inside if self.mask_prompt else None
        with nullcontext() if dtype is None else torch.autocast(regions.device.type, dtype):
            if self._merge_after is None:
                return visual(regions, prompts).float()
            merged = visual(regions, prompts, regions=inside, merge_after=self._merge_after)
            return merged.float()

    def _visual_in_int8(self) -> MaskPromptedVisionTransformer:
        if not self._int8:
            self._int8.append(int8_copy(self.clip_model.visual))
        return self._int8[0]

    def forward(
        self,
        image: Tensor,
        masks: Tensor,
        *,
        threshold: float | None = None,
        wanted: Tensor | None = None,
        known: RegionFeatures | None = None,
    ) -> RegionFeatures:
        """Encodes the regions that are wanted and not known yet.

        Args:
            image: (3, h, w) RGB 0-255.
            masks: (Q, h, w) in [0, 1].
            threshold: see `locate`.
            wanted: (Q,) bool; None: all masks.
            known: what an earlier call with the same picture and threshold returned.

        Returns:
            The features, with at least all that are wanted and not empty.
        """
        valid, boxes = self.locate(masks, threshold=threshold)
        missing = valid if wanted is None else valid & wanted
        if known is None:
            shape = (len(masks), self.clip_model.embed_dim)
            features, encoded = self.pixel_mean.new_zeros(shape), torch.zeros_like(valid)
        else:
            features, encoded = known.features.clone(), known.encoded
            missing = missing & ~encoded
        chosen = [masks[index] for index in missing.nonzero()[:, 0].tolist()]  # views, no copies
        if chosen:
            boxes = [box for box, take in zip(boxes, missing[valid].tolist(), strict=True) if take]
            crops = self.crops(image, chosen, boxes, threshold=threshold)
            features[missing] = self.encode_crops(crops)
        return RegionFeatures(features=features, encoded=encoded | missing, valid=valid)


def _full_batches(crops: Iterable[Crops], size: int) -> Iterator[Crops]:
    """Joins and splits crops into batches of `size`; the last may be smaller."""
    waiting: list[Crops] = []
    count = 0
    for one in crops:
        waiting.append(one)
        count += len(one[0])
        while count >= size:
            regions, prompts = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
            yield regions[:size], prompts[:size]
            waiting, count = [(regions[size:], prompts[size:])], count - size
    if count:
        regions, prompts = (torch.cat(tensors) for tensors in zip(*waiting, strict=True))
        yield regions, prompts
