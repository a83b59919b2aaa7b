"""What a sweep over settings needs of each picture, computed once and kept on disk.

Three kinds of files, each made where it is missing:

- `<picture>.safetensors`: the head's embeddings and mask logits. They depend on neither vocabulary
  nor threshold, so the mask classifier's scores follow by one product with text features.
- `<picture>.thr-0.4.safetensors`: CLIP's features of the regions that this mask threshold cuts
  out. CLIP's scores follow from them in the same way.
- `text-<vocabulary>.safetensors`: text features.

A picture goes by the hash of its file, the folder by the hash of everything else that the numbers
depend on: weights, settings, versions. So nothing stale is ever read, and sets that share pictures
share files. Logits are kept at the head's resolution in single precision: masks made from them are
bit for bit those of a full evaluation, in a sixteenth of the room.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import ovseg
from ovseg.d2.config import CfgNode
from ovseg.data.mappers import TestMapper
from ovseg.evaluation.manifest import decisive_settings
from ovseg.modeling.mask_former import masks_from_logits
from ovseg.modeling.ovseg import OVSeg
from ovseg.utils.environment import environment_record
from ovseg.utils.files import atomic_path, sha256_of
from ovseg.vocab import Vocabulary
from ovseg.weights.load import WeightsError, read_state_dict, write_safetensors

__all__ = ["CachedPicture", "ScoreCache", "state_digest"]

logger = logging.getLogger(__name__)

# To be raised whenever the content of the files changes its meaning.
_FORMAT = 1
_DIGITS = 24
# What is swept, and what changes no number.
_NOT_IN_KEY = frozenset(
    f"MODEL.CLIP_ADAPTER.{name}"
    for name in (
        *("CLIP_ENSEMBLE", "CLIP_ENSEMBLE_WEIGHT", "MASK_THR", "TEXT_TEMPLATES"),
        *("PREDEFINED_PROMPT_TEMPLATES", "SYNONYMS", "CHUNK_SIZE"),
    )
) | {"MODEL.DEVICE"}


def state_digest(module: nn.Module) -> str:
    """Hash the weights that a module runs with, wherever they came from.

    Args:
        module: any module.

    Returns:
        sha256 of names, shapes, types and values, hexadecimal.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)  # (N,)
        digest.update(values.view(torch.uint8).numpy().data if values.numel() else b"")
    return digest.hexdigest()


