"""Superpixels of pictures: made once, kept compactly, cut like the crops of training.

Source: Felzenszwalb and Huttenlocher, "Efficient Graph-Based Image Segmentation", IJCV 2004, by
scikit-image, the extra `superpixels`; their use is that of Luo et al., "SegCLIP", ICML 2023.

A store is a folder of shards, a pair of files each: `00012.bin` holds the maps as PNG files behind
each other, `00012.npz` says where each one lies, and is written last.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ovseg.readers.archives import read_slice
from ovseg.readers.arrays import read_npz
from ovseg.readers.documents import parse_json
from ovseg.readers.pictures import ImageError, decode_label
from ovseg.utils.files import atomic_path, write_json

PATCH_ID_MODES = ("mean_trunc", "mode")
QUARANTINE = "quarantine.json"

# Fractions of a picture's width or height: left, top, right, bottom.
Box = tuple[float, float, float, float]


class Felzenszwalb(NamedTuple):
    """The settings of the superpixels; see `skimage.segmentation.felzenszwalb`."""

    scale: float = 224.0
    sigma: float = 0.9
    min_size: int = 224

    def __call__(self, image: np.ndarray) -> np.ndarray:
        """Segment a picture.

        Args:
            image: (H, W, 3) uint8 RGB.

        Returns:
            (H, W) int64, numbered from 0.

        Raises:
            ImportError: scikit-image is not installed.
        """
        try:
            from skimage.segmentation import felzenszwalb
        except ImportError as error:
            raise ImportError(
                "superpixels are made by scikit-image, which is not installed; run "
                "pip install 'ovseg[superpixels]'"
            ) from error
        found = felzenszwalb(image, scale=self.scale, sigma=self.sigma, min_size=self.min_size)
        return np.asarray(found)


def shrink(image: np.ndarray, short: int) -> np.ndarray:
    """Scale a picture down so that its shorter side has a length.

    Args:
        image: (H, W, 3) uint8 RGB.
        short: length in pixels; 0 changes nothing.

    Returns:
        (h, w, 3) uint8 RGB; the picture itself where a side is not longer than that.
    """
    height, width = image.shape[:2]
    if not short or min(height, width) <= short:
        return image
    factor = short / min(height, width)
    size = (max(round(width * factor), short), max(round(height * factor), short))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def superpixels_of_patches(
    superpixels: np.ndarray,
    box: Box,
    *,
    size: int,
    patch_size: int,
    mode: str = "mean_trunc",
) -> np.ndarray:
    """Superpixel of every patch of a crop.

    Args:
        superpixels: (H, W) integers, of the whole picture, at any resolution.
        box: the crop.
        size: side of the crop in the network's pixels.
        patch_size: of its patches.
        mode: "mean_trunc": the mean of the ids of a patch's pixels, cut to an integer, as the
            released code has it, which gives patches on a border the id of some third superpixel;
            "mode": the most frequent id, the least one of several.

    Returns:
        (size / patch_size, size / patch_size) int64.
    """
    height, width = superpixels.shape
    left, top = math.floor(box[0] * width), math.floor(box[1] * height)
    right, bottom = math.ceil(box[2] * width), math.ceil(box[3] * height)
    part = superpixels[top:bottom, left:right]
    if min(part.shape) < 2:
        part = superpixels
    part = part.astype(np.int32)
    resized = cv2.resize(part, (size, size), interpolation=cv2.INTER_NEAREST)  # (S, S)
    side = size // patch_size
    by_patch = resized.reshape(side, patch_size, side, patch_size).swapaxes(1, 2)
    pixels = by_patch.reshape(side, side, -1)  # (h, w, P)
    if mode == "mean_trunc":
        return pixels.mean(-1).astype(np.int64)
    ids, inverse = np.unique(pixels, return_inverse=True)
    counts = (inverse.reshape(pixels.shape)[..., None] == np.arange(len(ids))).sum(2)  # (h, w, I)
    return ids[counts.argmax(-1)].astype(np.int64)


class SuperpixelStore:
    """Reads the maps that a run of `make_superpixels.py` has left.

    Args:
        folder: of the store.

    Raises:
        FileNotFoundError: there is no store.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        shards = sorted(self.folder.glob("*.npz"))
        if not shards:
            raise FileNotFoundError(
                f"{self.folder}: expected superpixels, found none; make them with "
                "`python -m ovseg.projects.segclip.make_superpixels --config-file CONFIG --output "
                f"{self.folder}`"
            )
        parts = [_read_index(path) for path in shards]
        keys = np.concatenate([part[0] for part in parts])  # (N,) uint64
        order = np.argsort(keys, kind="stable")
        self._keys = keys[order]
        self._ends = np.concatenate([part[1] for part in parts])[order]  # (N, 2) int64
        numbers = np.repeat([int(path.stem) for path in shards], [len(part[0]) for part in parts])
        self._shards = numbers[order].astype(np.int32)

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, image_id: str) -> np.ndarray:
        """The map of a picture, (H, W) uint16.

        Raises:
            ImageError: there is none, or it is damaged.
        """
        key = _key(image_id)
        place = int(np.searchsorted(self._keys, key))
        if place == len(self._keys) or self._keys[place] != key:
            raise ImageError(
                f"image {image_id}: {self.folder} has no superpixels of it (see {QUARANTINE} there)"
            )
        start, end = self._ends[place].tolist()
        try:
            data = read_slice(shard_file(self.folder, int(self._shards[place])), start, end - start)
            return decode_label(data, f"image {image_id}").astype(np.uint16)
        except (OSError, ValueError) as error:
            raise ImageError(
                f"image {image_id}: its superpixels in {self.folder} are damaged: {error}"
            ) from error


