"""The training loop: load, step, report, average, save, evaluate."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any, NoReturn

from torch import nn

from ovseg.d2.config import CfgNode
from ovseg.d2.utils import comm
from ovseg.training.checkpoint import RunCheckpoint, latest_checkpoint
from ovseg.training.distributed import wrap_for_ddp
from ovseg.training.ema import ExponentialMovingAverage
from ovseg.training.events import Progress, Writer, make_writers
from ovseg.training.interrupt import Interrupt, TrainingInterrupted
from ovseg.training.optimizer import build_gradient_clipper, build_lr_scheduler, build_optimizer
from ovseg.training.randomness import seed_iteration
from ovseg.training.step import TrainingStep, autocast_dtype
from ovseg.utils.folder_lock import only_run
from ovseg.weights.record import describe_file, describe_state

__all__ = ["Trainer", "train"]

logger = logging.getLogger(__name__)

Loader = Iterable[Sequence[Any]]
Results = Mapping[str, Mapping[str, Mapping[str, float]]]
# What is evaluated: name, path, sha256, licence; empty outside the main process.
Weights = Mapping[str, str]


class Trainer:
    """Runs iterations `start` to `max_iter` and what belongs around them.

    Args:
        step: takes one optimizer step.
        checkpoint: saves and restores the run.
        seed: all randomness of iteration `i` follows from it, `i` and the rank.
        max_iter: iterations of the whole run.
        checkpoint_period: iterations between two checkpoints; the last iteration saves anyway.
        log_period: iterations between two reports.
        ema: running average of the parameters, or None.
        evaluate: called every `eval_period` iterations and at the end, or None; it is told which
            weights it evaluates (name, path, sha256, licence; nothing outside the main process).
        eval_period: iterations between two evaluations; 0 evaluates at the end only.
    """

    def __init__(
        self,
        *,
        step: TrainingStep,
        checkpoint: RunCheckpoint,
        seed: int,
        max_iter: int,
        checkpoint_period: int,
        log_period: int = 20,
        ema: ExponentialMovingAverage | None = None,
        evaluate: Callable[[Weights], Results] | None = None,
        eval_period: int = 0,
    ) -> None:
        self.step = step
        self.checkpoint = checkpoint
        self.seed = seed
        self.max_iter = max_iter
        self.checkpoint_period = checkpoint_period
        self.log_period = log_period
        self.ema = ema
        self.evaluate = evaluate
        self.eval_period = eval_period
        self.results: Results = {}

    @classmethod
    def from_config(
        cls,
        cfg: CfgNode,
        model: nn.Module,
        *,
        evaluate: Callable[[CfgNode, nn.Module, Weights], Results] | None,
    ) -> Trainer:
        """Assemble a trainer for `model`, which is on its device already."""
        solver = cfg.SOLVER
        optimizer = build_optimizer(cfg, model)
        scheduler = build_lr_scheduler(cfg, optimizer)
        wrapped = wrap_for_ddp(model)  # first: it gives every process the same parameters
        ema = (
            ExponentialMovingAverage(model, decay=solver.EMA.DECAY) if solver.EMA.ENABLED else None
        )
        step = TrainingStep(
            model=wrapped,
            optimizer=optimizer,
            scheduler=scheduler,
            clip=build_gradient_clipper(cfg),
            accumulation=solver.ACCUMULATION_STEPS,
            amp_dtype=autocast_dtype(cfg),
            skip_non_finite=solver.SKIP_NON_FINITE,
        )
        checkpoint = RunCheckpoint(
            directory=Path(cfg.OUTPUT_DIR),
            model=model,
            optimizer=optimizer,
            scheduler=scheduler,
            scaler=step.scaler,
            ema=ema,
            keep=solver.CHECKPOINTS_KEPT,
            facts={
                "SEED": cfg.SEED,
                "SOLVER.IMS_PER_BATCH": solver.IMS_PER_BATCH,
                "processes": comm.get_world_size(),
                "SOLVER.ACCUMULATION_STEPS": solver.ACCUMULATION_STEPS,
            },
        )
        return cls(
            step=step,
            checkpoint=checkpoint,
            seed=cfg.SEED,
            max_iter=solver.MAX_ITER,
            checkpoint_period=solver.CHECKPOINT_PERIOD,
            log_period=solver.LOG_PERIOD,
            ema=ema,
            evaluate=None if evaluate is None else lambda weights: evaluate(cfg, model, weights),
            eval_period=cfg.TEST.EVAL_PERIOD,
        )

    def run(self, loader: Loader, *, start: int, writers: Sequence[Writer] = ()) -> None:
        """Train from iteration `start` to the end.

        Args:
            loader: yields this process's batch of iteration `start`, then of the next, without end.
            start: first iteration to run.
            writers: receive the scalars; none but the main process needs any.
        """
        progress = Progress(max_iter=self.max_iter, start=start)
        self.step.model.train()
        device = next(self.step.model.parameters()).device
        with Interrupt() as interrupt:
            batches = iter(loader)
            for iteration in range(start, self.max_iter):
                scalars = self._iterate(batches, iteration)
                progress.observe(scalars)
                last = iteration + 1 == self.max_iter
                if last or self._due(iteration, self.log_period):
                    progress.write(iteration, scalars)
                    for writer in writers:
                        writer.write(iteration, scalars)
                interrupted = interrupt.requested(device)
                if last or interrupted or self._due(iteration, self.checkpoint_period):
                    self.checkpoint.save(iteration)
                if interrupted:
                    comm.synchronize()  # the first to leave would end the one that saves
                    self._stop(iteration)
                if not last and self._due(iteration, self.eval_period):
                    began = time.perf_counter()
                    with interrupt.at_once():
                        self._evaluate_between(iteration, writers)
                    progress.pause(time.perf_counter() - began)

    def _iterate(self, batches: Iterator[Sequence[Any]], iteration: int) -> dict[str, float]:
        """Take one step; returns what is to be reported of it."""
        began = time.perf_counter()
        batch = next(batches)
        data_time = time.perf_counter() - began
        seed_iteration(self.seed, iteration, comm.get_rank())
        lr = max(group["lr"] for group in self.step.optimizer.param_groups)
        scalars = self.step(batch, iteration=iteration)
        if self.ema is not None:
            self.ema.update()
        seconds = time.perf_counter() - began
        return {**scalars, "lr": lr, "time": seconds, "data_time": data_time}

    def _evaluate_between(self, iteration: int, writers: Sequence[Writer]) -> None:
        """Evaluate between two steps; whoever interrupts that keeps the steps so far."""
        try:
            self._evaluate(iteration, writers)
        except KeyboardInterrupt:
            self.checkpoint.save(iteration)
            self._stop(iteration)

    @staticmethod
    def _stop(iteration: int) -> NoReturn:
        logger.warning(
            "Interrupted after iteration %d, which is saved; --resume goes on from there",
            iteration + 1,
        )
        raise TrainingInterrupted

    def finish(self, writers: Sequence[Writer] = ()) -> None:
        """Write the final weights and evaluate them; also when a resumed run has no step left."""
        with self.averaged_weights():
            path = self.checkpoint.save_final()
        self._evaluate(self.max_iter - 1, writers, path)

    @staticmethod
    def _due(iteration: int, period: int) -> bool:
        return period > 0 and (iteration + 1) % period == 0

    def _evaluate(
        self, iteration: int, writers: Sequence[Writer], final: Path | None = None
    ) -> None:
        """Evaluate the weights that the run will hand over: the averaged ones, with EMA."""
        if self.evaluate is None:
            return
        with self.averaged_weights():
            weights: Weights = {}
            if final is not None:
                weights = describe_file(final.name, final)
            elif comm.is_main_process():
                name = f"iteration {iteration + 1} of {self.checkpoint.directory}"
                weights = describe_state(
                    name, self.checkpoint.model, "as the weights it began with"
                )
            self.results = self.evaluate(weights)
        self.step.model.train()
        scalars = flatten_results(self.results)
        if scalars:
            for writer in writers:
                writer.write(iteration, scalars)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Context in which the model carries the averaged weights, if the run keeps an average."""
        return nullcontext() if self.ema is None else self.ema.applied()


