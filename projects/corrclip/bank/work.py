"""What a worker does with a shard of pictures: regions, and their vectors, into files.

Which vectors a picture gives depends on the picture, the settings and the models alone, so that
the files are the same whichever process writes them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from ovseg.data.captions.sources import ImageReader, ImageRow, Shard
from ovseg.projects.corrclip.bank.storage import MANIFEST, BankError, BankRunError, parts_of
from ovseg.projects.corrclip.regions import RegionSource
from ovseg.utils.run_record import RunRecord
from ovseg.weights.load import write_safetensors

__all__ = ["BankJob", "BankParts", "RegionDescriber", "start_worker"]

logger = logging.getLogger(__name__)

FORMAT = 1
# What one picture can be the cause of. A GPU out of memory is the settings' fault, not a picture's.
_IMAGE_ERRORS = (OSError, ValueError, RuntimeError, MemoryError)
# From so many pictures on, none getting through the models means that something else is wrong.
_MIN_SYSTEMATIC_FAILURES = 8


class RegionDescriber(Protocol):
    """Gives the vectors of a picture's regions.

    Attributes:
        features: name of the vision model that makes the keys.
        encoders: names of the CLIPs that make the values.
        settings: further plain facts that the vectors depend on; kept in the bank's manifest.
    """

    features: str
    encoders: tuple[str, ...]
    settings: Mapping[str, Any]

    def __call__(
        self, image: np.ndarray, regions: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Describe regions.

        Args:
            image: (H, W, 3) uint8 RGB.
            regions: (H, W) int32, with R ids from 1 on and 0 where there is none.

        Returns:
            The keys (R, C), not normalised, and by encoder the values (R, D), unit rows; in the
            order of the ids.
        """
        ...


@dataclass(frozen=True)
class BankParts:
    """What a worker holds: the models."""

    regions: RegionSource
    describer: RegionDescriber


@dataclass(frozen=True)
class BankJob:
    """What every worker of a run is told; it can be sent to another process.

    Attributes:
        bank: the folder, the same for all workers.
        image_root: folder that relative addresses of pictures lie in.
        shard_size: pictures of a shard; recorded, as the files of shards depend on it.
        make_parts: builds the models; called once per worker.
    """

    bank: Path
    image_root: Path
    shard_size: int
    make_parts: Callable[[], BankParts]


@dataclass
class _Result:
    """What became of a shard."""

    images: list[tuple[str, int]] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)
    values: list[dict[str, np.ndarray]] = field(default_factory=list)
    quarantine: list[dict[str, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)


def start_worker(job: BankJob, rank: int) -> Callable[[Shard], dict[str, float]]:
    """Make a worker for `ovseg.utils.shard_runs`.

    Args:
        job: the run.
        rank: of the worker.

    Returns:
        What it does with a shard.

    Raises:
        BankRunError: the folder holds a bank that was made otherwise.
    """
    return _Worker(job).describe


def claim(job: BankJob, parts: BankParts) -> None:
    """Write what a bank is made with into its folder, or check that it is the same.

    Args:
        job: the run.
        parts: the worker's models.

    Raises:
        BankRunError: the folder holds a bank with other settings or models.
        BankError: it holds shards and nothing that tells what they were made with.
    """
    describer = parts.describer
    made_with = {
        "format": FORMAT,
        "features": describer.features,
        "encoders": list(describer.encoders),
        "regions": parts.regions.name,
        "settings": dict(describer.settings),
        "shard_size": job.shard_size,
    }
    digest = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:16]
    record = RunRecord(
        {**made_with, "config_hash": digest},
        what="memory bank",
        remedy="choose another folder, delete this one, or start the same run again",
        free=("config_hash",),  # follows from the rest
        error=BankRunError,
    )
    path = job.bank / MANIFEST
    # The manifest is looked for second: another worker writes it before its first part.
    if parts_of(job.bank).any_finished() and not path.exists():
        raise BankError(
            f"{job.bank}: has shards but no {MANIFEST}, so that nobody can tell what they were "
            "made with; choose another folder or delete this one"
        )
    record.claim(path)


