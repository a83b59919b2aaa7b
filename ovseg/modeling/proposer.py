"""The regions that a MaskFormer proposes, without the cost of naming them.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2: the proposals of the first stage are paired with the nouns of captions.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.modeling.mask_former import MaskFormer
from ovseg.modeling.mask_overlap import distinct_masks

__all__ = ["MaskFormerProposer"]

# Values held at a time when masks are brought to the picture's size.
_RESIZE_BYTES = 256 * 2**20


class MaskFormerProposer:
    """Proposes a model's masks, cut at a threshold, at the picture's size.

    Args:
        model: a MaskFormer or OVSeg in eval mode; its class outputs and its CLIP are not asked.
        name: which model it is; recorded with every pair.
        resize: brings a picture (H, W, 3) uint8 to the size that the network takes.
        threshold: a pixel belongs to a region above this value (paper: 0.4).
        duplicate_iou: leave out a mask that overlaps an earlier one by at least this; None keeps
            all, as the paper does.
        batch_size: pictures per forward pass; only pictures of one size go together, so that no
            picture is padded for another's sake.
        dtype: compute in this precision where torch's autocast allows; None: as the weights are.

    Raises:
        ValueError: a threshold or an overlap out of range.
    """

    def __init__(
        self,
        *,
        model: MaskFormer,
        name: str,
        resize: Callable[[np.ndarray], np.ndarray],
        threshold: float = 0.4,
        duplicate_iou: float | None = None,
        batch_size: int = 4,
        dtype: torch.dtype | None = None,
    ) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: expected a number between 0 and 1, got {threshold}")
        if duplicate_iou is not None and not 0 < duplicate_iou <= 1:
            raise ValueError(f"duplicate_iou: expected a number in (0, 1], got {duplicate_iou}")
        if batch_size < 1:
            raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
        self.model = model.eval()
        self.name = name
        self.resize = resize
        self.threshold = threshold
        self.duplicate_iou = duplicate_iou
        self.batch_size = batch_size
        self.dtype = dtype

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Propose regions of one picture; see `ovseg.proposals.RegionProposer`."""
        return self.propose_batch([image], [image_id])[0]

    @torch.no_grad()
    def propose_batch(
        self, images: Sequence[np.ndarray], image_ids: Sequence[str]
    ) -> list[np.ndarray]:
        """Propose regions of several pictures; see `ovseg.proposals.BatchProposer`."""
        tensors = [_to_tensor(self.resize(image)) for image in images]
        same_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, tensor in enumerate(tensors):
            same_size[tuple(tensor.shape)].append(index)
        found: dict[int, np.ndarray] = {}
        for indices in same_size.values():
            for start in range(0, len(indices), self.batch_size):
                chunk = indices[start : start + self.batch_size]
                logits = self._logits([tensors[index] for index in chunk])
                for index, one in zip(chunk, logits, strict=True):
                    found[index] = self._cut(one, images[index].shape[:2])
        return [found[index] for index in range(len(images))]

    def _logits(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Per picture mask logits (Q, h, w) at the network's input size."""
        inputs = [{"image": image} for image in images]
        device = self.model.device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            encodings = list(self.model.encode(inputs))
        return [encoding.input_logits() for encoding in encodings]

    def _cut(self, logits: Tensor, size: tuple[int, ...]) -> np.ndarray:
        """Regions (Q, H, W) bool of one picture from its logits (Q, h, w)."""
        # The sigmoid is monotonic: cutting the logits is cutting the probabilities.
        limit = math.log(self.threshold / (1 - self.threshold))
        if tuple(logits.shape[1:]) == size:
            masks = logits > limit  # (Q, H, W)
        else:
            at_a_time = max(1, _RESIZE_BYTES // (4 * size[0] * size[1]))
            masks = torch.cat([_resized(chunk, size) > limit for chunk in logits.split(at_a_time)])
        masks = masks[masks.flatten(1).any(1)]
        if self.duplicate_iou is not None:
            masks = masks[distinct_masks(masks, self.duplicate_iou)]
        return masks.cpu().numpy()


def _resized(logits: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(logits[None], size=size, mode="bilinear", align_corners=False)[0]


def _to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))  # (3, h, w)