def flatten_results(results: Results) -> dict[str, float]:
    """Join the names of nested results, e.g. to "ade20k_sem_seg_val/sem_seg/mIoU"."""
    return {
        f"{dataset}/{task}/{metric}": float(value)
        for dataset, tasks in results.items()
        for task, metrics in tasks.items()
        for metric, value in metrics.items()
    }


def train(
    cfg: CfgNode,
    model: nn.Module,
    *,
    resume: bool,
    make_loader: Callable[..., Loader],
    initialise: Callable[[], None] | None = None,
    evaluate: Callable[[CfgNode, nn.Module, Weights], Results] | None = None,
) -> Results:
    """Train a model as `cfg.SOLVER` says, from the start or from the last checkpoint.

    A run that is killed at any moment and resumed takes the same steps, bit for bit on the CPU, as
    one that is not: the checkpoint holds what a step changes, and what it draws at random follows
    from `cfg.SEED` and the iteration. On a GPU the sums of some operators depend on the order of
    threads.

    Args:
        cfg: the full config, with `SEED` >= 0.
        model: on its device; returns weighted losses for a batch in training mode.
        resume: continue from `OUTPUT_DIR/last_checkpoint` if there is one.
        make_loader: `make_loader(cfg, start_iteration=i)` yields the batches from iteration `i` on.
        initialise: loads the initial weights; called unless a checkpoint is resumed.
        evaluate: maps config, model and the record of its weights to results by dataset; None
            never evaluates.

    Returns:
        Results of the last evaluation; {} where there was none.

    Raises:
        BusyFolderError: another run is writing to the folder.
        TrainingInterrupted: Ctrl-C was pressed; the run was saved and can be resumed.
    """
    directory = Path(cfg.OUTPUT_DIR)
    with ExitStack() as stack:
        lock = only_run(directory, what="a training", wanted=comm.is_main_process())
        stack.enter_context(lock)
        resuming = resume and latest_checkpoint(directory) is not None
        if not resuming and initialise is not None:
            initialise()
        trainer = Trainer.from_config(cfg, model, evaluate=evaluate)
        start = trainer.checkpoint.resume() if resuming else 0
        if not resuming:
            trainer.checkpoint.forget()
        writers = _open_writers(cfg, start) if comm.is_main_process() else []
        logger.info("Training iterations %d to %d", start, cfg.SOLVER.MAX_ITER)
        for writer in writers:
            stack.callback(writer.close)
        loader = make_loader(cfg, start_iteration=start)
        try:
            trainer.run(loader, start=start, writers=writers)
        finally:
            if hasattr(loader, "close"):
                loader.close()  # its workers are not needed for the evaluation
        trainer.finish(writers)
    return trainer.results


def _open_writers(cfg: CfgNode, start: int) -> Sequence[Writer]:
    return make_writers(
        Path(cfg.OUTPUT_DIR),
        start=start,
        wandb_project=cfg.WANDB.PROJECT,
        wandb_name=cfg.WANDB.NAME,
        config=cfg,
    )
