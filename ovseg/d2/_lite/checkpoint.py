"""Checkpoints of a model and of what trains it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from fvcore.common.checkpoint import Checkpointer
from torch import nn

from ovseg.d2._lite import comm
from ovseg.d2._lite.paths import PathManager
from ovseg.readers.weight_files import UNREADABLE, read_weight_file, weight_file_kind

__all__ = ["DetectionCheckpointer"]


class DetectionCheckpointer(Checkpointer):
    """Checkpointer that writes in the main process only and unpickles nothing but tensors."""

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        """Remember what to save and where.

        Args:
            model: the model; under DDP the wrapper may be given.
            save_dir: folder of the checkpoints.
            save_to_disk: whether this process writes; None means the main process does.
            **checkpointables: other objects with `state_dict` and `load_state_dict`.
        """
        if save_to_disk is None:
            save_to_disk = comm.is_main_process()
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.path_manager = PathManager

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `<save_dir>/<name>.pth`, whole or not at all, and mark it as the last one."""
        if not self.save_dir or not self.save_to_disk:
            return
        data: dict[str, Any] = {"model": self.model.state_dict()}
        data.update({key: obj.state_dict() for key, obj in self.checkpointables.items()})
        data.update(kwargs)
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("saving checkpoint to %s", path)
        partial = os.path.join(self.save_dir, f".{name}.pth.{os.getpid()}")
        try:
            torch.save(data, partial)
            os.replace(partial, path)
        except (OSError, RuntimeError) as error:  # torch's own, where the disk is full
            with contextlib.suppress(FileNotFoundError):
                Path(partial).unlink()
            raise OSError(
                f"{path}: could not be written, and nothing is left of it: {error}"
            ) from error
        self.tag_last_checkpoint(os.path.basename(path))

    def _load_file(self, f: str) -> dict[str, Any]:
        if f.endswith(".pkl"):
            raise ValueError(
                f"{f} is a pickle, which can run code when it is read; if you trust it, convert "
                "it with tools/convert_weights.py (--allow-pickle) and load the result"
            )
        try:
            kind = weight_file_kind(Path(f))
            if kind not in ("safetensors", "torch", "torch_legacy"):
                raise ValueError(f"expected a file of torch.save or safetensors, got {kind}")
            loaded = read_weight_file(Path(f), kind)
            if not isinstance(loaded, Mapping):
                raise ValueError(f"expected a dictionary, got {type(loaded).__name__}")
        except UNREADABLE as error:
            raise ValueError(f"{f}: the checkpoint cannot be read: {error}") from error
        return dict(loaded) if "model" in loaded else {"model": dict(loaded)}
