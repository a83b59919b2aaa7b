"""Storing the regions of many pictures in files, so that a slow source runs once.

A folder of results::

    a/photo.npz          the map of the picture a/photo, in the published form
    _run/manifest.json   the source of the regions; another is refused here
    _run/shard-HASH.json the pictures of a shard, with their regions; written last, it marks success
    _run/summary.json  _run/quarantine.jsonl    of the pictures of the last run

Pictures that have a map keep it; a run that was interrupted goes on, and one with further pictures
adds theirs.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovseg.data.captions.sources import ImageReader, Shard
from ovseg.mining.progress import watch
from ovseg.projects.corrclip.regions.files import read_region_map, region_path, write_region_map
from ovseg.projects.corrclip.regions.source import RegionError, RegionSource
from ovseg.projects.corrclip.sources import Pictures, cut, sha256_of_rows
from ovseg.readers.documents import read_json
from ovseg.utils.files import atomic_path, write_json
from ovseg.utils.folder_lock import only_run
from ovseg.utils.run_record import AnotherRunError, RunRecord
from ovseg.utils.shard_runs import ShardRun

__all__ = ["store_regions"]

logger = logging.getLogger(__name__)

RUN = "_run"
# What one picture can be the cause of. A GPU out of memory is the settings' fault, not a picture's.
_IMAGE_ERRORS = (OSError, ValueError, RuntimeError, MemoryError)


class RegionRunError(AnotherRunError, RegionError):
    """The folder holds regions of another source."""


@dataclass(frozen=True)
class _Job:
    """What every worker is told."""

    folder: Path
    image_root: Path
    make_source: Callable[[], RegionSource]


def store_regions(
    pictures: Pictures,
    folder: str | Path,
    *,
    make_source: Callable[[], RegionSource],
    shard_size: int = 100,
    executor: str = "local",
    workers: int = 1,
    limit: int | None = None,
) -> dict[str, Any] | None:
    """Write the regions of pictures as files, or go on with a run that was interrupted.

    Args:
        pictures: which.
        folder: of the files; on a file system that all workers share.
        make_source: builds the source in each worker; a picklable function or object.
        shard_size: pictures that a worker takes at a time.
        executor: see `ovseg.utils.shard_runs.ShardRun`.
        workers: likewise.
        limit: the first so many pictures only.

    Returns:
        Counts: images_in, regions, images_quarantined; None on the ranks of torchrun above 0.

    Raises:
        ValueError: an unknown executor, or fewer than one worker, or picture a shard.
        RegionError: the folder holds regions of another source, or a worker died.
        BusyFolderError: another run is writing to the folder.
    """
    folder = Path(folder)
    shards = cut(pictures.rows[:limit], shard_size)
    marks = {shard.index: _mark(folder, shard) for shard in shards}
    run = ShardRun(
        shards,
        executor=executor,
        workers=workers,
        is_finished=lambda index: marks[index].is_file(),
        error=RegionError,
    )
    job = _Job(folder, pictures.image_root.absolute(), make_source)
    with only_run(folder, what="cutting regions", wanted=run.rank == 0):
        figures = watch(
            run.results(partial(_start_worker, job)),
            run.own,
            run.pending,
            show=run.rank == 0,
            tally="regions",
            verb="cut",
        )
        if run.rank > 0:
            return None
        run.wait()
        counts: Counter[str] = Counter()
        with (
            atomic_path(folder / RUN / "quarantine.jsonl") as temporary,
            temporary.open("w") as file,
        ):
            for path in marks.values():
                part = read_json(path)
                counts.update(part["counts"])
                file.writelines(f"{json.dumps(one, sort_keys=True)}\n" for one in part["set_aside"])
        summary = {name: counts[name] for name in ("images_in", "regions", "images_quarantined")}
        write_json(folder / RUN / "summary.json", summary, sort_keys=True)
        logger.info("%s; %s images per second", summary, figures["images_per_second"])
        return summary


def _mark(folder: Path, shard: Shard) -> Path:
    """The file that says that a shard is done; it goes by the pictures, not by their number."""
    return folder / RUN / f"shard-{sha256_of_rows(shard.rows)[:16]}.json"


def _start_worker(job: _Job, rank: int) -> Callable[[Shard], dict[str, float]]:
    """Make a worker for `ovseg.utils.shard_runs`; refuses another source's folder."""
    source = job.make_source()
    record = RunRecord(
        {"regions": source.name},
        what="folder of regions",
        remedy="choose another folder or delete this one",
        error=RegionRunError,
    )
    record.claim(job.folder / RUN / "manifest.json")
    return partial(_store_shard, job, source, ImageReader(job.image_root))


def _store_shard(
    job: _Job, source: RegionSource, read: ImageReader, shard: Shard
) -> dict[str, float]:
    began, counts = time.perf_counter(), Counter(images_quarantined=0)
    quarantine = []
    for row in shard.rows:
        counts["images_in"] += 1
        try:
            path = region_path(job.folder, row.image_id)
            if not path.is_file():
                write_region_map(path, source(read(row), row.image_id))
            counts["regions"] += int(np.count_nonzero(np.unique(read_region_map(path))))
        except torch.cuda.OutOfMemoryError:
            raise
        except _IMAGE_ERRORS as error:
            reason = str(error) or type(error).__name__
            quarantine.append({"image_id": row.image_id, "uri": row.uri, "reason": reason})
            counts["images_quarantined"] += 1
    part = {"counts": dict(sorted(counts.items())), "set_aside": quarantine}
    write_json(_mark(job.folder, shard), part, sort_keys=True)
    return {**counts, "seconds": time.perf_counter() - began}
