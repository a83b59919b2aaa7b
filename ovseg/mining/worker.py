"""One worker of a run: holds the models, mines shards into files, and finds the finished ones.

A run's folder::

    manifest.json            what the run was started with; another run is refused here
    shards/part-00000.parquet    the pairs of shard 0
    shards/part-00000.json       its figures and its quarantine; written last, it marks success
    summary.json  quarantine.jsonl  run.json  _SUCCESS     once all shards are there

Every file but run.json (time, machine, where the pictures are) depends on the source, the settings
and the models alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ovseg.data.captions.sources import ImageReader, Shard
from ovseg.mining.parts import MiningConfig, MiningError, MiningParts, MiningRunError
from ovseg.mining.records import write_records
from ovseg.mining.shards import mine_shard
from ovseg.mining.summary import shard_statistics
from ovseg.utils.files import sha256_of, write_json
from ovseg.utils.run_record import RunRecord

__all__ = ["Job", "Worker", "is_finished", "part_path", "read_part", "start_worker"]

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told; it can be sent to another process.

    Attributes:
        config: the settings.
        output: the run's folder, the same for all workers.
        source: plain facts that tell this source from another.
        image_root: folder that relative addresses of pictures lie in.
        make_parts: builds the models; called once per worker.
    """

    config: MiningConfig
    output: Path
    source: Mapping[str, Any]
    image_root: Path
    make_parts: Callable[[], MiningParts]


class Worker:
    """Mines shards into files.

    Args:
        job: the run.

    Raises:
        MiningRunError: the folder holds another run.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self._reader = ImageReader(job.image_root)
        self.parts = job.make_parts()
        self.config_hash = claim(job, self.parts)

    def mine(self, shard: Shard) -> dict[str, float]:
        """Mine a shard into its two files.

        Args:
            shard: the shard.

        Returns:
            Its counts, and the seconds that it took.
        """
        output, began = self.job.output, time.perf_counter()
        result = mine_shard(
            shard, self.job.config, self.parts, self._reader.with_hash, config_hash=self.config_hash
        )
        records = part_path(output, shard.index)
        write_records(records, result.records)
        part = {
            "shard": shard.index,
            "config_hash": self.config_hash,
            "file": records.name,
            "bytes": records.stat().st_size,
            "sha256": sha256_of(records),
            **shard_statistics(result),
            "set_aside": result.quarantine,
        }
        write_json(records.with_suffix(".json"), part, sort_keys=True)
        return {**result.counts, "seconds": time.perf_counter() - began}


def start_worker(job: Job, rank: int) -> Callable[[Shard], dict[str, float]]:
    """Make a worker for `ovseg.utils.shard_runs`.

    Args:
        job: the run.
        rank: of the worker.

    Returns:
        What it does with a shard.
    """
    return Worker(job).mine


def claim(job: Job, parts: MiningParts) -> str:
    """Write what a run is made with into its folder, or check that it is the same run.

    Args:
        job: the run.
        parts: the worker's models, for their names.

    Returns:
        The hash of settings and models, 16 hexadecimal digits.

    Raises:
        MiningRunError: the folder holds a run with other settings, models or source.
        MiningError: it holds shards and nothing that tells what they were mined with.
    """
    made_with = {
        "format": _FORMAT,
        "config": _plain(job.config),
        "proposal_model": parts.proposer.name,
        "clip_model": parts.scorer.name,
        "noun_tagger": parts.nouns.name,
        "models": dict(parts.settings),
    }
    config_hash = hashlib.sha256(json.dumps(made_with, sort_keys=True).encode()).hexdigest()[:16]
    manifest = {**made_with, "config_hash": config_hash, "source": dict(job.source)}
    record = RunRecord(
        manifest,
        what="mining run",
        remedy="choose another output folder, delete this one, or start the same run again",
        free=("config_hash",),  # follows from the rest
        error=MiningRunError,
    )
    path = job.output / MANIFEST
    parts_there = next(part_path(job.output, 0).parent.glob("part-*.json"), None)
    # Looked for second: another worker writes it before its first part.
    if parts_there is not None and not path.exists():
        raise MiningError(
            f"{job.output}: has shards but no {MANIFEST}, so that nobody can tell what they "
            "were mined with; choose another output folder or delete this one"
        )
    record.claim(path)
    return config_hash


def part_path(output: Path, index: int) -> Path:
    """The file of a shard's pairs."""
    return output / "shards" / f"part-{index:05d}.parquet"


def is_finished(output: Path, index: int) -> bool:
    """Say whether a shard's two files are there, the second of which is written last."""
    records = part_path(output, index)
    return records.with_suffix(".json").is_file() and records.is_file()


def read_part(output: Path, index: int) -> dict[str, Any]:
    """Read what is known of a finished shard.

    Args:
        output: the run's folder.
        index: the shard's number.

    Returns:
        Its figures and its quarantine.

    Raises:
        MiningError: its pairs are not those it was written with.
    """
    records = part_path(output, index)
    part = json.loads(records.with_suffix(".json").read_text(encoding="utf-8"))
    if records.stat().st_size != part["bytes"]:
        raise MiningError(
            f"{records}: expected {part['bytes']} bytes, got {records.stat().st_size}; it was "
            f"changed. Delete it and start the same run again"
        )
    return part


def _plain(config: MiningConfig) -> dict[str, Any]:
    settings = dataclasses.asdict(config)
    # Its content is part of the tagger's name; where it lies does not matter.
    settings["nouns"]["concreteness"] = settings["nouns"]["concreteness"] is not None
    return settings
