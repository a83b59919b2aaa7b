"""Adapting CLIP to masked regions: full fine-tuning, mask prompt tuning, or both at once.

Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023), sections
3.2 and 3.3. The text tower is locked in every mode. The temperature `logit_scale` is trained in
every mode, as there: it is stored with the result, but segmentation compares at a fixed one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader

from ovseg.clip import MaskPromptedCLIP
from ovseg.clip_training.config import ClipTrainConfig
from ovseg.clip_training.evaluation import has_trained_prompt
from ovseg.clip_training.objective import RegionTower, collate_pairs
from ovseg.clip_training.parameters import make_optimizer, set_trainable
from ovseg.clip_training.pretraining import (
    MAX_LOGIT_SCALE,
    PretrainConfig,
    has_fast_bf16,
    learning_rate,
)
from ovseg.d2.utils import comm
from ovseg.data.pairs import PairDataset
from ovseg.data.sampling import BatchPlan, SampleKey
from ovseg.training.checkpoint import RunCheckpoint, latest_checkpoint
from ovseg.training.distributed import wrap_for_ddp
from ovseg.training.events import Writer, make_writers
from ovseg.training.loop import Trainer
from ovseg.training.randomness import derive_seed
from ovseg.training.step import TrainingStep
from ovseg.utils.files import atomic_path
from ovseg.weights.load import write_safetensors

__all__ = ["RESULT_NAME", "ClipTrainer", "train_clip"]

logger = logging.getLogger(__name__)

RESULT_NAME = "clip.safetensors"
_PROMPT_STREAM = 11
# Settings that may change when a run is continued: none of them moves a weight.
_FREE = ("workers", "checkpoint_period", "eval_period", "log_period", "grad_checkpointing")

Evaluate = Callable[[MaskPromptedCLIP], Mapping[str, float]]


class ClipCheckpoint(RunCheckpoint):
    """The checkpoints of a run, and the adapted CLIP at its end."""

    def save_final(self) -> Path | None:
        """Write the CLIP as `clip.safetensors`, under OpenAI's names."""
        if not comm.is_main_process():
            return None
        path = self.directory / RESULT_NAME
        write_safetensors(path, dict(self.model.state_dict()), {"content": "clip"})
        return path


