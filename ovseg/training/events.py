"""What a run reports: progress lines, `metrics.json`, TensorBoard, Weights & Biases."""

from __future__ import annotations

import datetime
import importlib.util
import itertools
import json
import logging
import math
import os
import statistics
import time
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from ovseg.readers.documents import parse_json
from ovseg.utils.files import atomic_path, naming_failure

__all__ = ["JsonLines", "Progress", "TensorBoard", "WandB", "Writer", "make_writers"]

logger = logging.getLogger(__name__)


class Writer(Protocol):
    """Receives the scalars of some iterations."""

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Record the scalars of one iteration (from 0)."""

    def close(self) -> None:
        """Flush and release files."""


class JsonLines:
    """`metrics.json` as Detectron2 writes it: one JSON object with its `iteration` per line.

    A resumed run first drops the lines that its predecessor wrote after the checkpoint, a line cut
    off by a kill included, so that no iteration is told twice. A new run (`start` 0) sets the file
    of an earlier one aside as `metrics.<n>.json`.

    Args:
        path: the file; created where missing.
        start: first iteration of this run.
    """

    def __init__(self, path: Path, *, start: int = 0) -> None:
        if path.exists() and start == 0:
            path.rename(_free_name(path))
        elif path.exists():
            kept = [
                line
                for line in path.read_text(encoding="utf-8").splitlines()
                if _before(line, start)
            ]
            with atomic_path(path) as partial:
                partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        self._path = path
        self._file = path.open("a", encoding="utf-8")

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Append one line; numbers that JSON does not have become null."""
        known = {name: v if math.isfinite(v) else None for name, v in scalars.items()}
        record = {"iteration": iteration, **known}
        with naming_failure(self._path):
            self._file.write(json.dumps(record, sort_keys=True, allow_nan=False) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with naming_failure(self._path):
            self._file.close()


def _free_name(path: Path) -> Path:
    numbered = (path.with_name(f"{path.stem}.{n}{path.suffix}") for n in itertools.count(1))
    return next(candidate for candidate in numbered if not candidate.exists())


def _before(line: str, start: int) -> bool:
    try:
        return int(parse_json(line, "metrics")["iteration"]) < start
    except (ValueError, KeyError, TypeError):
        return False


class TensorBoard:
    """Event files for TensorBoard.

    Args:
        directory: folder of the event files.
        start: first iteration of this run; events at or after it are hidden as superseded.
    """

    def __init__(self, directory: Path, *, start: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter  # a second of imports, main process only

        self._directory = directory
        self._writer = SummaryWriter(str(directory), purge_step=start or None)

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Add one point per scalar."""
        with naming_failure(self._directory / "events.out.tfevents"):
            for name, value in scalars.items():
                self._writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Flush and close the event file."""
        with naming_failure(self._directory / "events.out.tfevents"):
            self._writer.close()


class WandB:
    """A Weights & Biases run; resumed runs continue under the id kept in the output folder.

    Args:
        directory: the run's output folder.
        project: W&B project.
        name: display name, None lets W&B choose.
        config: shown with the run.
    """

    def __init__(
        self, directory: Path, *, project: str, name: str | None, config: Mapping[str, Any]
    ) -> None:
        import wandb

        kept = directory / "wandb_id.txt"
        run_id = kept.read_text(encoding="utf-8").strip() if kept.exists() else None
        self._run = wandb.init(
            project=project,
            name=name,
            dir=str(directory),
            config=dict(config),
            id=run_id,
            resume="allow",
        )
        if run_id is None:
            with atomic_path(kept) as partial:
                partial.write_text(self._run.id, encoding="utf-8")

    @staticmethod
    def configured() -> bool:
        """Whether wandb is installed and the environment says how to use it.

        Without WANDB_API_KEY or WANDB_MODE, wandb would stop and ask at the terminal.
        """
        asked = any(os.environ.get(name) for name in ("WANDB_API_KEY", "WANDB_MODE"))
        return asked and importlib.util.find_spec("wandb") is not None

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Log one step."""
        self._run.log(dict(scalars), step=iteration)

    def close(self) -> None:
        """Mark the run as finished."""
        self._run.finish()


class Progress:
    """Log lines with the time left, median losses of the last iterations, and memory.

    Args:
        max_iter: iterations of the whole run.
        start: first iteration of this run.
        window: iterations that the medians cover.
    """

    def __init__(self, *, max_iter: int, start: int = 0, window: int = 20) -> None:
        self._max_iter = max_iter
        self._history: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=window))
        self._start = start
        self._began = time.perf_counter()
        self._paused = 0.0

    def observe(self, scalars: Mapping[str, float]) -> None:
        """Take in one iteration."""
        for name, value in scalars.items():
            self._history[name].append(value)

    def pause(self, seconds: float) -> None:
        """Leave time spent outside training (an evaluation) out of the estimate."""
        self._paused += seconds

    def write(self, iteration: int, scalars: Mapping[str, float]) -> None:
        """Log one line."""
        done = iteration + 1
        each = (time.perf_counter() - self._began - self._paused) / max(done - self._start, 1)
        eta = datetime.timedelta(seconds=int(each * (self._max_iter - done)))
        fields = [f"eta: {eta}", f"iter: {done}/{self._max_iter}"]
        losses = sorted(
            (name for name in scalars if "loss" in name), key=lambda n: n != "total_loss"
        )
        fields += [f"{name}: {self._median(name):.4g}" for name in losses]
        fields += [f"{name}: {self._median(name):.4f}" for name in ("time", "data_time")]
        fields.append(f"lr: {scalars.get('lr', 0.0):.5g}")
        if torch.cuda.is_available():
            fields.append(f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M")
        logger.info("  ".join(fields))

    def close(self) -> None:
        """Nothing to release."""

    def _median(self, name: str) -> float:
        return statistics.median(self._history[name] or [float("nan")])


def make_writers(
    directory: Path,
    *,
    start: int,
    wandb_project: str,
    wandb_name: str | None,
    config: Mapping[str, Any],
) -> Sequence[Writer]:
    """Open `metrics.json` and TensorBoard, and W&B where it is installed and configured."""
    directory.mkdir(parents=True, exist_ok=True)
    writers: list[Writer] = [
        JsonLines(directory / "metrics.json", start=start),
        TensorBoard(directory, start=start),
    ]
    if WandB.configured():
        writers.append(WandB(directory, project=wandb_project, name=wandb_name, config=config))
    return writers
