"""One contrastive run: batches, steps, checkpoints, figures."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from ovseg.clip_training.captions import CaptionPairs
from ovseg.clip_training.config import ClipTrainConfig, load_clip_config
from ovseg.clip_training.model import ContrastiveModel, collate_pairs
from ovseg.clip_training.parameters import make_optimizer, warmup_cosine
from ovseg.d2.utils import comm
from ovseg.data.pairs import PairDataset
from ovseg.data.sampling import BatchPlan, SampleKey
from ovseg.readers.documents import read_json_lines
from ovseg.training.checkpoint import RunCheckpoint, latest_checkpoint
from ovseg.training.distributed import wrap_for_ddp
from ovseg.training.events import Writer, make_writers
from ovseg.training.loop import Trainer, flatten_results
from ovseg.training.step import TrainingStep
from ovseg.utils.files import atomic_path
from ovseg.utils.folder_lock import only_run
from ovseg.utils.precision import has_fast_bf16
from ovseg.utils.run_record import RunRecord
from ovseg.weights.load import write_safetensors

__all__ = ["ContrastiveTrainer"]

logger = logging.getLogger(__name__)

MAX_LOGIT_SCALE = math.log(100)
# Settings that may change when a run is continued: none of them moves a weight.
_FREE = ("workers", "checkpoint_period", "eval_period", "log_period", "grad_checkpointing")


class ContrastiveCheckpoint(RunCheckpoint):
    """The checkpoints of a run, and what it trained at its end.

    Args:
        result_name: file that the final tensors go into; its stem is noted as their content.
        **options: see `RunCheckpoint`.
    """

    def __init__(self, *, result_name: str, **options: Any) -> None:
        super().__init__(**options)
        self.result = self.directory / result_name

    def save_final(self) -> Path | None:
        """Write the trained tensors; of a CLIP under OpenAI's names."""
        if not comm.is_main_process():
            return None
        write_safetensors(self.result, dict(self.model.state_dict()), {"content": self.result.stem})
        return self.result


