"""All jobs of the ablation in worker processes: base models, mined pairs, rows."""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ovseg.data.catalog import register_builtin
from ovseg.readers.documents import read_json
from ovseg.tinyscapes.ablation import ROWS, AblationSize, Row, SeedStage, run_row
from ovseg.tinyscapes.ablation_pairs import mine_training_pictures, records_of
from ovseg.utils.folder_lock import only_run
from ovseg.utils.processes import exit_with_parent, run_in_dependency_order

__all__ = ["Ablation", "Job", "plan", "run_ablation"]

logger = logging.getLogger(__name__)

BASE = "base"
_ROWS = {row.name: row for row in ROWS}


@dataclass(frozen=True)
class Job:
    """A piece of work that one process does.

    Attributes:
        seed: whose.
        step: `BASE`, the folder of a mining run, or the name of a row.
    """

    seed: int
    step: str

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.step}"


@dataclass(frozen=True)
class Ablation:
    """What every job needs to know.

    Attributes:
        output: receives `base-<seed>` and `seed-<seed>`.
        size: how much of everything.
        make_base: trains the model of a seed in a folder, or finds it there; returns its weights.
            A picklable function.
    """

    output: Path
    size: AblationSize
    make_base: Callable[[Path, int], Path]

    def run(self, job: Job) -> None:
        """Do a job, unless it is done already."""
        if job.step == BASE:
            self.make_base(self.output / f"base-{job.seed}", job.seed)
            return
        stage = _stage(self, job.seed)
        if job.step in _ROWS:
            run_row(_ROWS[job.step], stage)
        else:
            count = self.size.pictures
            mine_training_pictures(stage.folder, stage.base, count, records=job.step)

    def result(self, seed: int, row: Row) -> dict[str, Any]:
        """The result of a row that was run."""
        file = self.output / f"seed-{seed}" / row.name / "result.json"
        found: dict[str, Any] = read_json(file)
        return found


@functools.lru_cache(maxsize=1)  # its masks take more than a gigabyte
def _stage(ablation: Ablation, seed: int) -> SeedStage:
    base = ablation.make_base(ablation.output / f"base-{seed}", seed)
    return SeedStage(ablation.output / f"seed-{seed}", base, seed, ablation.size)


def plan(seeds: Sequence[int], rows: Sequence[Row] = ROWS) -> dict[Job, list[Job]]:
    """List all jobs, base models first, each with those that must be done before it.

    Args:
        seeds: of the base models.
        rows: the lines of the table; the one that another starts from is added.
    """
    names = {row.name for row in rows} | {row.start for row in rows if row.start}
    needs: dict[Job, list[Job]] = {Job(seed, BASE): [] for seed in seeds}
    for seed in seeds:
        for row in (row for row in ROWS if row.name in names):
            before = [Job(seed, BASE)]
            if row.start:
                before.append(Job(seed, row.start))
            records = records_of(row.pairs)
            if records:
                needs[Job(seed, records)] = [Job(seed, BASE)]
                before.append(Job(seed, records))
            needs[Job(seed, row.name)] = before
    return needs


def run_ablation(
    ablation: Ablation, seeds: Sequence[int], *, rows: Sequence[Row] = ROWS, workers: int = 1
) -> dict[int, dict[str, dict[str, Any]]]:
    """Run every row of every seed; finished jobs are kept, so an interrupted run goes on.

    Args:
        ablation: where and how much.
        seeds: each with a base model of its own.
        rows: the lines of the table.
        workers: processes, each of which takes its share of the cores and about 4 GB.

    Returns:
        Results by seed, then by name of a row.

    Raises:
        AnotherRunError: if a folder holds results of another base or another size.
        BusyFolderError: another run is writing to the ablation's folder.
    """
    jobs = plan(seeds, rows)
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        workers, mp_context=context, initializer=_start_worker, initargs=(threads,)
    )
    with only_run(ablation.output, what="an ablation"):
        began = time.perf_counter()
        try:
            for done, (job, _) in enumerate(
                run_in_dependency_order(pool, ablation.run, jobs), start=1
            ):
                minutes = (time.perf_counter() - began) / 60
                logger.info("%d of %d jobs, %.1f min: %s", done, len(jobs), minutes, job)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return {seed: {row.name: ablation.result(seed, row) for row in rows} for seed in seeds}


def _start_worker(threads: int) -> None:
    exit_with_parent()
    register_builtin()
    torch.set_num_threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of the scripts that it starts
    logging.basicConfig(
        level=logging.INFO,
        format="[%(asctime)s %(processName)s] %(message)s",
        datefmt="%H:%M:%S",
    )
