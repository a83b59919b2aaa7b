"""SegCLIP: learned centres group the patches of a picture, CLIP's texts name the groups.

Source: Luo et al., "SegCLIP: Patch Aggregation with Learnable Centers for Open-Vocabulary Semantic
Segmentation", ICML 2023, arXiv 2211.14813. Names of parameters are those of the released
checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.clip import (
    CLIP_PIXEL_MEAN,
    CLIP_PIXEL_STD,
    ClipTexts,
    MaskPromptedCLIP,
    encode_tokens,
    load_clip,
    tokenize,
)
from ovseg.clip.contrastive import ContrastiveLoss
from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY
from ovseg.modeling.prediction import DensePrediction
from ovseg.modeling.segmentor import Encoding, Inputs, SegmentationModel
from ovseg.projects.segclip.grouping import SemanticGrouping
from ovseg.projects.segclip.inference import (
    WindowScores,
    background_groups,
    class_logits,
    group_affinity,
    group_map,
    stitch,
    window_starts,
)
from ovseg.projects.segclip.losses import (
    MAX_LOGIT_SCALE,
    Noise,
    inverse_temperature,
    superpixel_kl,
)
from ovseg.projects.segclip.parameters import freeze, initialise, optimizer_groups
from ovseg.projects.segclip.reconstruction import (
    MAEDecoder,
    Masking,
    reconstruction_error,
    visible_patches,
    with_whole,
)
from ovseg.projects.segclip.settings import TrainingSettings
from ovseg.projects.segclip.visual import SegCLIPVisual
from ovseg.projects.segclip.weights import load_checkpoint
from ovseg.projects.segclip.words import read_words, without_background
from ovseg.vocab import TextBank, Vocabulary


@dataclass(eq=False)
class GroupEncoding(Encoding):
    """The groups of the W windows of a picture.

    Args:
        images: (W, D) unit rows, of whole windows.
        groups: (W, K, D) unit rows.
        pixels: (W, h, w) uint8, the group of every pixel.
        starts: (top, left) of each window.
        size: (height, width) of the picture at the network's input size.
        output_size: the requested (H, W).
    """

    images: Tensor
    groups: Tensor
    pixels: Tensor
    starts: list[tuple[int, int]]
    size: tuple[int, int]
    output_size: tuple[int, int]

    def tensors(self) -> dict[str, Tensor]:
        """Returns the content by name."""
        return {"images": self.images, "groups": self.groups, "pixels": self.pixels}


@META_ARCH_REGISTRY.register()
class SegCLIP(SegmentationModel):
    """SegCLIP.

    Args:
        clip: gives the text tower and the parts of the image tower.
        visual: the image tower, made of the CLIP's.
        decoder: of the reconstruction.
        training: of the losses.
        crop: side of a window.
        stride: step between windows.
        top_classes: classes that a window may have, by its image feature.
        background_threshold: a group whose best class stays below it is background, where the
            vocabulary has one.
        words: what is asked for in place of names of datasets.
        has_tokens: `clip` comes with the embedding of its tokens, which is not trained.
        **base: see `SegmentationModel`.
    """

    @configurable
    def __init__(
        self,
        *,
        clip: MaskPromptedCLIP,
        visual: SegCLIPVisual,
        decoder: MAEDecoder,
        training: TrainingSettings,
        crop: int = 224,
        stride: int = 224,
        top_classes: int = 5,
        background_threshold: float = 0.95,
        words: Mapping[str, str] | None = None,
        has_tokens: bool = False,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if not 0 < stride <= crop:
            raise ValueError(
                "MODEL.SEGCLIP.TEST.STRIDE: expected a step of 1 pixel up to a window's side "
                f"({crop}), or pixels are left out; got {stride}"
            )
        clip.visual = visual
        self.clip = clip
        self.vis_mae_decoder = decoder
        self.settings = training
        self.crop, self.stride = crop, stride
        self.top_classes = top_classes
        self.background_threshold = background_threshold
        self.words = dict(words or {})
        self.has_tokens = has_tokens
        self.contrastive = ContrastiveLoss()
        self.texts = TextBank(ClipTexts(self.clip), average="raw")
        freeze(self, reconstruct=training.mae_weight > 0)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Builds CLIP, whose weights MODEL.CLIP_ADAPTER names, and cuts it in two."""
        adapter, method = cfg.MODEL.CLIP_ADAPTER, cfg.MODEL.SEGCLIP
        clip = load_clip(adapter.CLIP_MODEL_NAME, adapter.CLIP_WEIGHTS)
        attention = clip.visual.transformer.resblocks[0].attn
        visual = SegCLIPVisual(
            clip.visual,
            first_stage=method.FIRST_STAGE_LAYERS,
            grouping=SemanticGrouping(
                attention.embed_dim,
                attention.num_heads,
                centers=method.NUM_CENTERS,
                layers=method.CROSS_LAYERS,
                tau=method.GUMBEL_TAU,
                batch_mix=method.COMPAT_BATCH_MIX,
            ),
            reconstruction_layers=method.MAE.ENCODER_LAYERS,
            image_size=method.IMAGE_SIZE,
        )
        decoder = MAEDecoder(
            attention.embed_dim,
            dim=method.MAE.DEC_DIM,
            depth=method.MAE.DEC_DEPTH,
            heads=method.MAE.DEC_HEADS,
            grid=visual.grid_size,
            patch_size=visual.patch_size,
        )
        transformer = visual.transformer
        new_parts = (transformer.semantic_layer2, transformer.reconstruct_layer2)
        initialise(*new_parts, transformer.layers_mae2, decoder)
        return super().from_config(cfg) | {
            "clip": clip,
            "visual": visual,
            "decoder": decoder,
            "training": TrainingSettings.from_config(cfg),
            "crop": method.TEST.CROP,
            "stride": method.TEST.STRIDE,
            "top_classes": method.TEST.TOPK,
            "background_threshold": method.TEST.BG_THRESH,
            "words": read_words(method.TEST.WORDS),
            "has_tokens": method.TOKENS_OF_CLIP,
            "pixel_mean": CLIP_PIXEL_MEAN,
            "pixel_std": CLIP_PIXEL_STD,
        }

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States windows, gate and background rule; see `Segmentor.protocol`."""
        return super().protocol() | {
            "window": self.crop,
            "stride": self.stride,
            "top_classes": self.top_classes,
            "background_threshold": self.background_threshold,
            "words": ", ".join(f"{name}={word}" for name, word in self.words.items()),
        }

    def text_banks(self) -> Sequence[TextBank]:
        """Lists what it keeps features of texts in; see `SegmentationModel.text_banks`."""
        return (self.texts,)

    def find_vocabulary(self, batched_inputs: Inputs) -> Vocabulary:
        """Reads the vocabulary that the inputs name, with this model's words for their classes."""
        found = super().find_vocabulary(batched_inputs)
        prompts = [
            (self.words[name],) if name in self.words else given
            for name, given in zip(found.names, found.prompts, strict=True)
        ]
        return replace(found, prompts=tuple(prompts))

    def train(self, mode: bool = True) -> SegCLIP:
        """Switches between training and evaluation; text features are not known any more."""
        self.texts.clear()
        return super().train(mode)

    def load_weights(
        self,
        state_or_path: Mapping[str, Tensor] | str | Path,
        *,
        to_train: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        """Loads a checkpoint strictly; see `load_checkpoint` for what may be missing.

        Args:
            state_or_path: see `SegmentationModel.load_weights`.
            to_train: training starts from it; a CLIP is taken, too.
            allow_pickle: see `SegmentationModel.load_weights`.
        """
        load_checkpoint(
            self,
            state_or_path,
            to_train=to_train,
            has_tokens=self.has_tokens,
            allow_pickle=allow_pickle,
        )
        self.texts.clear()

    # -- inference ---------------------------------------------------------------------------

    def encode(self, batched_inputs: Inputs) -> Iterable[GroupEncoding]:
        """Groups the patches of each image, window by window; see `Segmentor.encode`."""
        batch = self.prepare(batched_inputs)
        for image, output_size in zip(batch.images, batch.output_sizes, strict=True):
            height, width = image.shape[1:]
            starts = [
                (top, left)
                for top in window_starts(height, self.crop, self.stride)
                for left in window_starts(width, self.crop, self.stride)
            ]
            windows = torch.stack(
                [image[:, t : t + self.crop, left : left + self.crop] for t, left in starts]
            )  # (W, 3, h, w)
            images, groups, pixels = self._group_windows(windows)
            yield GroupEncoding(images, groups, pixels, starts, (height, width), output_size)

    def _group_windows(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Windows (W, 3, h, w) to unit rows (W, D) and (W, K, D), and groups of pixels."""
        height, width = windows.shape[2:]
        patch = self.clip.visual.patch_size
        normalised = (windows - self.pixel_mean) / self.pixel_std
        padded = F.pad(normalised, (0, -width % patch, 0, -height % patch))
        size = (padded.shape[2], padded.shape[3])
        found = self.clip.visual(padded)
        pixels = group_map(found.grouping.soft, (size[0] // patch, size[1] // patch), size)
        pixels = pixels[:, :height, :width].to(torch.uint8)
        return F.normalize(found.image, dim=-1), F.normalize(found.groups, dim=-1), pixels

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
        """Names the groups of every window; see `Segmentor.decode`.

        Raises:
            ValueError: the vocabulary has nothing but a background.
        """
        assert isinstance(encoding, GroupEncoding)
        scores = self.group_scores(encoding, vocabulary)  # (W, K, C)
        windows = (
            WindowScores(*window)
            for window in zip(scores, encoding.pixels, encoding.starts, strict=True)
        )
        stitched = stitch(windows, classes=len(vocabulary), size=encoding.size)
        return DensePrediction(stitched, encoding.output_size)

    def group_scores(self, encoding: GroupEncoding, vocabulary: Vocabulary) -> Tensor:
        """Scores the classes of a vocabulary on the groups of a picture.

        Args:
            encoding: of W windows with K groups each.
            vocabulary: C classes; its background, if it has one, is not prompted.

        Returns:
            (W, K, C) in [0, 1]; of the background 1 or 0.
        """
        text = self.texts.features(without_background(vocabulary))  # (N, D)
        scale = float(inverse_temperature(self.clip.logit_scale))
        affinity = group_affinity(
            class_logits(encoding.groups, text, scale),
            class_logits(encoding.images, text, scale),
            self.top_classes,
        )  # (W, K, N)
        if vocabulary.background is None:
            return affinity
        empty = background_groups(affinity, self.background_threshold).to(affinity)[..., None]
        first, last = affinity.split(
            [vocabulary.background, affinity.shape[-1] - vocabulary.background], dim=-1
        )
        return torch.cat([first, empty, last], dim=-1)

    # -- training ----------------------------------------------------------------------------

    def losses(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> dict[str, Tensor]:
        """Computes the three losses on captioned crops.

        Args:
            batched_inputs: of the mapper `segclip_captions`: image, caption, noise_seed, and
                superpixels where their loss has a weight.
            vocabulary: not used.

        Returns:
            loss_contrastive and, where they have a weight, loss_superpixel and
            loss_reconstruction.
        """
        images = torch.stack([x["image"] for x in batched_inputs]).to(self.device, torch.float32)
        tokens = tokenize([x["caption"] for x in batched_inputs], self.settings.context_length)
        visual, superpixels = self.clip.visual, None
        if self.settings.kl_weight:
            superpixels = torch.stack([x["superpixels"] for x in batched_inputs])
            superpixels = superpixels.flatten(1).to(self.device)  # (B, L)
        patches = math.prod(visual.grid_size)
        noise = Noise.draw(
            [x["noise_seed"] for x in batched_inputs],
            centers=len(visual.transformer.semantic_layer2.semantic_center),
            patches=patches,
            visible=visible_patches(patches, self.settings.mask_ratio),
            device=self.device,
        )
        normalised = (images - self.pixel_mean) / self.pixel_std
        return self.compare(normalised, tokens.to(self.device), superpixels, noise)

    def compare(
        self, images: Tensor, tokens: Tensor, superpixels: Tensor | None, noise: Noise
    ) -> dict[str, Tensor]:
        """Computes the losses on tensors.

        Args:
            images: (B, 3, S, S), normalised.
            tokens: (B, T) of the captions.
            superpixels: (B, L), see `superpixel_kl`; None leaves that loss out.
            noise: what is drawn at random.

        Returns:
            See `losses`.
        """
        patches = self.clip.visual.embed(images)  # (B, L, C)
        found = self.clip.visual.encode(patches, noise.gumbel)
        rows = F.normalize(found.image, dim=-1)
        texts = F.normalize(encode_tokens(self.clip, tokens), dim=-1)
        scale = inverse_temperature(self.clip.logit_scale)
        losses = {"loss_contrastive": self.contrastive(rows, texts, scale)}
        if superpixels is not None:
            assignment = found.grouping.hard.transpose(1, 2)  # (B, L, K)
            kl = superpixel_kl(assignment, superpixels)
            losses["loss_superpixel"] = self.settings.kl_weight * kl
        if self.settings.mae_weight:
            masking = Masking.from_noise(noise.masking, self.settings.mask_ratio)
            visible = masking.select(patches)
            rebuilt = self.clip.visual.transformer.rebuild(visible, noise.gumbel_visible)
            predicted = self.vis_mae_decoder(with_whole(rebuilt), masking.restore)
            error = reconstruction_error(predicted, images, masking.hidden)
            losses["loss_reconstruction"] = self.settings.mae_weight * error
        return losses

    def optimizer_groups(self) -> list[dict[str, Any]]:
        """Gives the trainable parameters with their rates; see `build_optimizer`."""
        settings = self.settings
        return optimizer_groups(
            self.named_parameters(),
            lr_new=settings.lr_new,
            lr_clip=settings.lr_clip,
            weight_decay=settings.weight_decay,
        )

    @torch.no_grad()
    def after_step(self) -> None:
        """Keeps the temperature in bounds; see `TrainingStep`."""
        self.clip.logit_scale.clamp_(max=MAX_LOGIT_SCALE)
