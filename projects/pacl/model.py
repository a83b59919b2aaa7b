"""PACL: a frozen CLIP, and an embedder of its patches that captions have taught.

Source: Mukhoti et al., "Open Vocabulary Semantic Segmentation with Patch Aligned Contrastive
Learning", CVPR 2023 (arXiv 2212.04994).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.clip import ClipTexts, MaskPromptedCLIP, encode_texts, load_clip
from ovseg.d2.config import CfgNode, configurable
from ovseg.d2.modeling import META_ARCH_REGISTRY
from ovseg.modeling import DensePrediction, Encoding, SegmentationModel
from ovseg.modeling.segmentor import Inputs
from ovseg.projects.pacl.compatibility import PatchPooling
from ovseg.projects.pacl.config import add_config
from ovseg.projects.pacl.data import text_number
from ovseg.projects.pacl.embedder import PatchEmbedder
from ovseg.projects.pacl.inference import InferenceSettings, PatchGrid, score_pixels
from ovseg.projects.pacl.loss import PairKeys, PatchAlignedLoss
from ovseg.projects.pacl.towers import CLIPTower, ImageTower, TimmTower
from ovseg.vocab import TextBank, Vocabulary
from ovseg.weights.find import find_clip_weights
from ovseg.weights.load import WeightsError
from ovseg.weights.record import state_digest

__all__ = ["PACL", "PACLEncoding", "add_config", "settle_config"]

MAX_SCALE = 100.0
ENCODERS = ("clip", "dino")
_FROZEN = ("clip.", "tower.")
_DIGEST = "encoder_digest"


def settle_config(cfg: CfgNode, *, evaluating: bool) -> None:
    """Refuses what would not do what it says; see docs/new_method.md.

    Args:
        cfg: full configuration, not frozen.
        evaluating: whether a checkpoint will be evaluated.

    Raises:
        ValueError: micro-batches, which would compare a picture with fewer texts.
    """
    if not evaluating and cfg.SOLVER.ACCUMULATION_STEPS != 1:
        raise ValueError(
            "SOLVER.ACCUMULATION_STEPS: expected 1, as each picture of a step is compared with "
            f"the texts of all others, got {cfg.SOLVER.ACCUMULATION_STEPS}; lower "
            "SOLVER.IMS_PER_BATCH or MODEL.PACL.TEXT_CHUNK to save memory"
        )


@dataclass(eq=False)
class PACLEncoding(Encoding):
    """The embedded patches of a picture.

    Args:
        patches: (D, h, w) unit vectors.
        grid: where the patches lie in the picture.
        output_size: the requested (H, W).
    """

    patches: Tensor
    grid: PatchGrid
    output_size: tuple[int, int]

    def tensors(self) -> dict[str, Tensor]:
        """Returns the content by name."""
        return {"patches": self.patches}


@META_ARCH_REGISTRY.register()
class PACL(SegmentationModel):
    """Patches against words, in a space that a trained embedder maps the patches to.

    Only the embedder and the logit scale are trained, and they alone are in a checkpoint, with a
    hash of the frozen encoders that they were trained on.

    Args:
        clip: encodes texts, and pictures if `tower` is its own; frozen here.
        tower: encodes pictures; frozen.
        embedder: maps tokens to the space of the texts.
        loss: of training.
        logit_scale_init: inverse temperature of the loss at the start, in (0, 100].
        learn_scale: whether it is trained.
        inference: settings of segmentation.
        base: arguments of `SegmentationModel`.

    Raises:
        ValueError: the scale is out of range.
    """

    encoder_digest: Tensor

    @configurable
    def __init__(
        self,
        *,
        clip: MaskPromptedCLIP,
        tower: ImageTower,
        embedder: PatchEmbedder,
        loss: PatchAlignedLoss,
        logit_scale_init: float,
        learn_scale: bool,
        inference: InferenceSettings,
        **base: Any,
    ) -> None:
        super().__init__(**base)
        if not 0 < logit_scale_init <= MAX_SCALE:
            raise ValueError(
                "MODEL.PACL.LOGIT_SCALE_INIT: expected a number above 0 and at most "
                f"{MAX_SCALE:g}, got {logit_scale_init}"
            )
        self.clip = clip.requires_grad_(False)
        self.tower = tower.requires_grad_(False)
        self.embedder = embedder
        self.loss = loss
        self.inference = inference
        scale = torch.tensor(math.log(logit_scale_init))
        self.logit_scale = nn.Parameter(scale, requires_grad=learn_scale)
        digest = bytes.fromhex(state_digest(nn.ModuleDict({"clip": clip, "tower": tower})))
        self.register_buffer(_DIGEST, torch.tensor(list(digest), dtype=torch.uint8))  # (32,)
        self.texts = TextBank(ClipTexts(self.clip))
        self.train(self.training)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads MODEL.PACL and MODEL.CLIP_ADAPTER."""
        pacl, adapter = cfg.MODEL.PACL, cfg.MODEL.CLIP_ADAPTER
        clip = load_clip(adapter.CLIP_MODEL_NAME, find_clip_weights(adapter))
        tower = build_tower(cfg, clip)
        pooling = PatchPooling(
            temperature=pacl.PATCH_TEMP,
            normalized=pacl.POOL_NORMALIZED,
            renormalize=pacl.RENORM,
            chunk=pacl.TEXT_CHUNK,
        )
        hidden = pacl.HIDDEN_DIM if pacl.HIDDEN_DIM > 0 else None
        return super().from_config(cfg) | {
            "pixel_mean": tower.pixel_mean,
            "pixel_std": tower.pixel_std,
            "clip": clip,
            "tower": tower,
            "embedder": PatchEmbedder(
                tower.width, clip.embed_dim, hidden_dim=hidden, activation=pacl.ACT
            ),
            "loss": PatchAlignedLoss(pooling, pairwise=pacl.PAIRWISE, same_noun=pacl.SAME_NOUN),
            "logit_scale_init": pacl.LOGIT_SCALE_INIT,
            "learn_scale": pacl.LEARN_SCALE,
            "inference": InferenceSettings.from_config(cfg),
        }

    def train(self, mode: bool = True) -> PACL:
        """Sets the mode of what is trained; the encoders stay in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Returns what is trained, and the hash of the encoders; see `nn.Module.state_dict`."""
        state = super().state_dict(*args, **kwargs)
        frozen = tuple(kwargs.get("prefix", "") + name for name in _FROZEN)
        for name in [name for name in state if name.startswith(frozen)]:
            del state[name]
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Loads what `state_dict` returns; see `nn.Module.load_state_dict`.

        Raises:
            WeightsError: it was trained on other encoders.
        """
        digest = state_dict.get(_DIGEST)
        if digest is not None and not torch.equal(digest.cpu(), self.encoder_digest.cpu()):
            raise WeightsError(
                "expected an embedder that was trained on the encoders of this config (sha256 "
                f"{_hexadecimal(self.encoder_digest)}...), got one that was trained on others "
                f"({_hexadecimal(digest)}...); set MODEL.CLIP_ADAPTER.CLIP_WEIGHTS (and "
                "MODEL.PACL.DINO_WEIGHTS) to those, or train the embedder anew"
            )
        own = {n: t for n, t in super().state_dict().items() if n.startswith(_FROZEN)}
        return super().load_state_dict({**own, **state_dict}, *args, **kwargs)

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the choices of inference; see `Segmentor.protocol`."""
        return super().protocol() | self.inference.protocol()

    def text_banks(self) -> Sequence[TextBank]:
        """Lists what it keeps features of texts in; see `SegmentationModel.text_banks`."""
        return (self.texts,)

    @property
    def scale(self) -> Tensor:
        """The trained inverse temperature, at most 100; a scalar, without a gradient."""
        return self.logit_scale.detach().exp().clamp(max=MAX_SCALE)

    def embed(self, images: Tensor, *, stride: int | None = None) -> Tensor:
        """Embeds the patches of pictures.

        Args:
            images: (B, 3, H, W), normalised.
            stride: see `ImageTower`.

        Returns:
            (B, D, h, w), of any length.
        """
        tokens = self.tower(images, stride=stride)  # (B, C, h, w)
        return self.embedder(tokens.movedim(1, -1)).movedim(-1, 1)

    def losses(self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None) -> dict:
        """Computes the contrastive loss; see `Segmentor.losses`.

        Args:
            batched_inputs: with texts, text_nouns and mentioned, see `projects/pacl/data.py`.
            vocabulary: not asked.

        Returns:
            {"loss_contrastive": a scalar}.
        """
        with torch.no_grad():  # where a step has led above, the next one starts at the limit
            self.logit_scale.clamp_(max=math.log(MAX_SCALE))
        images = self.prepare(batched_inputs).padded.tensor  # (B, 3, S, S)
        patches = self.embed(images).flatten(2).transpose(1, 2)  # (B, N, D)
        texts = self._encode_texts([x["texts"] for x in batched_inputs])  # (B, T, D)
        keys = self._keys(batched_inputs)
        return {"loss_contrastive": self.loss(patches, texts, self.logit_scale.exp(), keys)}

    @torch.no_grad()
    def _encode_texts(self, texts: Sequence[Sequence[str]]) -> Tensor:
        flat = [text for group in texts for text in group]
        rows = F.normalize(encode_texts(self.clip, flat).float(), dim=-1)  # (B * T, D)
        return rows.unflatten(0, (len(texts), -1))

    def _keys(self, batched_inputs: Inputs) -> PairKeys:
        return PairKeys.make(
            images=[text_number(f"{x['image_root']}/{x['file_name']}") for x in batched_inputs],
            nouns=[[text_number(n) if n else 0 for n in x["text_nouns"]] for x in batched_inputs],
            mentioned=[[text_number(n) for n in x["mentioned"]] for x in batched_inputs],
            device=self.device,
        )

    def encode(self, batched_inputs: Inputs) -> Iterator[PACLEncoding]:
        """Embeds the patches of each image by itself; see `Segmentor.encode`."""
        batch = self.prepare(batched_inputs)
        for image, output_size in zip(batch.images, batch.output_sizes, strict=True):
            normalised = (image - self.pixel_mean) / self.pixel_std
            pixels, grid = self.inference.frame(normalised, self.tower.patch_size)
            patches = self.embed(pixels[None], stride=self.inference.stride)[0]  # (D, h, w)
            yield PACLEncoding(F.normalize(patches.float(), dim=0), grid, output_size)

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
        """Compares the patches with the words; see `Segmentor.decode`."""
        assert isinstance(encoding, PACLEncoding)
        text = self.texts.features(vocabulary)  # (K, D)
        cosines = torch.einsum("kd,dhw->khw", text, encoding.patches)
        return score_pixels(
            encoding.grid.place(cosines),
            encoding.output_size,
            settings=self.inference,
            scale=self.inference.logit_scale or self.scale.item(),
            background=vocabulary.background,
        )

    @torch.no_grad()
    def image_scores(self, batched_inputs: Inputs, vocabulary: Vocabulary) -> Tensor:
        """Says how well whole pictures fit the classes (section 4, image classification).

        Args:
            batched_inputs: see `forward`.
            vocabulary: K classes.

        Returns:
            (B, K) compatibilities, each picture pooled anew for every class, at the encoder's own
            stride; their softmax at `scale` are probabilities.
        """
        text = self.texts.features(vocabulary)  # (K, D)
        scores = []
        for image in self.prepare(batched_inputs).images:
            normalised = (image - self.pixel_mean) / self.pixel_std
            pixels, _ = self.inference.frame(normalised, self.tower.patch_size)
            patches = self.embed(pixels[None]).flatten(2).transpose(1, 2)  # (1, N, D)
            scores.append(self.loss.pooling.pairwise(patches, text))  # (1, K)
        return torch.cat(scores)


def build_tower(cfg: CfgNode, clip: MaskPromptedCLIP) -> ImageTower:
    """Builds the image encoder that MODEL.PACL names.

    Args:
        cfg: full configuration.
        clip: whose image tower it is, unless another is asked for.

    Returns:
        The encoder, with its weights.

    Raises:
        ValueError: no such encoder.
    """
    pacl = cfg.MODEL.PACL
    if pacl.IMAGE_ENCODER == "clip":
        return CLIPTower(clip)
    if pacl.IMAGE_ENCODER == "dino":
        return TimmTower(pacl.DINO_MODEL, pacl.DINO_WEIGHTS)
    raise ValueError(
        f"MODEL.PACL.IMAGE_ENCODER: expected one of {ENCODERS}, got {pacl.IMAGE_ENCODER!r}"
    )


def _hexadecimal(digest: Tensor) -> str:
    return bytes(digest.cpu().tolist()).hex()[:12]
