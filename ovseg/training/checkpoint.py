"""Checkpoints of a training run: written atomically, read without unpickling, resumed exactly."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from ovseg.d2.utils import comm
from ovseg.readers.digests import DIGEST, content_digest
from ovseg.readers.weight_files import UNREADABLE, read_weight_file, weight_file_kind
from ovseg.training.ema import ExponentialMovingAverage
from ovseg.utils.files import atomic_path, naming_failure
from ovseg.utils.run_record import changed_settings
from ovseg.weights.load import write_safetensors

__all__ = ["FINAL_NAME", "RunCheckpoint", "averaged_state", "latest_checkpoint", "read_checkpoint"]

logger = logging.getLogger(__name__)

FORMAT = 1
POINTER_NAME = "last_checkpoint"  # detectron2's name for the file that names the newest one
FINAL_NAME = "model_final.safetensors"
_KEYS = ("iteration", "model", "optimizer", "scheduler", "scaler", "ema", "facts")
NUMBERED = re.compile(r"model_(\d{7,})\.pth")


def latest_checkpoint(directory: Path) -> Path | None:
    """The newest complete checkpoint of a run, None where there is none yet.

    Raises:
        FileNotFoundError: if `last_checkpoint` names a file that is gone.
    """
    pointer = directory / POINTER_NAME
    if not pointer.is_file():
        return None
    name = pointer.read_text(encoding="utf-8", errors="replace").strip()[:200]
    path = directory / Path(name.replace("\0", "")).name
    if not path.is_file():
        raise FileNotFoundError(
            f"{pointer} names {name!r}, which is not there. Put it back, write the name of "
            f"another checkpoint into {pointer}, or remove {pointer} to start over"
        )
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training checkpoint onto the CPU.

    A checkpoint that carries a digest is compared with it.

    Args:
        path: the file.

    Returns:
        What `RunCheckpoint.save` wrote, but its digest.

    Raises:
        ValueError: if the file is damaged, or no checkpoint of this format; the text names the
            older ones beside it.
    """
    try:
        kind = weight_file_kind(path)
        if not kind.startswith("torch"):
            raise ValueError("it is no whole file of torch.save")
        state = read_weight_file(path, kind)
        digest = state.pop(DIGEST, None) if isinstance(state, dict) else None
        if digest is not None and digest != content_digest(state):
            raise ValueError("its content is not what was written: the digest differs")
    except (OSError, *UNREADABLE) as error:
        raise ValueError(
            f"{path}: the checkpoint is damaged: {error or type(error).__name__}. {_others(path)}"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise ValueError(
            f"{path}: expected a training checkpoint of format {FORMAT}, got {found!r}; "
            "weights alone are given with MODEL.WEIGHTS, without --resume"
        )
    missing = [key for key in _KEYS if key not in state]
    if missing:
        raise ValueError(f"{path}: the checkpoint lacks {', '.join(missing)}. {_others(path)}")
    return state


def _others(path: Path) -> str:
    """Say how to go on from an older checkpoint beside a damaged one."""
    names = sorted(
        (other.name for other in path.parent.glob("model_*.pth") if NUMBERED.fullmatch(other.name)),
        reverse=True,
    )
    others = [name for name in names if name < path.name]
    if others:
        return (
            f"Beside it lie {', '.join(others)}: write the name of one into "
            f"{path.parent / POINTER_NAME} to go on from there"
        )
    return f"No older one lies beside it; remove {path.parent / POINTER_NAME} to start over"


def averaged_state(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """The model's tensors in a checkpoint, the averaged ones where the run kept an average.

    Args:
        state: from `read_checkpoint`.

    Returns:
        Tensors by name.
    """
    average = state["ema"]["parameters"] if state["ema"] else {}
    return {**state["model"], **average}


class RunCheckpoint:
    """Everything of a run that changes while it trains.

    What a step draws at random and which samples it sees follow from the seed and the iteration
    (`randomness`, `ovseg.data.loaders`), so the iteration stands for the random state of every
    process and for the loader's position.

    Args:
        directory: the run's output folder.
        model: the model itself, not a DDP wrapper.
        optimizer: its groups carry `names` (`optim.parameter_groups`).
        scheduler: the learning rate schedule.
        scaler: the loss scaler; its state is empty where it is off.
        ema: the running average, or None.
        keep: number of checkpoints to keep, the newest ones; 0 keeps all.
        facts: what the sample sequence depends on (seed, batch size, processes), compared on
            resume.
    """

    def __init__(
        self,
        *,
        directory: Path,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        scheduler: LRScheduler,
        scaler: torch.amp.GradScaler,
        ema: ExponentialMovingAverage | None = None,
        keep: int = 3,
        facts: Mapping[str, int] | None = None,
    ) -> None:
        self.directory = directory
        self.model = model
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scaler = scaler
        self.ema = ema
        self.keep = keep
        self.facts = dict(facts or {})

    def save(self, iteration: int) -> Path | None:
        """Write the state after step `iteration` (from 0); only the main process writes.

        The file is complete before its name appears, and the pointer moves after that: a kill at
        any moment leaves the previous checkpoint in force.

        Returns:
            The file, None on other processes.

        Raises:
            OSError: it cannot be written, as on a full disk; nothing half-written is left.
        """
        if not comm.is_main_process():
            return None
        state = {
            "format": FORMAT,
            "iteration": iteration,
            "model": dict(self.model.state_dict()),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema": self.ema.state_dict() if self.ema else None,
            "facts": self.facts,
        }
        state[DIGEST] = content_digest(state)
        path = self.directory / f"model_{iteration:07d}.pth"
        with naming_failure(path), atomic_path(path) as partial, partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())  # the pointer must not reach the disk before the state
        pointer = self.directory / POINTER_NAME
        with naming_failure(pointer), atomic_path(pointer) as partial:
            partial.write_text(path.name, encoding="utf-8")
        self._prune(iteration)
        return path

    def resume(self) -> int:
        """Restore the newest checkpoint, if there is one.

        Returns:
            The iteration to go on with; 0 where there is no checkpoint.

        Raises:
            ValueError: if the checkpoint does not fit this model or optimizer.
        """
        path = latest_checkpoint(self.directory)
        if path is None:
            return 0
        self._sweep()
        state = read_checkpoint(path)
        self._compare(state, path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.scaler.load_state_dict(state["scaler"])
        if self.ema is not None and state["ema"] is not None:
            self.ema.load_state_dict(state["ema"])
        elif self.ema is not None:
            logger.warning(
                "%s has no moving average; it starts from the trained weights", path.name
            )
            self.ema.restart()
        logger.info("Resumed from %s after iteration %d", path, state["iteration"])
        return int(state["iteration"]) + 1

    def forget(self) -> None:
        """Let go of an earlier run in the same folder; its numbered files stay."""
        if comm.is_main_process():
            (self.directory / POINTER_NAME).unlink(missing_ok=True)

    def save_final(self) -> Path | None:
        """Write the weights to use (the averaged ones, with EMA) as `model_final.safetensors`."""
        if not comm.is_main_process():
            return None
        path = self.directory / FINAL_NAME
        write_safetensors(path, dict(self.model.state_dict()))
        return path

    def _compare(self, state: Mapping[str, Any], path: Path) -> None:
        saved = [group.get("names") for group in state["optimizer"]["param_groups"]]
        live = [group.get("names") for group in self.optimizer.param_groups]
        if saved != live:
            raise ValueError(
                f"{path}: its optimizer groups hold other parameters than this run's (names per "
                f"group: {[len(n or ()) for n in saved]} against {[len(n or ()) for n in live]}). "
                "Resume with the model, BACKBONE_MULTIPLIER and weight decays it was trained with, "
                "or start a new run from it with MODEL.WEIGHTS"
            )
        for name, (before, now) in changed_settings(state["facts"], self.facts).items():
            logger.warning(
                "%s was %s before the interruption and is %s now: training goes on, but its "
                "losses are not those of an uninterrupted run",
                name,
                before,
                now,
            )

    def _sweep(self) -> None:
        """Remove what a process that was killed while it saved has left half written."""
        if comm.is_main_process():
            for partial in self.directory.glob(".model_*.pth"):
                partial.unlink()

    def _prune(self, newest: int) -> None:
        """Remove all but the newest `keep` checkpoints, files of an earlier longer run aside."""
        if self.keep <= 0:
            return
        numbered = []
        for path in self.directory.glob("model_*.pth"):
            match = NUMBERED.fullmatch(path.name)
            if match and int(match[1]) <= newest:
                numbered.append((int(match[1]), path))
        for _, path in sorted(numbered)[: -self.keep]:
            path.unlink()
