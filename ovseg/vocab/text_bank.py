"""Class names to rows of unit length, each encoded once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from ovseg.vocab.text_store import TextStore
from ovseg.vocab.vocabulary import Vocabulary

# Prompts and templates: the whole content that a row stands for.
_Key = tuple[tuple[str, ...], tuple[str, ...]]


@runtime_checkable
class IdentifiedEncoder(Protocol):
    """An encoder that can say which one it is."""

    def __call__(self, texts: list[str]) -> Tensor:
        """Map N strings to features (N, D)."""

    @property
    def device(self) -> torch.device:
        """Where the features are made."""

    def identity(self) -> str:
        """Return what equal features follow from; "" if texts are not worth keeping."""


class TextBank:
    """Turns vocabularies into text features and remembers every row it has made.

    A row is remembered by its content (its strings and the templates), so two vocabularies share
    the classes that they have in common and the same name with other templates is another entry.
    The owner of the encoder calls `clear` when the weights or the device change.

    Args:
        encode: maps a list of N strings to features (N, D) of any length and dtype.
        max_rows: the number of rows kept; the oldest are dropped first.
        average: "unit" averages features of unit length, as CLIP and OVSeg do; "raw" averages them
            as they come from the encoder, as SegCLIP does.

    Raises:
        ValueError: `average` is neither.
    """

    def __init__(
        self,
        encode: Callable[[list[str]], Tensor],
        *,
        max_rows: int = 20_000,
        average: str = "unit",
    ) -> None:
        if average not in ("unit", "raw"):
            raise ValueError(f"average: expected 'unit' or 'raw', got {average!r}")
        self._encode = encode
        self._average = average
        self._max_rows = max_rows
        self._rows: dict[_Key, Tensor] = {}
        self._store: TextStore | None = None
        self._identity: str | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def clear(self) -> None:
        """Forget all features, and which encoder made them."""
        self._rows.clear()
        self._identity = None

    def keep_in(self, store: TextStore | None) -> None:
        """Look on disk for rows that are not known, and keep there those that are made.

        A row on disk was made in another company than it would be here, which can move its last
        digit (1e-7): an evaluation, whose numbers are to be repeated bit for bit, has no store.

        Args:
            store: of any content; without effect for an encoder that has no identity. None: keep
                nothing on disk from now on.
        """
        self._store = store

    def remember(self, vocabulary: Vocabulary, rows: Tensor) -> None:
        """Take the features of a vocabulary over from elsewhere.

        Args:
            vocabulary: K classes.
            rows: (K, D), what `features` returned for them.
        """
        keys = [(prompts, vocabulary.templates) for prompts in vocabulary.prompts]
        self._rows.update(zip(keys, rows, strict=True))
        self._drop_oldest()

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
        return self._lookup([(prompts, vocabulary.templates) for prompts in vocabulary.prompts])

    @torch.no_grad()
    def prompt_features(self, vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
        """Encode every prompt of a vocabulary by itself, for methods that take the best of a class.

        A class of one prompt has the same row here as in `features`.

        Args:
            vocabulary: K classes with P >= K prompts together.

        Returns:
            Features, (P, D) float32, rows of unit length, on the encoder's device: the normalised
            mean over the templates, the prompts of class 0 first, each class's in its order. And
            (P,) int64, on the same device: the class of each row, in 0..K - 1, ascending.
        """
        pairs = [(index, text) for index, group in enumerate(vocabulary.prompts) for text in group]
        features = self._lookup([((text,), vocabulary.templates) for _, text in pairs])  # (P, D)
        return features, torch.tensor([index for index, _ in pairs], device=features.device)

    def _lookup(self, keys: Sequence[_Key]) -> Tensor:
        # Rows that this call needs are held here: other threads may drop them meanwhile.
        rows = {key: self._rows.get(key) for key in keys}
        missing = [key for key, row in rows.items() if row is None]
        if missing:
            made = self._read_or_encode(missing)
            rows.update(made)
            self._rows.update(made)
            self._drop_oldest()
        return torch.stack([row for key in keys if (row := rows[key]) is not None])  # (N, D)

    def _drop_oldest(self) -> None:
        for key in list(self._rows)[: max(0, len(self._rows) - self._max_rows)]:
            self._rows.pop(key, None)

    def _read_or_encode(self, keys: Sequence[_Key]) -> dict[_Key, Tensor]:
        encoder = self._identified_encoder()
        if self._store is None or encoder is None:
            return dict(zip(keys, self._encode_rows(keys), strict=True))
        names = {key: self._name(key) for key in keys}
        found = self._store.read(list(names.values()))
        rows = {
            key: torch.from_numpy(found[name]).to(encoder.device)
            for key, name in names.items()
            if name in found
        }
        missing = [key for key in keys if key not in rows]
        if missing:
            made = dict(zip(missing, self._encode_rows(missing), strict=True))
            self._store.write({names[key]: row.cpu().numpy() for key, row in made.items()})
            rows.update(made)
        return rows

    def _identified_encoder(self) -> IdentifiedEncoder | None:
        """The encoder where its rows may be kept on disk; it is asked once which one it is."""
        if self._store is None or not isinstance(self._encode, IdentifiedEncoder):
            return None
        if self._identity is None:
            self._identity = self._encode.identity()
        return self._encode if self._identity else None

    def _name(self, key: _Key) -> bytes:
        """What a row goes by on disk: the digest of all that it follows from."""
        return hashlib.sha256(json.dumps([self._identity, self._average, *key]).encode()).digest()

    def _encode_rows(self, keys: Sequence[_Key]) -> list[Tensor]:
        texts = [
            [template.replace("{}", prompt) for template in templates for prompt in prompts]
            for prompts, templates in keys
        ]
        encoded = self._encode([text for group in texts for text in group]).float()  # (N, D)
        if self._average == "unit":
            encoded = F.normalize(encoded, dim=-1)
        groups = encoded.split([len(group) for group in texts])
        return [F.normalize(group.mean(dim=0), dim=-1) for group in groups]
