"""Dense features of a vision model, whose correlations CLIP's values are mixed by.

Source: CorrCLIP (Zhang et al., ICCV 2025): queries plus keys of DINO's last attention; v2: the last
normalised layer of larger models. All by timm; a CLIP's own features, random projections and the
features of a MaskFormer serve where there is no such model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal

import timm
import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer as ClipTower
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, PatchEncoder
from ovseg.clip.blocks import query_key_value, run_block
from ovseg.clip.dense import embed_patches, interpolate_positions
from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import Registry, build_model
from ovseg.weights.find import RANDOM, find_weights, trained_weights
from ovseg.weights.load import load_strict, read_state_dict
from ovseg.weights.record import load_named

if TYPE_CHECKING:
    from ovseg.modeling.mask_former import MaskFormer

DENSE_REGISTRY = Registry("CORRCLIP_DENSE")
"""What builds each kind of dense features: a function of the config and the CLIP's image tower."""

PRETRAINED = "pretrained"
Feature = Literal["qk", "q", "k", "v", "last"]
_PARTS = {"q": (0,), "k": (1,), "v": (2,), "qk": (0, 1)}
FEATURES = (*_PARTS, "last")
POSITIONS = ("dino", "timm")


class DenseFeatures(nn.Module, ABC):
    """Maps pictures to a feature per cell.

    Attributes:
        name: which model and which feature of it; part of the protocol.
        cell: sides of a picture have to be multiples of this.
    """

    name: str
    cell: int
    mean: Tensor
    std: Tensor

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Compute the features.

        Args:
            images: (B, 3, H, W) float RGB 0-255, sides multiples of `cell`.

        Returns:
            (B, C, h, w), not normalised.
        """


def build_dense(cfg: CfgNode, visual: ClipTower) -> DenseFeatures:
    """Build what MODEL.CORRCLIP.DENSE names, in evaluation mode.

    Args:
        cfg: the full config.
        visual: CLIP's image tower.

    Returns:
        The features.

    Raises:
        ValueError: a name, feature or rule that does not exist.
        WeightsError: the weights do not fit.
    """
    dense = cfg.MODEL.CORRCLIP.DENSE
    for key, known in (("FEATURE", FEATURES), ("POSITIONS", POSITIONS)):
        if dense[key] not in known:
            raise ValueError(
                f"MODEL.CORRCLIP.DENSE.{key}: expected one of {known}, got {dense[key]!r}"
            )
    if dense.NAME not in DENSE_REGISTRY:
        known = tuple(name for name, _ in DENSE_REGISTRY)
        raise ValueError(f"MODEL.CORRCLIP.DENSE.NAME: expected one of {known}, got {dense.NAME!r}")
    return DENSE_REGISTRY.get(dense.NAME)(cfg, visual).eval()


class TimmFeatures(DenseFeatures):
    """Features of a Vision Transformer of timm.

    Args:
        model: the transformer, made with dynamic_img_size=True and num_classes=0.
        name: see `DenseFeatures`.
        feature: parts of the last block's attention input, added up; or "last", what the last block
            puts out, normalised.
        positions: "timm" resizes the position embedding as timm does; "dino" as DINO's code does
            (bicubic without antialiasing, sampling scale (n + 0.1) / n0), which takes a plain
            transformer with a learned embedding.

    Raises:
        ValueError: the transformer has not what `feature` or `positions` needs.
    """

    def __init__(
        self, model: Any, *, name: str, feature: Feature = "qk", positions: str = "dino"
    ) -> None:
        super().__init__()
        own = getattr(model, "default_cfg", None) or {}
        mean, std = own.get("mean", IMAGENET_DEFAULT_MEAN), own.get("std", IMAGENET_DEFAULT_STD)
        self.register_buffer("mean", 255 * torch.tensor(mean).view(-1, 1, 1), False)
        self.register_buffer("std", 255 * torch.tensor(std).view(-1, 1, 1), False)
        self.model: Any = model
        self.feature, self.positions = feature, positions
        self.name = f"{name}/{feature}/{positions}"
        self.cell = max(model.patch_embed.patch_size)
        if positions == "dino" and not _is_plain(model):
            raise ValueError(
                "MODEL.CORRCLIP.DENSE.POSITIONS: expected 'timm' for this model, 'dino' is for "
                f"Vision Transformers with a learned position per patch, got {name}"
            )
        if feature != "last" and not hasattr(model.blocks[-1].attn, "qkv"):
            raise ValueError(
                f"MODEL.CORRCLIP.DENSE.FEATURE: expected 'last' for {name}, whose queries and keys "
                f"do not come from one matrix, got {feature!r}"
            )

    def normalise(self, images: Tensor) -> Tensor:
        """Bring pictures 0-255 to what the transformer was trained with."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features; see `DenseFeatures.forward`."""
        images = self.normalise(images)
        grid = (images.shape[2] // self.cell, images.shape[3] // self.cell)
        if self.positions == "dino":
            model, tokens = self.model, self._embed(images, grid)
            for block in model.blocks[:-1]:
                tokens = block(tokens)
            last = model.blocks[-1]
            if self.feature == "last":
                tokens = model.norm(last(tokens))
            else:
                tokens = last.attn.qkv(last.norm1(tokens))
            tokens = tokens[:, model.num_prefix_tokens :]
        elif self.feature == "last":
            [found] = self.model.forward_intermediates(
                images, indices=1, norm=True, intermediates_only=True
            )
            return found
        else:
            tokens = self._hooked(images)[:, self.model.num_prefix_tokens :]
        if self.feature != "last":
            parts = tokens.chunk(3, dim=-1)
            tokens = torch.stack([parts[index] for index in _PARTS[self.feature]]).sum(0)
        return tokens.transpose(1, 2).unflatten(2, grid)

    def _embed(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        model = self.model
        patches = model.patch_embed(images).flatten(1, -2)  # (B, h * w, C)
        tokens = torch.cat([model.cls_token.expand(len(images), -1, -1), patches], dim=1)
        positions = interpolate_positions(
            model.pos_embed[0], model.patch_embed.grid_size, grid, scale_offset=0.1
        )
        return model.norm_pre(tokens + positions)

    def _hooked(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        layer = self.model.blocks[-1].attn.qkv
        hook = layer.register_forward_hook(lambda _module, _input, output: seen.append(output))
        try:
            self.model.forward_features(images)
        finally:
            hook.remove()
        return seen[0]


def _is_plain(model: nn.Module) -> bool:
    return (
        isinstance(model, VisionTransformer)
        and model.pos_embed is not None
        and model.num_prefix_tokens == 1
        and not model.no_embed_class
    )


@DENSE_REGISTRY.register()
def timm_vit(cfg: CfgNode, visual: ClipTower) -> TimmFeatures:
    """A Vision Transformer of timm; WEIGHTS are "pretrained", "random", or a file."""
    dense = cfg.MODEL.CORRCLIP.DENSE
    pretrained = dense.WEIGHTS == PRETRAINED
    model = timm.create_model(
        dense.MODEL, pretrained=pretrained, num_classes=0, dynamic_img_size=True
    )
    if dense.WEIGHTS not in (PRETRAINED, RANDOM):
        load_strict(model, read_state_dict(find_weights(dense.WEIGHTS)))
    return TimmFeatures(model, name=dense.MODEL, feature=dense.FEATURE, positions=dense.POSITIONS)


class ClipFeatures(DenseFeatures):
    """The CLIP's own patch features.

    Args:
        visual: the image tower; held without being registered.
        feature: as for `TimmFeatures`, of the last block; "last" is after the final normalisation.
        stride: step between patches in pixels, None for the patch size.
        scale_offset: see `ovseg.clip.dense.interpolate_positions`.
    """

    def __init__(
        self,
        visual: ClipTower,
        *,
        feature: Feature = "qk",
        stride: int | None = None,
        scale_offset: float = 0.1,
    ) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(CLIP_PIXEL_MEAN).view(-1, 1, 1), False)
        self.register_buffer("std", torch.tensor(CLIP_PIXEL_STD).view(-1, 1, 1), False)
        self._encoder = PatchEncoder(
            visual, output="ln_post", stride=stride, scale_offset=scale_offset
        )
        self.feature = feature
        self.cell = max(visual.patch_size)
        self.name = f"clip/{feature}" + (f"/{stride}" if stride else "")

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features; see `DenseFeatures.forward`."""
        images = (images - self.mean) / self.std
        if self.feature == "last":
            return self._encoder(images).features
        encoder, visual = self._encoder, self._encoder.visual
        tokens, grid = embed_patches(
            visual, images, stride=encoder.stride, scale_offset=encoder.scale_offset
        )
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            tokens = run_block(block, tokens)
        parts = query_key_value(last, tokens)  # q, k, v: (B, heads, 1 + h * w, d)
        chosen = torch.stack([parts[index] for index in _PARTS[self.feature]]).sum(0)
        return chosen[:, :, 1:].transpose(2, 3).flatten(1, 2).unflatten(2, grid)


@DENSE_REGISTRY.register()
def clip(cfg: CfgNode, visual: ClipTower) -> ClipFeatures:
    """The CLIP that is rebuilt itself."""
    dense = cfg.MODEL.CORRCLIP.DENSE
    return ClipFeatures(
        visual,
        feature=dense.FEATURE,
        stride=dense.STRIDE or None,
        scale_offset=cfg.MODEL.CORRCLIP.POSITION_OFFSET,
    )


class RandomFeatures(DenseFeatures):
    """Random projections of the pixels of a cell: a control.

    Args:
        cell: side of a cell, pixels.
        channels: number of features.
        seed: of the projections.
    """

    weight: Tensor

    def __init__(self, *, cell: int, channels: int, seed: int = 0) -> None:
        super().__init__()
        self.cell, self.name = cell, f"random/{cell}x{channels}"
        generator = torch.Generator().manual_seed(seed)
        weight = torch.randn(channels, 3, cell, cell, generator=generator) / cell
        self.register_buffer("weight", weight)

    def forward(self, images: Tensor) -> Tensor:
        """Project; see `DenseFeatures.forward`."""
        return F.conv2d(images / 127.5 - 1, self.weight, stride=self.cell)


@DENSE_REGISTRY.register()
def random(cfg: CfgNode, visual: ClipTower) -> RandomFeatures:
    """Random projections of CELL x CELL pixels to CHANNELS features."""
    dense = cfg.MODEL.CORRCLIP.DENSE
    return RandomFeatures(cell=dense.CELL, channels=dense.CHANNELS, seed=max(cfg.SEED, 0))


class MaskFormerFeatures(DenseFeatures):
    """What a MaskFormer's pixel decoder says of each cell: the mean of its mask features there.

    Args:
        model: a MaskFormer or OVSeg.
        name: see `DenseFeatures`.
        cell: side of a cell, pixels.
    """

    def __init__(self, model: MaskFormer, *, name: str, cell: int) -> None:
        super().__init__()
        self.name, self.cell = f"maskformer/{name}/{cell}", cell
        self.divisibility = model.size_divisibility
        self.backbone, self.decoder = model.backbone, model.sem_seg_head.pixel_decoder
        self.register_buffer("mean", model.pixel_mean, False)
        self.register_buffer("std", model.pixel_std, False)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the features; see `DenseFeatures.forward`."""
        height, width = images.shape[2:]
        padding = (0, -width % self.divisibility, 0, -height % self.divisibility)
        padded = F.pad((images - self.mean) / self.std, padding)
        features, _ = self.decoder.forward_features(self.backbone(padded))  # (B, C, h', w')
        stride = padded.shape[2] // features.shape[2]
        inside = features[..., : -(-height // stride), : -(-width // stride)]
        return F.adaptive_avg_pool2d(inside, (height // self.cell, width // self.cell))


@DENSE_REGISTRY.register()
def maskformer(cfg: CfgNode, visual: ClipTower) -> MaskFormerFeatures:
    """The pixel decoder of the MaskFormer of config MODEL; WEIGHTS "" are the config's own."""
    dense = cfg.MODEL.CORRCLIP.DENSE
    inner = load_cfg(dense.MODEL, ["MODEL.DEVICE", cfg.MODEL.DEVICE])
    model: Any = build_model(inner)
    load_named(model, dense.WEIGHTS or trained_weights(inner))
    return MaskFormerFeatures(model, name=dense.MODEL, cell=dense.CELL)
