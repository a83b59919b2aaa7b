"""The texts of one CLIP, and which CLIP that is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from open_clip import CLIP
from torch import Tensor

from ovseg.clip.encoders import encode_texts

__all__ = ["ClipTexts"]

# To be raised whenever equal weights come to give other features.
_FORMAT = 1
_LEAST_WEIGHTS = 10_000_000


class ClipTexts:
    """Encodes texts by a CLIP, in the precision of its weights also where autocast is on.

    Args:
        clip: any CLIP with a causal text tower that pools at the end of text.
    """

    def __init__(self, clip: CLIP) -> None:
        self.clip = clip

    @property
    def device(self) -> torch.device:
        """Where the CLIP is."""
        return self.clip.positional_embedding.device

    def __call__(self, texts: list[str]) -> Tensor:
        """Encode N texts: (N, D), not normalised."""
        with torch.autocast(self.device.type, enabled=False):
            return encode_texts(self.clip, texts)

    def identity(self) -> str:
        """Name what equal features follow from: the text tower, torch, the device.

        Hashing the tower of a ViT-L/14 takes 0.2 s on two cores.

        Returns:
            A digest; "" for a small tower (of less than 10 million weights without its table of
            tokens), which encodes a text as fast as it is looked up.
        """
        weights = dict(self._weights())
        if sum(weight.numel() for weight in weights.values()) < _LEAST_WEIGHTS:
            return ""
        tower = self.clip.transformer
        heads = [block.attn.num_heads for block in tower.resblocks]
        facts = [str(_FORMAT), torch.__version__, self.device.type, repr(tower), str(heads)]
        with ThreadPoolExecutor() as pool:
            digests = pool.map(_digest, self.clip.token_embedding.named_parameters())
            joined = "\n".join([*facts, *digests, *pool.map(_digest, weights.items())])
        return hashlib.sha256(joined.encode()).hexdigest()

    def _weights(self) -> Iterator[tuple[str, Tensor]]:
        """Those of the text tower, but for its table of tokens."""
        skipped = ("visual.", "token_embedding.", "logit_scale")
        for name, weight in self.clip.named_parameters():
            if not name.startswith(skipped):
                yield name, weight


def _digest(item: tuple[str, Tensor]) -> str:
    name, weight = item
    values = weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{name} {tuple(weight.shape)} {weight.dtype} {hashlib.sha256(values.data).hexdigest()}"
