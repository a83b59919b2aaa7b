"""Building a memory bank, by any executor, and letting it grow.

Pictures are added in rounds: those of a source that the bank does not have yet, in the order of
their names. A round that was interrupted goes on; rows of finished rounds keep their numbers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ovseg.data.captions.sources import ImageRow, Shard
from ovseg.mining.progress import watch
from ovseg.projects.corrclip.bank.finish import finish
from ovseg.projects.corrclip.bank.storage import (
    ROUNDS,
    SUCCESS,
    BankError,
    BankRunError,
    parts_of,
    rounds_of,
)
from ovseg.projects.corrclip.bank.work import BankJob, BankParts, start_worker
from ovseg.projects.corrclip.sources import Pictures, cut, sha256_of_rows
from ovseg.utils.files import write_json
from ovseg.utils.folder_lock import only_run
from ovseg.utils.run_record import RunRecord
from ovseg.utils.shard_runs import DRY_RUN_IMAGES, ShardRun

__all__ = ["build_memory_bank"]

logger = logging.getLogger(__name__)


def build_memory_bank(
    pictures: Pictures,
    bank: str | Path,
    *,
    make_parts: Callable[[], BankParts],
    shard_size: int = 100,
    append: bool = False,
    index: str = "exact",
    executor: str = "local",
    workers: int = 1,
    limit: int | None = None,
) -> dict[str, Any] | None:
    """Build a bank, go on with one that was interrupted, or let one grow.

    Args:
        pictures: what the bank is to hold.
        bank: its folder; on a file system that all workers share.
        make_parts: builds the models in each worker; a picklable function or object.
        shard_size: pictures per file and step of resuming.
        append: add the pictures that a finished bank does not have.
        index: "faiss" or "auto" to write an index of FAISS, too, see `index_kind`.
        executor: see `ovseg.utils.shard_runs.ShardRun`.
        workers: likewise.
        limit: the first so many new pictures only.

    Returns:
        The summary; None on the ranks of torchrun above 0.

    Raises:
        ValueError: an unknown executor, fewer than one worker, picture or picture a shard.
        BankError: the bank is finished and lacks some of the pictures, but `append` is False; or a
            worker died.
        BankRunError: the folder holds a bank that was made otherwise, or an unfinished round of
            other pictures.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit: expected at least 1 picture, got {limit}")
    if executor == "dry-run":
        limit = min(limit or DRY_RUN_IMAGES, DRY_RUN_IMAGES)
    folder = Path(bank)
    done, shards = _plan(folder, pictures, shard_size, append=append, limit=limit)
    run = ShardRun(
        shards,
        executor=executor,
        workers=workers,
        is_finished=parts_of(folder).is_finished,
        error=BankError,
    )
    job = BankJob(folder, pictures.image_root.absolute(), shard_size, make_parts)
    with only_run(folder, what="building a memory bank", wanted=run.rank == 0):
        if run.pending:
            (folder / SUCCESS).unlink(missing_ok=True)
        figures = watch(
            run.results(partial(start_worker, job)),
            run.own,
            run.pending,
            show=run.rank == 0,
            tally="regions",
            verb="described",
        )
        if run.rank > 0:
            return None
        run.wait()
        facts = {"executor": executor, "workers": run.ranks, **figures}
        return finish(folder, done + len(shards), index=index, run=facts)


def _plan(
    folder: Path, pictures: Pictures, shard_size: int, *, append: bool, limit: int | None
) -> tuple[int, list[Shard]]:
    """Find the round that is to be worked on; gives the shards before it, and its own."""
    parts = parts_of(folder)
    known: set[str] = set()
    done = number = 0
    for one in rounds_of(folder):
        indices = range(done, done + one["shards"])
        finished = [index for index in indices if parts.is_finished(index)]
        if not finished:
            break  # it has only been announced, and may be another now
        if len(finished) < len(indices):
            rows = _first(pictures, known, limit)
            return done, _start_round(folder, number, rows, shard_size, done, again=True)
        records = [parts.read(index) for index in indices]
        known |= {stem for record in records for stem, _ in record["images"]}
        known |= {entry["image_id"] for record in records for entry in record["set_aside"]}
        done, number = done + len(indices), number + 1
    rows = _first(pictures, known, limit)
    if not rows or (limit is not None and not append and _has_first(pictures, known, limit)):
        return done, []
    if number and not append:
        raise BankError(
            f"{folder}: the bank has {len(known)} pictures and lacks {len(rows)} of these; say "
            "that they are to be appended (--append), or choose another folder"
        )
    return done, _start_round(folder, number, rows, shard_size, done)


def _has_first(pictures: Pictures, known: set[str], limit: int) -> bool:
    return all(row.image_id in known for row in pictures.rows[:limit])


def _first(pictures: Pictures, known: set[str], limit: int | None) -> list[ImageRow]:
    return [row for row in pictures.rows if row.image_id not in known][:limit]


def _start_round(
    folder: Path,
    number: int,
    rows: Sequence[ImageRow],
    shard_size: int,
    first: int,
    *,
    again: bool = False,
) -> list[Shard]:
    """Record which pictures a round adds; of one that was begun, check that they are the same."""
    shards = cut(rows, shard_size, first=first)
    settings = {
        "images": len(rows),
        "shards": len(shards),
        "sha256_of_names": sha256_of_rows(rows),
    }
    record = RunRecord(
        settings,
        what="round of a memory bank",
        remedy="finish this round first, with the pictures it began with, or choose another folder",
        error=BankRunError,
    )
    path = folder / ROUNDS / f"round-{number:05d}.json"
    if again:
        record.claim(path)
    else:
        write_json(path, settings, sort_keys=True)
    return shards
