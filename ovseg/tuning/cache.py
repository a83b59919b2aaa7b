"""What a sweep over settings needs of each picture, computed once and kept on disk.

Three kinds of files, each made where it is missing:

- `<picture>.safetensors`: the picture's encoding. It depends on neither vocabulary nor threshold.
- `<picture>.thr-0.4.safetensors`: CLIP's features of the regions that this mask threshold cuts
  out; they complete the encoding for every decoding at the threshold.
- `text-<vocabulary>.safetensors`: text features.

A picture goes by the hash of its file, the folder by the hash of everything else that the numbers
depend on: weights, settings, versions. So nothing stale is ever read, and sets that share pictures
share files. Mask logits are kept at the head's resolution in single precision: masks made from them
are bit for bit those of a full evaluation, in a sixteenth of the room.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ovseg
from ovseg.d2.config import CfgNode
from ovseg.data.mappers import TestMapper
from ovseg.evaluation.manifest import decisive_settings
from ovseg.modeling import MaskEncoding, RegionFeatures
from ovseg.modeling.ovseg import OVSeg
from ovseg.utils.environment import environment_record
from ovseg.utils.files import sha256_of, write_json
from ovseg.vocab import Vocabulary
from ovseg.weights.load import WeightsError, read_state_dict, write_safetensors
from ovseg.weights.record import state_digest

__all__ = ["EncodingCache"]

logger = logging.getLogger(__name__)

# To be raised whenever the content of the files changes its meaning.
_FORMAT = 2
_DIGITS = 24
# What is swept, and what changes no number.
_NOT_IN_KEY = frozenset(
    f"MODEL.CLIP_ADAPTER.{name}"
    for name in (
        *("CLIP_ENSEMBLE", "CLIP_ENSEMBLE_WEIGHT", "CLIP_ENSEMBLE_WEIGHT_UNSEEN", "MASK_THR"),
        *("TRAINED_NAMES", "TRAINED_CLASSES", "TEXT_TEMPLATES", "PREDEFINED_PROMPT_TEMPLATES"),
        *("SYNONYMS", "CHUNK_SIZE"),
    )
) | {"MODEL.DEVICE"}


class EncodingCache:
    """Keeps the encodings of pictures, and text features, of one OVSeg.

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
            write_json(self.folder / "key.json", key, sort_keys=True)

    @classmethod
    def from_config(cls, cfg: CfgNode, model: OVSeg, folder: str | Path) -> EncodingCache:
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

    def encoding(self, record: Mapping[str, Any], thresholds: Sequence[float]) -> MaskEncoding:
        """Encode a picture, or read what is known of it.

        Args:
            record: of a dataset, with `file_name`.
            thresholds: of the masks, for each of which CLIP's features are wanted.

        Returns:
            The encoding, with the region features of every threshold.

        Raises:
            ImageError: the picture is unreadable.
        """
        name = sha256_of(record["file_name"])[:_DIGITS]
        mapped = functools.cache(lambda: self.mapper(record))
        encoding = MaskEncoding.from_tensors(
            self._load_or_make(name, lambda: next(iter(self.model.encode([mapped()]))).tensors())
        )

        def regions(threshold: float) -> dict[str, Tensor]:
            encoding.image = mapped()["image"].to(self.model.device, torch.float32)
            return self.model.region_features(encoding, threshold).tensors()

        for threshold in thresholds:
            known = self._load_or_make(
                f"{name}.thr-{threshold:g}", functools.partial(regions, threshold)
            )
            encoding.regions[threshold] = RegionFeatures(**known)
        return encoding

    def read_texts(self, vocabulary: Vocabulary) -> None:
        """Give the model the text features of a vocabulary without encoding them once more."""
        bank = self.model.clip_adapter.text_bank
        name = f"text-{vocabulary.key[:_DIGITS]}"
        rows = self._load_or_make(name, lambda: {"text": bank.features(vocabulary)})["text"]
        bank.remember(vocabulary, rows)

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