class _Worker:
    """Turns shards into files.

    Args:
        job: the run.
    """

    def __init__(self, job: BankJob) -> None:
        self.job = job
        self._read = ImageReader(job.image_root)
        self.parts = job.make_parts()
        claim(job, self.parts)

    def describe(self, shard: Shard) -> dict[str, float]:
        """Write the two files of a shard; gives its counts and the seconds that it took."""
        began, result = time.perf_counter(), _Result()
        for row in shard.rows:
            self._add(row, result)
        in_models = [one for one in result.quarantine if one["kind"] != "picture"]
        if len(in_models) >= _MIN_SYSTEMATIC_FAILURES and not result.images:
            raise BankError(
                f"shard {shard.index}: none of its {len(in_models)} readable pictures could be "
                f"described, so the pictures are not at fault. The first: {in_models[0]['reason']}"
            )
        facts = {
            "images": result.images,
            "counts": dict(sorted(result.counts.items())),
            "set_aside": result.quarantine,
        }
        parts_of(self.job.bank).write(
            shard.index, lambda path: write_safetensors(path, self._tensors(result)), facts
        )
        return {**result.counts, "seconds": time.perf_counter() - began}

    def _add(self, row: ImageRow, result: _Result) -> None:
        """Describe a picture, or put it into quarantine."""
        result.counts["images_in"] += 1
        step = "picture"
        try:
            _check_name(row.image_id)
            image = self._read(row)
            step = "regions"
            regions = self.parts.regions(image, row.image_id)
            ids = np.unique(regions)
            ids = ids[ids > 0].astype(np.int32)
            step = "vectors"
            keys, values = np.zeros((0, 0)), dict[str, np.ndarray]()
            if len(ids):
                keys, values = self.parts.describer(image, regions)
                _check_vectors(keys, values, self.parts.describer.encoders, len(ids))
        except torch.cuda.OutOfMemoryError:
            raise
        except _IMAGE_ERRORS as error:
            logger.debug("%s quarantined (%s): %s", row.image_id, step, error)
            reason = str(error) or type(error).__name__
            entry = {"image_id": row.image_id, "uri": row.uri, "kind": step, "reason": reason}
            result.quarantine.append(entry)
            result.counts["images_quarantined"] += 1
            return
        result.images.append((row.image_id, len(ids)))
        result.counts["regions"] += len(ids)
        result.counts["images_without_regions"] += not len(ids)
        if len(ids):
            result.ids.append(ids)
            result.keys.append(keys.astype(np.float16))
            result.values.append({name: v.astype(np.float16) for name, v in values.items()})

    def _tensors(self, result: _Result) -> dict[str, torch.Tensor]:
        """Join the vectors of a shard; a shard without regions has no arrays but `ids`."""
        arrays = {"ids": np.concatenate([np.zeros(0, np.int32), *result.ids])}
        if result.keys:
            arrays["keys"] = np.concatenate(result.keys)
            for encoder in self.parts.describer.encoders:
                arrays[f"values.{encoder}"] = np.concatenate([v[encoder] for v in result.values])
        return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _check_name(image_id: str) -> None:
    if any(sign in image_id for sign in "\t\n\r"):
        raise ValueError(f"{image_id!r}: the name holds a tab or a line end; rename the picture")
    try:
        image_id.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{image_id!r}: the name is no Unicode; rename the picture") from error


def _check_vectors(
    keys: np.ndarray, values: Mapping[str, np.ndarray], encoders: tuple[str, ...], count: int
) -> None:
    for name, rows in (("keys", keys), *((encoder, values[encoder]) for encoder in encoders)):
        with np.errstate(over="ignore"):
            finite = bool(np.isfinite(rows.astype(np.float16)).all())
        if rows.ndim != 2 or len(rows) != count or not finite:
            raise ValueError(
                f"{name}: expected {count} finite vectors, got shape {rows.shape}"
                + ("" if finite else " with values that half precision cannot hold")
            )
