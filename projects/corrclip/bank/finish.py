"""The end of a run: the vectors of all shards are joined and the bank is marked as complete."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.lib.format import open_memmap

from ovseg.projects.corrclip.bank.index import FaissIndex, index_kind
from ovseg.projects.corrclip.bank.storage import (
    HEADER,
    IMAGES,
    INDEX,
    KEYS,
    MANIFEST,
    REGIONS,
    ROUNDS,
    RUN,
    SUCCESS,
    VALUES,
    BankError,
    file_name,
    open_rows,
    parts_of,
    read_json,
)
from ovseg.utils.environment import environment_record
from ovseg.utils.files import atomic_path, write_json
from ovseg.utils.part_files import remove_unfinished
from ovseg.weights.load import read_state_dict

__all__ = ["finish"]

logger = logging.getLogger(__name__)

QUARANTINE = "quarantine.jsonl"
_TEMPORARY = ("part-", "round-", "manifest.", "images.", "regions.", "quarantine.", "summary.")


def finish(bank: Path, shards: int, *, index: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Join the shards and write the bank's own files.

    Args:
        bank: its folder, all of whose shards are finished.
        shards: their number.
        index: how the bank will be searched, see `index_kind`; one of FAISS is written.
        run: facts about this run that another run with the same result may have otherwise; an
            earlier run's stay if this one has described nothing.

    Returns:
        The summary.

    Raises:
        BankError: a shard was changed, or none has a region.
    """
    manifest = read_json(bank / MANIFEST)
    features, encoders = manifest["features"], manifest["encoders"]
    counts, digest = _write_lists(bank, shards)
    if not counts["regions"]:
        raise BankError(
            f"{bank}: expected at least one region, got none in {counts['images_in']} pictures; "
            f"{QUARANTINE} says what was wrong with those that could not be used"
        )
    arrays = {"keys": bank / KEYS / f"{file_name(features)}.npy"}
    for encoder in encoders:
        arrays[f"values.{encoder}"] = bank / VALUES / f"{file_name(encoder)}.npy"
    for name, path in arrays.items():
        _join(bank, shards, name, path, counts["regions"])
    path = bank / INDEX / f"{file_name(features)}.faiss"
    if index_kind(index, counts["regions"]) == "faiss":
        FaissIndex.build(open_rows(arrays["keys"])).write(path)
    else:
        path.unlink(missing_ok=True)  # of an earlier state of the bank
    folders = (bank, parts_of(bank).folder, bank / ROUNDS, bank / KEYS, bank / VALUES, bank / INDEX)
    names = {path.stem for path in arrays.values()}
    remove_unfinished(folders, (*_TEMPORARY, "run.", "_", *names))
    summary = {
        "features": features,
        "encoders": encoders,
        "regions_of": manifest["regions"],
        **{name: counts[name] for name in sorted(counts)},
        "regions_per_image": round(counts["regions"] / counts["images_in"], 4),
    }
    write_json(bank / "summary.json", summary, sort_keys=True)
    if run["images_described"] or not (bank / RUN).is_file():
        write_json(bank / RUN, {**run, "environment": environment_record()}, sort_keys=True)
    done = {"images": counts["images_in"], "regions": counts["regions"], "shards": shards}
    # Of the shards' checksums, in their order: one value stands for all vectors.
    write_json(bank / SUCCESS, {**done, "sha256_of_parts": digest}, sort_keys=True)
    logger.info(
        "%d images: %d regions, %d images without, %d quarantined; in %s",
        *(counts[name] for name in ("images_in", "regions", "images_without_regions")),
        *(counts["images_quarantined"], bank),
    )
    return summary


def _write_lists(bank: Path, shards: int) -> tuple[Counter[str], str]:
    """Write the pictures, the regions and the quarantine; gives all counts and the parts' hash."""
    counts = Counter(dict.fromkeys(("images_quarantined", "images_without_regions", "regions"), 0))
    digest = hashlib.sha256()
    with ExitStack() as stack:
        images, regions, quarantine = (
            _text_file(stack, bank / name) for name in (IMAGES, REGIONS, QUARANTINE)
        )
        images.write(f"{HEADER}\n")
        start = 0
        for shard in range(shards):
            part = parts_of(bank).read(shard)
            digest.update(part["sha256"].encode())
            counts.update(part["counts"])
            ids = iter(_array(bank, shard, "ids").tolist())
            for stem, count in part["images"]:
                if count:
                    images.write(f"{stem}\t{start}\t{count}\n")
                    regions.writelines(f"{stem}#{next(ids)}\n" for _ in range(count))
                    start += count
            for entry in part["set_aside"]:
                quarantine.write(json.dumps({"shard": shard, **entry}, sort_keys=True) + "\n")
    return counts, digest.hexdigest()


def _text_file(stack: ExitStack, path: Path) -> TextIO:
    """Open a file that appears, complete, when the stack is left."""
    temporary = stack.enter_context(atomic_path(path))
    return stack.enter_context(temporary.open("w", encoding="utf-8"))


def _join(bank: Path, shards: int, name: str, path: Path, count: int) -> None:
    """Write an array of all shards' rows without holding it in memory."""
    with atomic_path(path) as temporary:
        joined: np.ndarray | None = None
        start = 0
        for rows in _arrays(bank, shards, name):
            if joined is None:
                shape = (count, rows.shape[1])
                joined = open_memmap(temporary, mode="w+", dtype=np.float16, shape=shape)
            joined[start : start + len(rows)] = rows
            start += len(rows)
        assert isinstance(joined, np.memmap) and start == count, "a part for every region"
        joined.flush()


def _arrays(bank: Path, shards: int, name: str) -> Iterator[np.ndarray]:
    for shard in range(shards):
        if len(_array(bank, shard, "ids")):
            yield _array(bank, shard, name)


def _array(bank: Path, shard: int, name: str) -> np.ndarray:
    return read_state_dict(parts_of(bank).path(shard))[name].numpy()
