"""CorrCLIP: segmentation by a CLIP whose last attention is rebuilt; nothing is trained.

Source: Zhang et al., "CorrCLIP: Reconstructing Patch Correlations in CLIP for Open-Vocabulary
Semantic Segmentation", ICCV 2025, arXiv 2411.10086; the memory bank and the correlations of the
whole picture are those of its second version.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from open_clip import CLIP
from torch import Tensor, nn

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, ClipTexts, load_clip
from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY
from ovseg.modeling import Encoding, SegmentationModel
from ovseg.modeling.segmentor import Inputs
from ovseg.projects.corrclip.config import add_config
from ovseg.projects.corrclip.correlation import resize_ids
from ovseg.projects.corrclip.dense import DenseFeatures, build_dense
from ovseg.projects.corrclip.encoding import WindowEncoding
from ovseg.projects.corrclip.pictures import InputRegions, seen_picture
from ovseg.projects.corrclip.pooling import region_means
from ovseg.projects.corrclip.prediction import RegionwisePrediction
from ovseg.projects.corrclip.regions import RegionSource, build_regions
from ovseg.projects.corrclip.retrieval import MemoryBank, retrieve, support_scores
from ovseg.projects.corrclip.strings import with_strings
from ovseg.projects.corrclip.tower import CorrelatedTower, CorrelationSettings
from ovseg.projects.corrclip.windows import Window, average_windows, plan_windows
from ovseg.vocab import TextBank, Vocabulary

PRECISIONS = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}

__all__ = ["CorrCLIP", "Decision", "Support", "WindowSettings", "add_config"]


@dataclass(frozen=True)
class WindowSettings:
    """How a resized picture is cut; see `plan_windows`.

    Args:
        crop: side of a window, pixels.
        stride: step between windows.
        pad_multiple: sides are padded to multiples of this.
        pad_id: region of the padding, if no region has a larger id.
    """

    crop: int = 336
    stride: int = 112
    pad_multiple: int = 56
    pad_id: int = 10000


@dataclass(frozen=True)
class Decision:
    """How scores become labels; see `RegionwisePrediction`.

    Args:
        scale: factor of the cosines before the softmax.
        threshold: pixels whose best class has less probability go to the background.
        background_id: its label; None for the vocabulary's background class.
        correct: whether all pixels of a region get its most frequent label.
    """

    scale: float = 40.0
    threshold: float = 0.0
    background_id: int | None = None
    correct: bool = True


@dataclass(frozen=True)
class Support:
    """What a memory bank has to say.

    Args:
        bank: the bank.
        encoders: the bank's CLIPs that are asked, the model's own first.
        clips: the further ones, whose text towers are needed.
        k: regions looked up for each of a picture's.
        weight: share of the bank's scores.

    Raises:
        ValueError: not one CLIP for each further encoder, or a number out of range.
    """

    bank: MemoryBank
    encoders: Sequence[str]
    clips: Sequence[CLIP] = ()
    k: int = 20
    weight: float = 0.5

    def __post_init__(self) -> None:
        if len(self.encoders) != 1 + len(self.clips):
            raise ValueError(
                "MODEL.CORRCLIP.BANK.AUX: expected a CLIP (AUX_CLIP_NAMES, AUX_CLIP_WEIGHTS) for "
                f"each of {list(self.encoders[1:])}, got {len(self.clips)}"
            )
        if not 0 <= self.weight <= 1 or self.k < 1:
            raise ValueError(
                "MODEL.CORRCLIP.BANK: expected ALPHA in [0, 1] and K of at least 1, got "
                f"{self.weight} and {self.k}"
            )


@META_ARCH_REGISTRY.register()
class CorrCLIP(SegmentationModel):
    """Names pixels by CLIP features that a vision model's correlations hold together.

    Args:
        clip: the CLIP.
        clip_name: what it is called.
        dense: the vision model.
        regions: the source of regions.
        correlation: the constants of the rebuilt attention.
        windows: how a resized picture is cut.
        decision: how scores become labels.
        support: the memory bank; None: without.
        whole_image: correlations come from features of the whole picture (v2).
        grid_scale: cells of these per patch of CLIP, either way.
        precision: "float32", "float16" or "bfloat16", of CLIP and the vision model.
        separator: between the strings of a class.
        base: see `SegmentationModel`.

    Raises:
        ValueError: the windows do not fit the vision model, or the precision does not exist.
    """

    has_own_weights = False

    @configurable
    def __init__(
        self,
        *,
        clip: CLIP,
        clip_name: str,
        dense: DenseFeatures,
        regions: RegionSource,
        correlation: CorrelationSettings,
        windows: WindowSettings,
        decision: Decision,
        support: Support | None = None,
        whole_image: bool = False,
        grid_scale: int = 2,
        precision: str = "float32",
        separator: str = "; ",
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if precision not in PRECISIONS:
            raise ValueError(
                f"MODEL.CORRCLIP.PRECISION: expected one of {tuple(PRECISIONS)}, got {precision!r}"
            )
        if not whole_image and windows.pad_multiple % dense.cell:
            raise ValueError(
                f"MODEL.CORRCLIP.WINDOW.PAD_MULTIPLE: expected a multiple of {dense.cell}, the "
                f"cell of {dense.name}, got {windows.pad_multiple}"
            )
        self.clip, self.clip_name, self.dense = clip.eval(), clip_name, dense.eval()
        self.tower, self.correlation = CorrelatedTower(clip.visual, correlation), correlation
        self.texts = TextBank(ClipTexts(self.clip))
        self.regions, self._input_regions = regions, InputRegions(regions)
        self.windows, self.decision, self.support = windows, decision, support
        self.whole_image, self.grid_scale = whole_image, grid_scale
        self.precision, self.separator = precision, separator
        self.aux_clips = nn.ModuleList(support.clips if support else ())
        self.aux_texts = [TextBank(ClipTexts(clip)) for clip in self.aux_clips]

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL.CORRCLIP; the CLIP and its prompts are those of MODEL.CLIP_ADAPTER."""
        adapter, node = cfg.MODEL.CLIP_ADAPTER, cfg.MODEL.CORRCLIP
        clip = load_clip(adapter.CLIP_MODEL_NAME, adapter.CLIP_WEIGHTS)
        return super().from_config(cfg) | {
            "pixel_mean": CLIP_PIXEL_MEAN,
            "pixel_std": CLIP_PIXEL_STD,
            "clip": clip,
            "clip_name": adapter.CLIP_MODEL_NAME,
            "dense": build_dense(cfg, clip.visual),
            "regions": build_regions(cfg),
            "correlation": CorrelationSettings.from_config(cfg),
            "windows": WindowSettings(
                crop=node.WINDOW.CROP,
                stride=node.WINDOW.STRIDE,
                pad_multiple=node.WINDOW.PAD_MULTIPLE,
                pad_id=node.WINDOW.PAD_ID,
            ),
            "decision": Decision(
                scale=node.LOGIT_SCALE,
                threshold=node.PROB_THD,
                background_id=node.BACKGROUND_ID if node.BACKGROUND_ID >= 0 else None,
                correct=node.MAP_CORRECTION,
            ),
            "support": build_support(cfg),
            "whole_image": _is_whole(node.CORRELATION),
            "grid_scale": node.GRID_SCALE,
            "precision": node.PRECISION,
            "separator": node.SEPARATOR,
        }

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the choices of inference; see `Segmentor.protocol`."""
        found: dict[str, str | int | float | bool] = {
            "clip": self.clip_name,
            "regions": self.regions.name,
            "dense_features": self.dense.name,
            "correlation": "image" if self.whole_image else "window",
            "window": f"{self.windows.crop} every {self.windows.stride}",
            "probability_threshold": self.decision.threshold,
            "map_correction": self.decision.correct,
        }
        if self.support is not None:
            found["memory_bank"] = f"{self.support.bank.name}: {', '.join(self.support.encoders)}"
        return super().protocol() | found

    def text_banks(self) -> Sequence[TextBank]:
        """Lists what it keeps features of texts in; see `SegmentationModel.text_banks`."""
        return (self.texts, *self.aux_texts)

    def encode(self, batched_inputs: Inputs) -> Iterator[WindowEncoding]:
        """Computes features, regions and what the bank has for them; see `Segmentor.encode`."""
        for x in batched_inputs:
            batch = self.prepare([x])
            image, output_size = batch.padded.tensor[0], batch.output_sizes[0]  # (3, h, w)
            size = (image.shape[1], image.shape[2])
            ids = self._input_regions(x).to(self.device)  # at the picture's own size
            small = resize_ids(ids, size)  # (h, w)
            vision = None
            if self.whole_image or self.support is not None:
                vision = self.vision_features(seen_picture(x))
            windows = self._plan(size)
            found = self._window_features(image, small, windows, vision)
            where, supports = self._look_up(vision, small)
            yield WindowEncoding(
                features=torch.stack([F.normalize(one, dim=0) for one in found]),
                windows=windows,
                size=size,
                output_size=output_size,
                regions=resize_ids(ids, output_size),
                where=where,
                supports=supports,
            )

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> RegionwisePrediction:
        """Compares the features with every string of every class; see `Segmentor.decode`."""
        assert isinstance(encoding, WindowEncoding)
        vocabulary = with_strings(vocabulary, self.separator)
        text, classes = self.texts.prompt_features(vocabulary)  # (P, D), (P,)
        cosines = (torch.einsum("pd,dhw->phw", text, one) for one in encoding.features)
        scores = average_windows(encoding.windows, cosines, encoding.size)  # (P, h, w)
        if self.support is not None and encoding.where is not None:
            texts = [text, *(bank.prompt_features(vocabulary)[0] for bank in self.aux_texts)]
            supported = support_scores(encoding.supports, texts, encoding.where)
            scores = torch.lerp(scores, supported, self.support.weight)
        chosen, named = self.decision, vocabulary.background
        return RegionwisePrediction(
            scores,
            encoding.output_size,
            classes=classes,
            count=len(vocabulary),
            scale=chosen.scale,
            threshold=chosen.threshold,
            background=named if chosen.background_id is None else chosen.background_id,
            regions=encoding.regions if chosen.correct else None,
            unsegmented=self.correlation.unsegmented,
        )

    @torch.no_grad()
    def clip_features(self, image: Tensor, regions: Tensor) -> Tensor:
        """Compute the features of a resized picture, for a memory bank.

        Args:
            image: (3, h, w) float RGB 0-255.
            regions: (h, w) integer ids.

        Returns:
            (D, h, w) float32 in the space of the texts, not normalised, averaged over the windows.
        """
        image, regions = image.to(self.device).float(), regions.to(self.device)
        size = (image.shape[1], image.shape[2])
        vision = None
        if self.whole_image:
            vision = self.vision_features(image.byte().permute(1, 2, 0).cpu().numpy())
        windows, image = self._plan(size), (image - self.pixel_mean) / self.pixel_std
        return average_windows(
            windows, self._window_features(image, regions, windows, vision), size
        )

    @torch.no_grad()
    def vision_features(self, picture: np.ndarray) -> Tensor:
        """Compute the vision model's features of a whole picture at its own size.

        Args:
            picture: (H, W, 3) uint8 RGB; its sides are rounded to the model's multiples.

        Returns:
            (C, h, w) float32, not normalised.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(self.device)
        pixels = pixels.permute(2, 0, 1)[None].float()  # (1, 3, H, W)
        cell = self.dense.cell
        size = [max(cell, round(side / cell) * cell) for side in pixels.shape[2:]]
        pixels = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
        with self._autocast():
            return self.dense(pixels)[0].float()

    def _plan(self, size: tuple[int, int]) -> list[Window]:
        chosen = self.windows
        return plan_windows(
            *size, crop=chosen.crop, stride=chosen.stride, pad_multiple=chosen.pad_multiple
        )

    def _window_features(
        self, image: Tensor, ids: Tensor, windows: Sequence[Window], vision: Tensor | None
    ) -> Iterator[Tensor]:
        """Features (D, h', w') float32 of each window of an image (3, h, w), normalised."""
        pad_id = max(self.windows.pad_id, int(ids.max()) + 1)
        size = (ids.shape[0], ids.shape[1])
        for window in windows:
            crop = window.cut(image)
            with self._autocast():
                if self.whole_image and vision is not None:
                    patch = self.clip.visual.patch_size
                    sides = zip(window.size, patch, strict=True)
                    grid = tuple(self.grid_scale * (side // step) for side, step in sides)
                    dense = window.sample(vision, size, grid)  # (C, h', w')
                else:
                    dense = self.dense((crop * self.pixel_std + self.pixel_mean)[None])[0]
                found = self.tower(crop[None], dense, window.cut(ids, pad_id))
            yield found.float()

    def _look_up(self, vision: Tensor | None, ids: Tensor) -> tuple[Tensor | None, list[Tensor]]:
        """Row of each pixel, and per CLIP what the bank has for each row."""
        if self.support is None or vision is None:
            return None, []
        chosen = self.support
        _, queries = region_means(vision, ids, unit=True)  # (R, C), by ascending id
        where = ids.unique(return_inverse=True)[1]
        return where, retrieve(chosen.bank, queries, chosen.encoders, chosen.k)

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32)


def build_support(cfg: CfgNode) -> Support | None:
    """Open the memory bank and load the CLIPs that MODEL.CORRCLIP.BANK names.

    Args:
        cfg: the full config.

    Returns:
        The support; None where the bank is not enabled.
    """
    node = cfg.MODEL.CORRCLIP.BANK
    if not node.ENABLED:
        return None
    from ovseg.projects.corrclip.bank import build_bank

    if not len(node.AUX) == len(node.AUX_CLIP_NAMES) == len(node.AUX_CLIP_WEIGHTS):
        raise ValueError(
            "MODEL.CORRCLIP.BANK: expected AUX, AUX_CLIP_NAMES and AUX_CLIP_WEIGHTS of one length, "
            f"got {node.AUX}, {node.AUX_CLIP_NAMES}, {node.AUX_CLIP_WEIGHTS}"
        )
    clips = []
    for name, weights in zip(node.AUX_CLIP_NAMES, node.AUX_CLIP_WEIGHTS, strict=True):
        clip = load_clip(name, weights).eval()
        clip.visual = nn.Identity()  # only its texts are asked
        clips.append(clip)
    return Support(
        bank=build_bank(cfg),
        encoders=(node.ENCODER, *node.AUX),
        clips=clips,
        k=node.K,
        weight=node.ALPHA,
    )


def _is_whole(correlation: str) -> bool:
    if correlation not in ("window", "image"):
        raise ValueError(
            f"MODEL.CORRCLIP.CORRELATION: expected one of ('window', 'image'), got {correlation!r}"
        )
    return correlation == "image"