class ClipTrainer:
    """One run: trains the CLIP in place.

    Args:
        config: the settings.
        clip: on its device, with the weights to start from.
        dataset: the pairs; training wants them randomly cropped, see `PairDataset`.
        output_dir: receives checkpoints, `metrics.json`, TensorBoard's events and the result.
        evaluate: maps the CLIP to figures; called by the main process before the first step and
            after every epoch. None never evaluates.

    Raises:
        ValueError: if the pairs do not fill one batch, or the CLIP lacks the prompt to train.
    """

    def __init__(
        self,
        config: ClipTrainConfig,
        clip: MaskPromptedCLIP,
        dataset: PairDataset,
        *,
        output_dir: Path,
        evaluate: Evaluate | None = None,
    ) -> None:
        self.config = config
        self.clip = clip
        self.dataset = dataset
        self.output_dir = output_dir
        self.evaluate = evaluate
        self.steps = config.total_steps(len(dataset))
        self.evaluation_seconds = 0.0
        _check_sizes(config, len(dataset))
        set_trainable(clip, config.mode)
        use_masks = config.trains_prompt or has_trained_prompt(clip)
        self.tower = RegionTower(clip, use_masks=use_masks, duplicates=config.duplicates)
        clip.visual.set_grad_checkpointing(config.grad_checkpointing)
        self.trainer = self._make_trainer()

    def _make_trainer(self) -> Trainer:
        config = self.config
        optimizer = make_optimizer(self.clip, config)
        optimizer.register_step_post_hook(self._clamp_scale)
        schedule = PretrainConfig(lr=1.0, warmup=config.warmup, steps=self.steps)
        scheduler = LambdaLR(optimizer, lambda step: learning_rate(step, schedule))
        step = TrainingStep(
            model=wrap_for_ddp(self.tower),
            optimizer=optimizer,
            scheduler=scheduler,
            amp_dtype=_autocast_dtype(config.precision, self.clip.logit_scale.device),
        )
        checkpoint = ClipCheckpoint(
            directory=self.output_dir,
            model=self.clip,
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
            evaluate=None if self.evaluate is None else self._evaluate,
            eval_period=config.eval_period or epoch,
        )

    def _clamp_scale(self, *_: Any) -> None:
        with torch.no_grad():
            self.clip.logit_scale.clamp_(0, MAX_LOGIT_SCALE)

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
            ValueError: if the run to continue has other settings.
        """
        start = self._begin(resume)
        self.tower.remember_texts(self.clip, self.dataset.texts, self.dataset.nouns)
        writers = self._open_writers(start) if comm.is_main_process() else []
        with ExitStack() as stack:
            for writer in writers:
                stack.callback(writer.close)
            if start == 0 and self.steps and self.evaluate is not None:
                figures = _flat(self._evaluate())
                for writer in writers:
                    writer.write(-1, figures)
            if start == 0 and self.steps:
                self._start_prompt()
            self.evaluation_seconds = 0.0
            began = time.perf_counter()
            self.trainer.run(self._batches(start), start=start, writers=writers)
            seconds = time.perf_counter() - began - self.evaluation_seconds
            self.trainer.finish(writers)
        self.clip.eval()
        pairs = (self.steps - start) * self.config.batch_size
        return {
            "steps": self.steps,
            "pairs_per_second": round(pairs / seconds, 1) if pairs else None,
            **self._figures(),
        }

    def _begin(self, resume: bool) -> int:
        """Restore the run in the folder or begin one; returns the first step."""
        settings = self.output_dir / "config.yaml"
        checkpoint = self.trainer.checkpoint
        if resume and latest_checkpoint(self.output_dir) is not None:
            _compare_settings(settings, self.config)
            return checkpoint.resume()
        checkpoint.forget()
        if comm.is_main_process():
            with atomic_path(settings) as partial:
                partial.write_text(self.config.to_yaml(), encoding="utf-8")
        return 0

    def _start_prompt(self) -> None:
        """Draw a prompt that was never trained; one of zeros is at a point without scale."""
        prompt = self.clip.visual.mask_embedding
        if not self.config.trains_prompt or has_trained_prompt(self.clip):
            return
        seed = derive_seed(self.config.seed, _PROMPT_STREAM)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.empty(prompt.shape).normal_(
            0.0, self.config.prompt_init_std, generator=generator
        )
        with torch.no_grad():
            prompt.copy_(drawn)

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

    def _open_writers(self, start: int) -> list[Writer]:
        config = yaml.safe_load(self.config.to_yaml())
        writers = make_writers(
            self.output_dir, start=start, wandb_project="ovseg", wandb_name=None, config=config
        )
        return list(writers)

    def _evaluate(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """Figures of the main process, in the form that the trainer takes."""
        assert self.evaluate is not None
        began = time.perf_counter()
        figures: Mapping[str, float] = {}
        if comm.is_main_process():
            figures = self.evaluate(self.clip)
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
        for line in (self.output_dir / "metrics.json").read_text("utf-8").splitlines():
            record = json.loads(line)
            figures = {k.removeprefix(prefix): v for k, v in record.items() if k.startswith(prefix)}
            if figures:
                evaluations.append((record["iteration"], figures))
        before = evaluations[0][1] if evaluations and evaluations[0][0] < 0 else None
        return {"before": before, "after": evaluations[-1][1] if evaluations else None}


def train_clip(
    config: ClipTrainConfig,
    clip: MaskPromptedCLIP,
    dataset: PairDataset,
    *,
    output_dir: str | Path,
    evaluate: Evaluate | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Adapt a CLIP to pairs, in place; see `ClipTrainer` and `ClipTrainer.run`.

    Args:
        config: the settings.
        clip: on its device, with the weights to start from.
        dataset: the pairs.
        output_dir: receives checkpoints, logs, and the result as `clip.safetensors`.
        evaluate: maps the CLIP to figures.
        resume: continue the run in the folder, if there is one.

    Returns:
        See `ClipTrainer.run`.
    """
    trainer = ClipTrainer(config, clip, dataset, output_dir=Path(output_dir), evaluate=evaluate)
    return trainer.run(resume=resume)


class _Batches:
    """A batch sampler over keys that are made when they are asked for."""

    def __init__(self, make: Callable[[], Iterator[list[SampleKey]]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[list[SampleKey]]:
        return self._make()


def _flat(results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    return {f"regions/clip/{name}": value for name, value in results["regions"]["clip"].items()}


def _autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision == "auto":
        gpu = device.type == "cuda"
        fast = torch.cuda.is_bf16_supported() if gpu else has_fast_bf16()
        precision = "bf16" if fast else "fp32"
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


def _compare_settings(path: Path, config: ClipTrainConfig) -> None:
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    now = yaml.safe_load(config.to_yaml())
    changed = [k for k in now if k not in _FREE and before.get(k) != now[k]]
    if changed:
        raise ValueError(
            f"{path} is of a run with other settings: "
            + ", ".join(f"{k} was {before.get(k)!r}, is {now[k]!r}" for k in changed)
            + "; choose another output folder, or continue with the settings of the file"
        )
