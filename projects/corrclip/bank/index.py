"""Nearest neighbours among unit vectors: exact in numpy, or approximate with FAISS."""

from __future__ import annotations

import logging
import math
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ovseg.utils.files import atomic_path

__all__ = ["INDEX_KINDS", "ExactIndex", "FaissIndex", "VectorIndex", "index_kind", "unit_rows"]

logger = logging.getLogger(__name__)

INDEX_KINDS = ("auto", "exact", "faiss")
# Below it a search through all vectors takes milliseconds, and clusters cannot be trained well.
FLAT_LIMIT = 10_000
_CODE_BYTES = 32
_CHUNK = 65_536


class VectorIndex(Protocol):
    """Finds the vectors of a bank that are most similar to others."""

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Find neighbours.

        Args:
            queries: (R, C) float32 unit rows.
            k: how many for each, at least 1.

        Returns:
            (R, k) int64, row numbers of the bank with the most similar first; -1 where there are
            no more.
        """
        ...


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Scale rows (N, C) to unit length, as float32; rows of zeros stay zeros."""
    rows = np.asarray(rows, dtype=np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.maximum(lengths, np.finfo(np.float32).tiny)


def index_kind(kind: str, count: int) -> str:
    """Choose how a bank is searched.

    Args:
        kind: "exact" or "faiss"; "auto" for exact below 10,000 regions and otherwise FAISS where
            it is installed.
        count: regions of the bank.

    Returns:
        "exact" or "faiss".

    Raises:
        ValueError: another kind.
        ImportError: FAISS was asked for and is not installed.
    """
    if kind not in INDEX_KINDS:
        raise ValueError(f"MODEL.CORRCLIP.BANK.INDEX: expected one of {INDEX_KINDS}, got {kind!r}")
    if kind == "faiss":
        _faiss()
    if kind != "auto":
        return kind
    if count < FLAT_LIMIT:
        return "exact"
    try:
        _faiss()
    except ImportError:
        logger.warning(
            "the bank has %d regions and is searched exactly, which is slow; "
            "pip install 'ovseg[faiss]' for an index",
            count,
        )
        return "exact"
    return "faiss"


class ExactIndex:
    """Compares with every vector; of equally similar ones the first counts.

    Args:
        keys: (N, C), any float type, not normalised; may be a memory map, which is read in pieces.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self.keys = keys

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Find neighbours; see `VectorIndex`."""
        _check_queries(queries, k, self.keys.shape[1])
        rows = len(queries)
        best = np.full((rows, 0), -np.inf, dtype=np.float32)
        ids = np.zeros((rows, 0), dtype=np.int64)
        for start in range(0, len(self.keys), _CHUNK):
            chunk = unit_rows(self.keys[start : start + _CHUNK])
            scores = np.concatenate([best, queries @ chunk.T], axis=1)  # (R, k + n)
            numbers = np.arange(start, start + len(chunk))
            numbers = np.concatenate([ids, np.broadcast_to(numbers, (rows, len(chunk)))], axis=1)
            places = _top(scores, k)
            best = np.take_along_axis(scores, places, axis=1)
            ids = np.take_along_axis(numbers, places, axis=1)
        missing = k - ids.shape[1]
        return np.pad(ids, ((0, 0), (0, missing)), constant_values=-1)


class FaissIndex:
    """An index of FAISS: inverted lists with product quantisation, or all vectors if they are few.

    The quantiser and the lists compare by inner product, as the vectors have unit length.

    Args:
        index: FAISS's own; its ids are the row numbers of the bank.
    """

    def __init__(self, index: Any) -> None:
        self.index = index

    @classmethod
    def build(cls, keys: np.ndarray) -> FaissIndex:
        """Make an index.

        Args:
            keys: (N, C), any float type, not normalised.

        Returns:
            The index.

        Raises:
            ImportError: FAISS is not installed.
        """
        faiss = _faiss()
        count, channels = keys.shape
        if count < FLAT_LIMIT:
            inner = faiss.IndexFlatIP(channels)
        else:
            lists = max(1, int(8 * math.sqrt(count)))
            coarse = faiss.IndexFlatIP(channels)
            pieces = max(m for m in range(1, _CODE_BYTES + 1) if channels % m == 0)
            inner = faiss.IndexIVFPQ(coarse, channels, lists, pieces, 8, faiss.METRIC_INNER_PRODUCT)
            inner.train(unit_rows(keys))
            inner.nprobe = min(256, lists)
        made = cls(faiss.IndexIDMap2(inner))
        made.add(keys)
        return made

    @classmethod
    def read(cls, path: Path) -> FaissIndex:
        """Read what `write` wrote."""
        return cls(_faiss().read_index(str(path)))

    def write(self, path: Path) -> None:
        """Write the index; the file appears complete or not at all."""
        with atomic_path(path) as temporary:
            _faiss().write_index(self.index, str(temporary))

    def add(self, keys: np.ndarray) -> None:
        """Add those keys (N, C) that lie behind the ones that it has."""
        for start in range(self.index.ntotal, len(keys), _CHUNK):
            chunk = unit_rows(keys[start : start + _CHUNK])
            self.index.add_with_ids(chunk, np.arange(start, start + len(chunk), dtype=np.int64))

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Find neighbours; see `VectorIndex`."""
        _check_queries(queries, k, self.index.d)
        return self.index.search(np.ascontiguousarray(queries), k)[1].astype(np.int64)


def _top(scores: np.ndarray, k: int) -> np.ndarray:
    """Places (R, min(k, N)) of the highest scores (R, N), of equal ones the first."""
    k = min(k, scores.shape[1])
    if k == scores.shape[1]:
        return np.argsort(-scores, axis=1, kind="stable")
    lowest = -np.partition(-scores, k - 1, axis=1)[:, k - 1]  # (R,) of those that count
    places = np.empty((len(scores), k), dtype=np.int64)
    for row, (line, limit) in enumerate(zip(scores, lowest, strict=True)):
        candidates = np.flatnonzero(line >= limit)
        places[row] = candidates[np.argsort(-line[candidates], kind="stable")[:k]]
    return places


def _check_queries(queries: np.ndarray, k: int, channels: int) -> None:
    if queries.ndim != 2 or queries.shape[1] != channels or queries.dtype != np.float32:
        raise ValueError(
            f"expected queries (R, {channels}) float32, as the bank's keys, got {queries.dtype} of "
            f"{queries.shape}; the bank may be made with another vision model"
        )
    if k < 1:
        raise ValueError(f"MODEL.CORRCLIP.BANK.K: expected at least 1, got {k}")


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "searching a memory bank with FAISS needs faiss, which is not installed: "
            "pip install 'ovseg[faiss]', or set MODEL.CORRCLIP.BANK.INDEX to exact"
        ) from error
    return faiss
