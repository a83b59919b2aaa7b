"""Masks such as a trained model makes, for models of random weights.

What some savings are worth depends on the shapes of the masks and on how they share the picture.
Random weights make masks that cover everything evenly, so those of a trained model stand in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.modeling.encoding import MaskEncoding
from ovseg.modeling.ovseg import OVSeg
from ovseg.modeling.segmentor import Inputs

__all__ = ["lend_masks"]

_OUTSIDE = -20.0  # logit of a pixel that no mask has


@torch.no_grad()
def lend_masks(model: OVSeg, donor: OVSeg, picture: np.ndarray) -> None:
    """Let a model find the masks of another in whatever picture it is shown.

    Its own network runs all the same. Class embeddings stay its own, those of the first masks.

    Args:
        model: changed in place.
        donor: with weights; its masks are found at once.
        picture: (H, W, 3) uint8 RGB, in which the donor finds Q masks, its quality of them
            included.

    Raises:
        ValueError: the model has fewer masks than the donor found.
    """
    image = torch.from_numpy(picture).permute(2, 0, 1).float()
    [found] = donor.encode([{"image": image.to(donor.device)}])
    count, most = len(found.mask_logits), model.sem_seg_head.num_queries
    if count > most:
        raise ValueError(f"expected at most {most} masks, as many as the model has, got {count}")
    logits, quality = found.input_logits(), found.quality
    encode: Callable[[Inputs], Iterator[MaskEncoding]] = model.encode

    def encode_with_lent_masks(batched_inputs: Inputs) -> Iterator[MaskEncoding]:
        for own in encode(batched_inputs):
            yield replace(
                own,
                mask_logits=_resized(logits, own),
                class_embeddings=own.class_embeddings[:count],
                quality=quality,
            )

    model.encode = encode_with_lent_masks  # type: ignore[method-assign]


def _resized(logits: Tensor, own: MaskEncoding) -> Tensor:
    """Logits (Q, h, w) of a picture as those of an encoding of it, padding included."""
    (height, width), (padded_height, padded_width) = own.size, own.padded_size
    resized = F.interpolate(logits[None], own.size, mode="bilinear", align_corners=False)
    margin = (0, padded_width - width, 0, padded_height - height)
    padded = F.pad(resized, margin, value=_OUTSIDE).to(own.mask_logits.device)
    grid = own.mask_logits.shape[1:]
    return F.interpolate(padded, grid, mode="bilinear", align_corners=False)[0]
