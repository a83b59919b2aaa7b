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
from ovseg.utils.part_files import PartFiles
from ovseg.utils.run_record import RunRecord

__all__ = ["Job", "Worker", "parts_of", "start_worker"]

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
        self._reader = ImageReader(job.image_root, max_pixels=job.config.max_pixels)
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
        facts = {
            "config_hash": self.config_hash,
            **shard_statistics(result),
            "set_aside": result.quarantine,
        }
        parts_of(output).write(shard.index, lambda path: write_records(path, result.records), facts)
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
    # The manifest is looked for second: another worker writes it before its first part.
    if parts_of(job.output).any_finished() and not path.exists():
        raise MiningError(
            f"{job.output}: has shards but no {MANIFEST}, so that nobody can tell what they "
            "were mined with; choose another output folder or delete this one"
        )
    record.claim(path)
    return config_hash


def parts_of(output: Path) -> PartFiles:
    """The files of a run's shards."""
    return PartFiles(output / "shards", ".parquet", MiningError)


def _plain(config: MiningConfig) -> dict[str, Any]:
    settings = dataclasses.asdict(config)
    # Its content is part of the tagger's name; where it lies does not matter.
    settings["nouns"]["concreteness"] = settings["nouns"]["concreteness"] is not None
    return settings
