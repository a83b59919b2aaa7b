"""Class names to rows of unit length, each class encoded once."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.vocab.vocabulary import Vocabulary

_ClassKey = tuple[tuple[str, ...], tuple[str, ...]]


class TextBank:
    """Turns vocabularies into text features and remembers every class it has seen.

    A class is remembered by its content (its strings and the templates), so two vocabularies share
    the classes that they have in common and the same name with other templates is another entry.
    The owner of the encoder calls `clear` when the weights or the device change.

    Args:
        encode: maps a list of N strings to features (N, D) of any length and dtype.
        max_classes: the number of classes kept; the oldest are dropped first.
    """

    def __init__(self, encode: Callable[[list[str]], Tensor], *, max_classes: int = 20_000) -> None:
        self._encode = encode
        self._max_classes = max_classes
        self._rows: dict[_ClassKey, Tensor] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget all features."""
        self._rows.clear()

    def remember(self, vocabulary: Vocabulary, rows: Tensor) -> None:
        """Take the features of a vocabulary over from elsewhere.

        Args:
            vocabulary: K classes.
            rows: (K, D), what `features` returned for them.
        """
        keys = [(prompts, vocabulary.templates) for prompts in vocabulary.prompts]
        self._rows.update(zip(keys, rows, strict=True))

    @torch.no_grad()
    def features(self, vocabulary: Vocabulary) -> Tensor:
        """Encode the classes of a vocabulary (OVSeg, section 3.3).

        Each template filled with each string of the class is encoded and normalised; their mean,
        normalised again, stands for the class.

        Args:
            vocabulary: K classes.

        Returns:
            (K, D) float32, rows of unit length, on the encoder's device.
        """
        keys = [(prompts, vocabulary.templates) for prompts in vocabulary.prompts]
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        if missing:
            self._rows.update(zip(missing, self._encode_classes(missing), strict=True))
        features = torch.stack([self._rows[key] for key in keys])  # (K, D)
        while len(self._rows) > self._max_classes:
            del self._rows[next(iter(self._rows))]
        return features

    def _encode_classes(self, keys: list[_ClassKey]) -> list[Tensor]:
        texts = [
            [template.replace("{}", prompt) for template in templates for prompt in prompts]
            for prompts, templates in keys
        ]
        encoded = self._encode([text for group in texts for text in group]).float()  # (N, D)
        encoded = F.normalize(encoded, dim=-1)
        groups = encoded.split([len(group) for group in texts])
        return [F.normalize(group.mean(dim=0), dim=-1) for group in groups]