class ContrastiveTrainer:
    """One run: trains the towers of a model in place.

    Args:
        config: the settings.
        model: on its device; what requires no gradient is left as it is.
        dataset: the pairs; training asks for them by `SampleKey`.
        owner: the module whose parameters are stepped, under the names of the checkpoints.
        output_dir: receives checkpoints, `metrics.json`, TensorBoard's events and the result.
        result_name: file of the result.
        evaluate: gives figures; called by the main process before the first step and after every
            epoch. None never evaluates.
        begin: called with the first step to take, where there is one, after the first evaluation
            and after the weights of a run that is continued were restored.

    Raises:
        ValueError: if the pairs do not fill one batch, or it does not divide among the processes.
    """

    def __init__(
        self,
        config: ClipTrainConfig,
        model: ContrastiveModel,
        dataset: PairDataset | CaptionPairs,
        *,
        owner: nn.Module,
        output_dir: Path,
        result_name: str,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        begin: Callable[[int], None] | None = None,
    ) -> None:
        self.config = config
        self.model = model
        self.dataset = dataset
        self.owner = owner
        self.output_dir = output_dir
        self.evaluate = evaluate
        self.begin = begin
        self.steps = config.total_steps(len(dataset))
        self.evaluation_seconds = 0.0
        _check_sizes(config, len(dataset))
        self.trainer = self._make_trainer(result_name)

    def _make_trainer(self, result_name: str) -> Trainer:
        config, scale = self.config, self.model.logit_scale
        optimizer = make_optimizer(self.owner, config)

        def clamp(*_: Any) -> None:
            with torch.no_grad():
                scale.clamp_(0, MAX_LOGIT_SCALE)

        optimizer.register_step_post_hook(clamp)
        factor = partial(warmup_cosine, warmup=config.warmup, steps=self.steps)
        scheduler = LambdaLR(optimizer, factor)
        step = TrainingStep(
            model=wrap_for_ddp(self.model),
            optimizer=optimizer,
            scheduler=scheduler,
            amp_dtype=_autocast_dtype(config.precision, scale.device),
        )
        checkpoint = ContrastiveCheckpoint(
            result_name=result_name,
            directory=self.output_dir,
            model=self.owner,
            optimizer=optimizer,
            scheduler=scheduler,
            scaler=step.scaler,
            facts={"pairs": len(self.dataset), "processes": comm.get_world_size()},
        )
        epoch = max(len(self.dataset) // config.batch_size, 1)
        return Trainer(
            step=step,
            checkpoint=checkpoint,
            seed=config.seed,
            max_iter=self.steps,
            checkpoint_period=config.checkpoint_period or epoch,
            log_period=config.log_period,
            evaluate=None if self.evaluate is None else lambda _: self._evaluate(),
            eval_period=config.eval_period or epoch,
        )

    def run(self, *, resume: bool = False) -> dict[str, Any]:
        """Train from the start or from the newest checkpoint to the end.

        A run that is killed and resumed ends with the weights of one that is not, bit for bit on
        the CPU.

        Args:
            resume: continue the run in the output folder, if there is one.

        Returns:
            `steps`, `pairs_per_second` of this process group (evaluations not counted; None where
            nothing was left to train), and the figures `before` the first step and `after` the
            last one (None without `evaluate`).

        Raises:
            AnotherRunError: if the run to continue has other settings.
            BusyFolderError: another run is writing to the folder.
        """
        with ExitStack() as stack:
            lock = only_run(self.output_dir, what="a training", wanted=comm.is_main_process())
            stack.enter_context(lock)
            start = self._open_run(resume)
            writers = self._open_writers(start) if comm.is_main_process() else []
            for writer in writers:
                stack.callback(writer.close)
            if start == 0 and self.steps and self.evaluate is not None:
                figures = flatten_results(self._evaluate())
                for writer in writers:
                    writer.write(-1, figures)
            if start < self.steps and self.begin is not None:
                self.begin(start)
            self.evaluation_seconds = 0.0
            began = time.perf_counter()
            self.trainer.run(self._batches(start), start=start, writers=writers)
            seconds = time.perf_counter() - began - self.evaluation_seconds
            self.trainer.finish(writers)
        pairs = (self.steps - start) * self.config.batch_size
        return {
            "steps": self.steps,
            "pairs_per_second": round(pairs / seconds, 1) if pairs else None,
            **self._figures(),
        }

    def _open_run(self, resume: bool) -> int:
        """Restore the run in the folder or begin one; returns the first step."""
        settings = self.output_dir / "config.yaml"
        checkpoint = self.trainer.checkpoint
        if resume and latest_checkpoint(self.output_dir) is not None:
            RunRecord(
                asdict(self.config),
                what="training run",
                remedy="choose another output folder, or continue with the settings of the file",
                free=_FREE,
            ).check(asdict(load_clip_config(settings)), settings)
            return checkpoint.resume()
        checkpoint.forget()
        if comm.is_main_process():
            with atomic_path(settings) as partial_file:
                partial_file.write_text(self.config.to_yaml(), encoding="utf-8")
        return 0

    def _batches(self, start: int) -> DataLoader[Any]:
        config = self.config
        plan = BatchPlan(
            num_records=len(self.dataset), batch_size=config.batch_size, seed=config.seed
        )
        rank, world_size = comm.get_rank(), comm.get_world_size()

        def keys() -> Iterator[list[SampleKey]]:
            share = plan.share(start, rank=rank, world_size=world_size)
            return islice(share, self.steps - start)

        return DataLoader(
            self.dataset,
            batch_sampler=_Batches(keys),
            num_workers=config.workers,
            collate_fn=collate_pairs,
            pin_memory=False,
            # The loader draws a base seed; from its own generator, or it would change the run's.
            generator=torch.Generator(),
        )

    def _open_writers(self, start: int) -> Sequence[Writer]:
        return make_writers(
            self.output_dir,
            start=start,
            wandb_project="ovseg",
            wandb_name=None,
            config=asdict(self.config),
        )

    def _evaluate(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Figures of the main process, in the form that the loop takes."""
        assert self.evaluate is not None
        began = time.perf_counter()
        figures: Mapping[str, float] = {}
        if comm.is_main_process():
            figures = self.evaluate()
            logger.info("Accuracy on ground-truth regions: %s", dict(figures))
        comm.synchronize()
        self.evaluation_seconds += time.perf_counter() - began
        return {"regions": {"clip": figures}}

    def _figures(self) -> dict[str, Any]:
        """The first and the last evaluation that the folder's `metrics.json` tells of."""
        if not comm.is_main_process() or self.evaluate is None:
            return {"before": None, "after": None}
        prefix = "regions/clip/"
        evaluations = []
        for record in read_json_lines(self.output_dir / "metrics.json"):
            figures = {k.removeprefix(prefix): v for k, v in record.items() if k.startswith(prefix)}
            if figures:
                evaluations.append((record["iteration"], figures))
        before = evaluations[0][1] if evaluations and evaluations[0][0] < 0 else None
        return {"before": before, "after": evaluations[-1][1] if evaluations else None}


class _Batches:
    """A batch sampler over keys that are made when they are asked for."""

    def __init__(self, make: Callable[[], Iterator[list[SampleKey]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._make()


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "fp32"
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def _check_sizes(config: ClipTrainConfig, pairs: int) -> None:
    if pairs < config.batch_size and config.total_steps(config.batch_size):
        raise ValueError(
            f"expected at least {config.batch_size} pairs, one batch, got {pairs}; lower batch_size"
        )
    if config.batch_size % comm.get_world_size():
        raise ValueError(
            f"batch_size: expected a multiple of the {comm.get_world_size()} processes, got "
            f"{config.batch_size}"
        )
