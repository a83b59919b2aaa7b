"""Captioned pictures to the samples that SegCLIP is trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from ovseg.clip import clip_config
from ovseg.d2.config import CfgNode, configurable
from ovseg.data.captions.records import caption_records
from ovseg.data.mappers import TRAIN_MAPPER_REGISTRY
from ovseg.data.transforms import random_resized_box
from ovseg.projects.segclip.superpixels import (
    PATCH_ID_MODES,
    Box,
    SuperpixelStore,
    shrink,
    superpixels_of_patches,
)
from ovseg.utils.image_store import ImageStore


@TRAIN_MAPPER_REGISTRY.register()
def segclip_captions(cfg: CfgNode) -> CaptionMapper:
    """Build the mapper that SegCLIP's configs name in INPUT.DATASET_MAPPER_NAME."""
    return CaptionMapper(cfg)


@dataclass(frozen=True)
class RandomResizedCrop:
    """A random part of a picture, scaled to a square; no flip and no change of colour.

    Args:
        size: side of the result.
        scale: least and largest share of the picture.
        ratio: least and largest width over height.
    """

    size: int
    scale: tuple[float, float] = (0.5, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Box]:
        """Cut and resize (bicubically, antialiased).

        Args:
            image: (H, W, 3) uint8 RGB.
            rng: source of the place.

        Returns:
            (S, S, 3) uint8 RGB, and the part in fractions of the sides.
        """
        size = (image.shape[0], image.shape[1])
        left, top, right, bottom = random_resized_box(size, rng, scale=self.scale, ratio=self.ratio)
        return self.cut(image, (top, left, bottom - top, right - left))

    def cut(self, image: np.ndarray, place: tuple[int, int, int, int]) -> tuple[np.ndarray, Box]:
        """Cut and resize the part at (top, left, height, width); see `__call__`."""
        height, width = image.shape[:2]
        top, left, h, w = place
        part = Image.fromarray(image[top : top + h, left : left + w])
        resized = part.resize((self.size, self.size), Image.Resampling.BICUBIC)
        across, down = max(width - 1, 1), max(height - 1, 1)
        # In single precision, as the released data has it: its rounding decides on border pixels.
        start = (_single(left / across), _single(top / down))
        end = (_single((left + w - 1) / across), _single((top + h - 1) / down))
        return np.array(resized), (*start, *end)


def _single(value: float) -> float:
    return float(np.float32(value))


class CaptionMapper:
    """Reads a captioned picture and cuts it and its superpixels at random.

    Args:
        records: see `CaptionRecords`.
        crop: cuts pictures.
        patch_size: of the image tower.
        stored_short_side: see `shrink`; superpixels were made at that size.
        superpixels: of all pictures; None where no loss needs them.
        patch_id_mode: see `superpixels_of_patches`.
    """

    @configurable
    def __init__(
        self,
        *,
        records: Sequence[Mapping[str, Any]],
        crop: RandomResizedCrop,
        patch_size: int,
        stored_short_side: int = 224,
        superpixels: SuperpixelStore | None = None,
        patch_id_mode: str = "mean_trunc",
    ) -> None:
        if patch_id_mode not in PATCH_ID_MODES:
            raise ValueError(
                f"MODEL.SEGCLIP.KL.PATCH_ID_MODE: expected one of {PATCH_ID_MODES}, got "
                f"{patch_id_mode!r}"
            )
        self.records = records
        self.crop = crop
        self.patch_size = patch_size
        self.stored_short_side = stored_short_side
        self.superpixels = superpixels
        self.patch_id_mode = patch_id_mode

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Opens DATASETS.TRAIN as captioned pictures, and the superpixels."""
        method = cfg.MODEL.SEGCLIP
        vision = clip_config(cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME)["vision_cfg"]
        scale, ratio = method.CROP_SCALE, method.CROP_RATIO
        crop = RandomResizedCrop(
            method.IMAGE_SIZE or vision["image_size"],
            (float(scale[0]), float(scale[1])),
            (float(ratio[0]), float(ratio[1])),
        )
        return {
            "records": caption_records(cfg.DATASETS.TRAIN),
            "crop": crop,
            "patch_size": vision["patch_size"],
            "stored_short_side": method.STORED_SHORT_SIDE,
            "superpixels": SuperpixelStore(method.KL.SUPERPIXELS) if method.KL.ENABLED else None,
            "patch_id_mode": method.KL.PATCH_ID_MODE,
        }

    def __call__(
        self, record: Mapping[str, Any], rng: np.random.Generator | None = None
    ) -> dict[str, Any]:
        """Make a training sample.

        Args:
            record: of `records`, left unchanged.
            rng: source of all random choices; None draws from fresh entropy.

        Returns:
            The record with `image` (3, S, S) uint8 RGB, `noise_seed` for what the model draws, and
            `superpixels` (h, w) int64 of the patches where a loss needs them.

        Raises:
            ImageError: the picture cannot be read, or has no superpixels.
        """
        rng = np.random.default_rng() if rng is None else rng
        picture = ImageStore(record["image_root"]).read(record["file_name"])
        image, box = self.crop(shrink(picture, self.stored_short_side), rng)
        sample = {
            **record,
            "image": torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))),
            "noise_seed": int(rng.integers(2**62)),
        }
        if self.superpixels is not None:
            ids = superpixels_of_patches(
                self.superpixels[record["image_id"]],
                box,
                size=self.crop.size,
                patch_size=self.patch_size,
                mode=self.patch_id_mode,
            )
            sample["superpixels"] = torch.from_numpy(ids)
        return sample
