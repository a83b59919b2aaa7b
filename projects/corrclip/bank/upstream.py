"""Banks in the form in which CorrCLIP's authors publish theirs, turned into ours.

Theirs is a folder with `manifests/NAME.images.tsv`, `manifests/NAME.manifest.txt`,
`clip_embeddings/NAME_ENCODER.pt` and `vfm_embeddings/NAME_MODEL.pt`, the last two (N, D) in half
precision, row by row a region. The tensors are read without running anything from their files.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch

from ovseg.projects.corrclip.bank.index import unit_rows
from ovseg.projects.corrclip.bank.storage import (
    HEADER,
    IMAGES,
    KEYS,
    MANIFEST,
    REGIONS,
    SUCCESS,
    VALUES,
    BankError,
    file_name,
    read_images,
)
from ovseg.readers.torch_files import read_torch_archive
from ovseg.readers.weight_files import UNREADABLE
from ovseg.utils.files import atomic_path, sha256_of, write_json

__all__ = ["import_bank"]


def import_bank(folder: str | Path, name: str, features: str, bank: str | Path) -> list[str]:
    """Turn a published bank into one of ours; the result can be searched, but not grow.

    Args:
        folder: with `manifests/`, `clip_embeddings/` and `vfm_embeddings/`.
        name: of the bank, as its files begin.
        features: the vision model whose vectors become the keys, as its file ends.
        bank: the new folder.

    Returns:
        The encoders, as their files end.

    Raises:
        BankError: a file is missing or damaged, or they do not fit each other; or there is
            something in the new folder.
    """
    folder, bank = Path(folder), Path(bank)
    if (bank / MANIFEST).exists():
        raise BankError(f"{bank}: expected a new folder, got one that holds a bank")
    tensors = sorted((folder / "clip_embeddings").glob(f"{name}_*.pt"))
    if not tensors:
        raise BankError(f"{folder}: expected clip_embeddings/{name}_ENCODER.pt, found none")
    listed = folder / "manifests" / f"{name}.images.tsv"
    if not listed.is_file():
        raise BankError(f"{folder}: expected manifests/{listed.name}, found none")
    images = list(read_images(listed))
    count = sum(n for _, _, n in images)
    encoders = [path.stem.removeprefix(f"{name}_") for path in tensors]
    digest = hashlib.sha256()
    keys = folder / "vfm_embeddings" / f"{name}_{features}.pt"
    for path, target in (
        (keys, bank / KEYS / f"{file_name(features)}.npy"),
        *(
            (path, bank / VALUES / f"{file_name(encoder)}.npy")
            for path, encoder in zip(tensors, encoders, strict=True)
        ),
    ):
        rows = _rows(path, count)
        if path != keys:
            rows = unit_rows(rows).astype(np.float16)
        with atomic_path(target) as temporary, temporary.open("wb") as file:
            np.save(file, rows)
        digest.update(sha256_of(target).encode())
    _write_lists(bank, images, folder / "manifests" / f"{name}.manifest.txt")
    made_with = {"format": 1, "features": features, "encoders": encoders, "imported": name}
    write_json(bank / MANIFEST, made_with, sort_keys=True)
    done = {"images": len(images), "regions": count, "sha256_of_parts": digest.hexdigest()}
    write_json(bank / SUCCESS, done, sort_keys=True)
    return encoders


def _rows(path: Path, count: int) -> np.ndarray:
    """Read a tensor (N, D) of half precision."""
    if not path.is_file():
        raise BankError(f"{path.parent.parent}: expected {path.parent.name}/{path.name}, not found")
    try:
        rows = read_torch_archive(path, mapped=True)
    except (OSError, *UNREADABLE) as error:
        raise BankError(f"{path}: expected a tensor that can be read safely: {error}") from error
    if not isinstance(rows, torch.Tensor) or rows.ndim != 2 or len(rows) != count:
        shape = tuple(rows.shape) if isinstance(rows, torch.Tensor) else type(rows).__name__
        raise BankError(f"{path}: expected {count} rows, as the list of pictures says, got {shape}")
    return rows.to(torch.float16).numpy()


def _write_lists(bank: Path, images: list[tuple[str, int, int]], manifest: Path) -> None:
    with atomic_path(bank / IMAGES) as temporary:
        lines = [HEADER, *("\t".join(map(str, image)) for image in images)]
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    if manifest.is_file():
        with atomic_path(bank / REGIONS) as temporary:
            temporary.write_bytes(manifest.read_bytes())
