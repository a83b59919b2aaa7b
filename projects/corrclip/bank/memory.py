"""The memory bank of CorrCLIP's second version: regions by what they look like.

Source: CorrCLIP (arXiv 2411.10086), second version, "VFM-indexed semantic retrieval": a region asks
for the regions of a bank whose vectors of a vision model are most similar to its own, and takes
over what CLIP says of those.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ovseg.d2.config import CfgNode
from ovseg.projects.corrclip.bank.index import (
    ExactIndex,
    FaissIndex,
    VectorIndex,
    index_kind,
)
from ovseg.projects.corrclip.bank.storage import (
    INDEX,
    KEYS,
    MANIFEST,
    SUCCESS,
    VALUES,
    BankError,
    file_name,
    open_rows,
    read_json,
)

__all__ = ["MemoryBank", "build_bank"]


class MemoryBank:
    """Vectors of N regions: keys, by which they are found, and values, one set an encoder.

    Args:
        keys: (N, C), any float type.
        values: by encoder, each (N, D) unit rows.
        features: name of the vision model that made the keys.
        name: which bank it is; part of the protocol of every result.
        index: finds neighbours among the keys; None compares with all.

    Raises:
        BankError: there are no values, or not as many as keys.
    """

    def __init__(
        self,
        keys: np.ndarray,
        values: dict[str, np.ndarray],
        *,
        features: str,
        name: str,
        index: VectorIndex | None = None,
    ) -> None:
        lengths = {encoder: len(rows) for encoder, rows in values.items()}
        if not values or set(lengths.values()) != {len(keys)}:
            raise BankError(f"{name}: expected {len(keys)} values of an encoder, got {lengths}")
        self.keys, self._values = keys, values
        self.features, self.name = features, name
        self.index = ExactIndex(keys) if index is None else index

    @classmethod
    def load(cls, folder: str | Path, *, index: str = "auto") -> MemoryBank:
        """Open a bank; its arrays stay on disk until they are used.

        Args:
            folder: what `tools/build_memory_bank.py` has made.
            index: how it is searched, see `index_kind`.

        Returns:
            The bank.

        Raises:
            BankError: no bank, an unfinished or a damaged one.
            ImportError: FAISS was asked for and is not installed.
        """
        folder = Path(folder).expanduser()
        if not (folder / SUCCESS).is_file():
            known = (folder / MANIFEST).is_file()
            raise BankError(
                f"{folder}: expected a memory bank, got "
                + ("one that is not finished; start the same" if known else "none; start a")
                + " run of tools/build_memory_bank.py"
            )
        done, made_with = read_json(folder / SUCCESS), read_json(folder / MANIFEST)
        count, features = int(done["regions"]), str(made_with["features"])
        keys = open_rows(folder / KEYS / f"{file_name(features)}.npy", count)
        values = {
            encoder: open_rows(folder / VALUES / f"{file_name(encoder)}.npy", count)
            for encoder in made_with["encoders"]
        }
        kind = index_kind(index, count)
        name = f"{folder.resolve().name}@{done['sha256_of_parts'][:8]}/{kind}"
        found = None if kind == "exact" else _faiss_index(folder, features, keys)
        return cls(keys, values, features=features, name=name, index=found)

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the CLIPs whose values it holds."""
        return tuple(self._values)

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        """Find the most similar regions.

        Args:
            queries: (R, C) float32 unit rows.
            k: how many for each.

        Returns:
            (R, k) int64, rows of the bank with the most similar first; -1 where there are no more.

        Raises:
            ValueError: vectors of another length, or a `k` below 1.
        """
        return self.index.search(queries, k)

    def values(self, encoder: str = "") -> np.ndarray:
        """Give what an encoder says of the regions.

        Args:
            encoder: one of `encoders`; "" for the first.

        Returns:
            (N, D) float16 unit rows.

        Raises:
            BankError: the bank has no values of this encoder.
        """
        encoder = encoder or self.encoders[0]
        if encoder not in self._values:
            raise BankError(
                f"{self.name}: expected an encoder out of {self.encoders}, got {encoder!r}; a bank "
                "gets its encoders when it is built"
            )
        return self._values[encoder]


def build_bank(cfg: CfgNode) -> MemoryBank | None:
    """Open the bank that MODEL.CORRCLIP.BANK names.

    Args:
        cfg: full configuration.

    Returns:
        The bank; None where it is switched off.

    Raises:
        BankError: no such bank, an unfinished or a damaged one.
    """
    node = cfg.MODEL.CORRCLIP.BANK
    return MemoryBank.load(node.PATH, index=node.INDEX) if node.ENABLED else None


def _faiss_index(folder: Path, features: str, keys: np.ndarray) -> FaissIndex:
    """Read the index of a bank, with what the bank has grown by; or make it."""
    path = folder / INDEX / f"{file_name(features)}.faiss"
    if not path.is_file():
        return FaissIndex.build(keys)
    index = FaissIndex.read(path)
    if index.index.d != keys.shape[1] or index.index.ntotal > len(keys):
        raise BankError(
            f"{path}: expected an index of at most {len(keys)} vectors of {keys.shape[1]}, got "
            f"{index.index.ntotal} of {index.index.d}; delete it, it is made again"
        )
    index.add(keys)
    return index