def shard_file(folder: Path, number: int) -> Path:
    """The file with the maps of a shard; its index has the same name and ends in .npz."""
    return folder / f"{number:05d}.bin"


def write_shard(
    folder: Path, number: int, maps: Iterable[tuple[str, np.ndarray | str]]
) -> dict[str, int]:
    """Write a shard; its index appears last, so a shard with one is complete.

    Args:
        folder: of the store.
        number: of the shard.
        maps: per picture its name and (H, W) integers below 65536, or the reason why there is no
            map: such a picture is quarantined.

    Returns:
        How many pictures there were and how many are quarantined.
    """
    keys: list[int] = []
    ends: list[tuple[int, int]] = []
    quarantine: dict[str, str] = {}
    target = shard_file(folder, number)
    with atomic_path(target) as partial, partial.open("wb") as file:
        for image_id, found in maps:
            if isinstance(found, str):
                quarantine[image_id] = found
                continue
            done, data = cv2.imencode(".png", found.astype(np.uint16))
            assert done
            start = file.tell()
            file.write(data.tobytes())
            keys.append(_key(image_id))
            ends.append((start, file.tell()))
    with atomic_path(target.with_suffix(".npz")) as partial, partial.open("wb") as file:
        np.savez(
            file,
            keys=np.array(keys, np.uint64),
            ends=np.array(ends, np.int64).reshape(-1, 2),
            quarantine=np.frombuffer(json.dumps(quarantine).encode(), np.uint8),
        )
    return {"pictures": len(keys) + len(quarantine), "quarantined": len(quarantine)}


def write_quarantine(folder: Path) -> dict[str, Any]:
    """Collect the quarantined pictures of all shards into one file; returns them with reasons."""
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*.npz")):
        found |= parse_json(read_npz(path, ["quarantine"])["quarantine"].tobytes(), path)
    write_json(folder / QUARANTINE, found)
    return found


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    index = read_npz(path, ["keys", "ends"])
    return index["keys"], index["ends"]


def _key(image_id: str) -> int:
    digest = hashlib.blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