class ScoreCache:
    """Keeps the costly parts of OVSeg's inference.

    Args:
        folder: folder of all caches; each key gets one of its own in it.
        model: in eval mode.
        mapper: turns a record into a model's input.
        key: all that the numbers depend on besides picture, threshold and vocabulary, as JSON.
    """

    def __init__(
        self, folder: str | Path, *, model: OVSeg, mapper: TestMapper, key: Mapping[str, Any]
    ) -> None:
        text = json.dumps(key, indent=1, sort_keys=True)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
        self.model = model
        self.mapper = mapper
        self.computed = self.read = 0
        self.seconds = 0.0
        if not (self.folder / "key.json").is_file():
            with atomic_path(self.folder / "key.json") as partial:
                partial.write_text(text + "\n", encoding="utf-8")

    @classmethod
    def from_config(cls, cfg: CfgNode, model: OVSeg, folder: str | Path) -> ScoreCache:
        """Key a cache by a config and the weights that the model holds now."""
        settings = {
            name: value
            for name, value in decisive_settings(cfg).items()
            if name.startswith(("MODEL.", "INPUT.")) and name not in _NOT_IN_KEY
        }
        key = {
            "format": _FORMAT,
            "ovseg": ovseg.__version__,
            "packages": environment_record()["packages"],
            "device": model.device.type,
            "weights": state_digest(model),
            "settings": settings,
        }
        return cls(folder, model=model, mapper=TestMapper(cfg), key=key)

    def picture(self, record: Mapping[str, Any]) -> CachedPicture:
        """Open a picture.

        Args:
            record: of a data set, with `file_name`.

        Returns:
            What is known of it, read or computed when it is asked for.
        """
        return CachedPicture(self, record)

    def text_features(self, vocabulary: Vocabulary) -> Tensor:
        """Unit rows of a vocabulary and of "no object", (K + 1, D); see `RegionClassifier`."""
        return self._load_or_make(
            f"text-{vocabulary.key[:_DIGITS]}",
            lambda: {"text": self.model.clip_adapter.text_features(vocabulary)},
        )["text"]

    @torch.no_grad()
    def _load_or_make(self, name: str, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        path = self.folder / f"{name}.safetensors"
        if path.is_file():
            try:
                found = read_state_dict(path)
            except WeightsError as error:
                logger.warning("%s; it is made anew", error)
            else:
                self.read += 1
                return {key: value.to(self.model.device) for key, value in found.items()}
        began = time.perf_counter()
        made = make()
        write_safetensors(path, made)
        self.seconds += time.perf_counter() - began
        self.computed += 1
        return made


@dataclass
class CachedPicture:
    """What the two stages found in one picture, but for the vocabulary.

    Args:
        cache: where it is kept.
        record: of the data set.
    """

    cache: ScoreCache
    record: Mapping[str, Any]

    def load(self) -> None:
        """Read or compute the first stage now.

        Raises:
            ImageError: the picture is unreadable.
        """
        _ = self._first_stage

    @cached_property
    def embeddings(self) -> Tensor:
        """The head's class embeddings, (Q, D), of any length."""
        return self._first_stage["embeddings"]

    @cached_property
    def masks(self) -> Tensor:
        """Masks at the network's input size, (Q, h, w) float32 in [0, 1]."""
        _, size, padded = self._first_stage["sizes"].tolist()
        return masks_from_logits(
            self._first_stage["mask_logits"], padded_size=tuple(padded), size=tuple(size)
        )

    @property
    def output_size(self) -> tuple[int, int]:
        """(H, W) of the picture."""
        height, width = self._first_stage["sizes"][0].tolist()
        return height, width

    def regions(self, threshold: float) -> tuple[Tensor, Tensor]:
        """CLIP's view of the masks.

        Args:
            threshold: a pixel belongs to a region above this mask value.

        Returns:
            (V, D) features of the masks that are not empty, and valid (Q,) bool.
        """
        found = self.cache._load_or_make(
            f"{self._name}.thr-{threshold:g}", lambda: self._encode(threshold)
        )
        return found["features"], found["valid"]

    @cached_property
    def _name(self) -> str:
        return sha256_of(self.record["file_name"])[:_DIGITS]

    @cached_property
    def _first_stage(self) -> dict[str, Tensor]:
        return self.cache._load_or_make(self._name, self._propose)

    @cached_property
    def _inputs(self) -> dict[str, Any]:
        return self.cache.mapper(self.record)

    def _propose(self) -> dict[str, Tensor]:
        model = self.cache.model
        batch = model.prepare([self._inputs])
        padded = batch.padded.tensor  # (1, 3, h', w')
        outputs = model.sem_seg_head(model.backbone(padded))
        sizes = [batch.output_sizes[0], batch.images[0].shape[1:], padded.shape[-2:]]
        return {
            "embeddings": outputs["pred_logits"][0].float(),
            "mask_logits": outputs["pred_masks"][0].float(),
            "sizes": torch.tensor([list(size) for size in sizes]),
        }

    def _encode(self, threshold: float) -> dict[str, Tensor]:
        adapter = self.cache.model.clip_adapter
        image = self._inputs["image"].to(self.masks.device, torch.float32)
        previous, adapter.mask_threshold = adapter.mask_threshold, threshold
        try:
            features, valid = adapter(image, self.masks)
        finally:
            adapter.mask_threshold = previous
        return {"features": features, "valid": valid}
