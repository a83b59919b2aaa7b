"""Contrastive training from nothing, on image-text pairs drawn on the fly: of a small CLIP, and of
a segmentation backbone beside its text tower.

The loss is open_clip's `ClipLoss` (Radford et al. 2021, section 2.3). The matrices of the
transformer blocks are stepped by Muon, everything else by AdamW.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip.loss import ClipLoss
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, MaskPromptedCLIP, tokenize
from ovseg.d2.modeling import Backbone
from ovseg.training.attention import attention_for_training
from ovseg.training.muon import MuonAdamW
from ovseg.utils.files import atomic_path

logger = logging.getLogger(__name__)

MAX_LOGIT_SCALE = math.log(100)


@dataclass(frozen=True)
class PretrainConfig:
    """Hyper-parameters of one contrastive pretraining run.

    Attributes:
        steps: optimizer steps; the run sees `steps * batch_size` pairs, each of them once.
        batch_size: pairs per step; each pair is the negative of all others.
        lr: peak learning rate of both optimizers (Muon's update is scaled to AdamW's size).
        weight_decay: decoupled weight decay of the block matrices; all else has none.
        warmup: steps of linear warm-up before the cosine.
        bf16: run the towers under bfloat16 autocast; None chooses it where the CPU has it in
            hardware.
        first_pair: index in the stream of pairs of the first one that is used.
        seed: of the initial weights; pair `i` of the stream does not depend on it.
        checkpoint_period: steps between two checkpoints.
        log_period: steps between two log lines.
        workers: processes that draw pairs ahead of training.
    """

    steps: int = 2000
    batch_size: int = 128
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: int = 100
    bf16: bool | None = None
    first_pair: int = 0
    seed: int = 0
    checkpoint_period: int = 200
    log_period: int = 50
    workers: int = 1


class PairStream(Dataset):
    """Pair `i` of a deterministic stream, tokenised and ready to batch.

    Args:
        render: maps an index to an image `(S, S, 3)` uint8 RGB and its caption.
        length: pairs in the stream.
        context_length: length of a token row.
    """

    def __init__(
        self,
        render: Callable[[int], tuple[np.ndarray, str]],
        *,
        length: int,
        context_length: int = 77,
    ) -> None:
        self.render = render
        self.length = length
        self.context_length = context_length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image, caption = self.render(index)
        tokens = tokenize([caption], context_length=self.context_length)[0]
        return torch.from_numpy(image.transpose(2, 0, 1).copy()), tokens


class BackboneTower(nn.Module):
    """A segmentation backbone as the image tower beside a trained, frozen text tower.

    What full-size models get from pretraining on ImageNet-22k, a small one gets from this: it
    learns to tell things apart before it learns to cut them out.

    Args:
        backbone: its last feature map is averaged and projected to the text's space.
        clip: gives the text features; frozen.
        pixel_mean: RGB mean that the backbone is used with, 0-255.
        pixel_std: RGB standard deviation likewise.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        clip: MaskPromptedCLIP,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.clip = clip.requires_grad_(False)
        self.last, shape = list(backbone.output_shape().items())[-1]
        assert shape.channels is not None  # every backbone states them
        self.projection = nn.Linear(shape.channels, clip.embed_dim, bias=False)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        scale = torch.tensor(CLIP_PIXEL_STD) / torch.tensor(pixel_std)
        shift = (torch.tensor(CLIP_PIXEL_MEAN) - torch.tensor(pixel_mean)) / torch.tensor(pixel_std)
        self.register_buffer("scale", scale.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.view(1, 3, 1, 1), persistent=False)

    def encode_image(self, images: Tensor) -> Tensor:
        """Images (N, 3, H, W), normalised for CLIP, to (N, D)."""
        features = self.backbone(images * self.scale + self.shift)[self.last]  # (N, C, h, w)
        return self.projection(features.mean((2, 3)))

    def encode_text(self, text: Tensor) -> Tensor:
        """Tokens (N, L) to (N, D), without a gradient."""
        with torch.no_grad():
            return self.clip.encode_text(text)


Towers = MaskPromptedCLIP | BackboneTower


def normalise_images(images: Tensor) -> Tensor:
    """RGB `(N, 3, S, S)` in 0-255 -> CLIP's normalised float32 input."""
    mean = torch.tensor(CLIP_PIXEL_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(CLIP_PIXEL_STD, device=images.device).view(1, 3, 1, 1)
    return (images.float() - mean) / std


def make_optimizer(towers: Towers, config: PretrainConfig) -> MuonAdamW:
    """Muon for the matrices of the transformer blocks, AdamW for all other parameters."""
    blocks: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in towers.named_parameters():
        if parameter.requires_grad:
            matrix = "blocks." in name and name.endswith("weight") and parameter.ndim == 2
            (blocks if matrix else others).append(parameter)
    return MuonAdamW(
        matrices=_group(blocks, config.lr, config.weight_decay),
        others=_group(others, config.lr, 0.0),
        betas=(0.9, 0.98),
        eps=1e-6,
    )


def _group(parameters: list[Tensor], lr: float, weight_decay: float) -> list[dict[str, Any]]:
    return [{"params": parameters, "lr": lr, "weight_decay": weight_decay}] if parameters else []


def learning_rate(step: int, config: PretrainConfig) -> float:
    """Linear warm-up, then a cosine to zero at `config.steps`."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return 0.5 * config.lr * (1 + math.cos(math.pi * progress))


def pretrain(
    towers: Towers,
    render: Callable[[int], tuple[np.ndarray, str]],
    *,
    config: PretrainConfig,
    output_dir: Path,
    evaluate: Callable[[], dict[str, float]] | None = None,
) -> None:
    """Train two towers in place; a checkpoint left by an interrupted run is continued.

    Args:
        towers: a CLIP, or a backbone beside the text tower of one.
        render: pair `i` of the stream, see `PairStream`.
        config: hyper-parameters.
        output_dir: receives `checkpoint.pt` and `log.jsonl`.
        evaluate: called at the end, with the towers in eval mode; its figures are logged.

    Raises:
        FloatingPointError: if the loss stops being finite.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    optimizer = make_optimizer(towers, config)
    start = _resume(towers, optimizer, config, output_dir / "checkpoint.pt")
    bf16 = config.bf16 if config.bf16 is not None else has_fast_bf16()
    logger.info("Contrastive pretraining: steps %d to %d, bfloat16 %s", start, config.steps, bf16)
    loss_of = ClipLoss(cache_labels=True)
    towers.train()
    began = time.perf_counter()
    batches = _batches(render, config, start)
    for step, (images, tokens) in zip(range(start, config.steps), batches, strict=True):
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, config)
        autocast = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16)
        with autocast, attention_for_training(images.device):
            image_rows = towers.encode_image(normalise_images(images))
            text_rows = towers.encode_text(tokens)
        loss = loss_of(
            F.normalize(image_rows.float(), dim=-1),
            F.normalize(text_rows.float(), dim=-1),
            towers.logit_scale.exp(),
        )
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"Contrastive pretraining: loss is {loss.item()} at step {step}"
            )
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            towers.logit_scale.clamp_(0, MAX_LOGIT_SCALE)
        if (step + 1) % config.log_period == 0:
            _log_step(output_dir, step + 1, loss.item(), config, start, began)
        if (step + 1) % config.checkpoint_period == 0 or step + 1 == config.steps:
            _save(towers, optimizer, config, step + 1, output_dir / "checkpoint.pt")
    towers.eval()
    if evaluate is not None:
        figures = evaluate()
        logger.info("Contrastive pretraining done: %s", figures)
        _append(output_dir, {"step": config.steps, **figures})


def _batches(
    render: Callable[[int], tuple[np.ndarray, str]], config: PretrainConfig, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    end = config.first_pair + config.steps * config.batch_size
    stream = PairStream(render, length=end)
    order = range(config.first_pair + start * config.batch_size, end)
    loader = DataLoader(
        stream,
        batch_size=config.batch_size,
        sampler=order,
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
    )
    return iter(loader)


def has_fast_bf16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware; elsewhere it would be slower."""
    return bool(torch.cpu._is_avx512_bf16_supported())


def _log_step(
    output_dir: Path, step: int, loss: float, config: PretrainConfig, start: int, began: float
) -> None:
    seconds = (time.perf_counter() - began) / (step - start)
    eta = seconds * (config.steps - step)
    logger.info(
        "step %d/%d  loss %.3f  %.0f pairs/s  eta %d:%02d",
        step,
        config.steps,
        loss,
        config.batch_size / seconds,
        *divmod(int(eta), 60),
    )
    _append(output_dir, {"step": step, "loss": loss, "seconds_per_step": seconds})


def _append(output_dir: Path, record: dict[str, float]) -> None:
    with (output_dir / "log.jsonl").open("a") as file:
        file.write(json.dumps(record) + "\n")


def _save(
    towers: Towers,
    optimizer: torch.optim.Optimizer,
    config: PretrainConfig,
    step: int,
    path: Path,
) -> None:
    with atomic_path(path) as temporary:
        torch.save(
            {
                "model": towers.state_dict(),
                "optimizer": optimizer.state_dict(),
                "config": asdict(config),
                "step": step,
            },
            temporary,
        )


def _resume(
    towers: Towers,
    optimizer: torch.optim.Optimizer,
    config: PretrainConfig,
    path: Path,
) -> int:
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["config"] != asdict(config):
        raise ValueError(
            f"{path} was written with other settings ({state['config']}) than those asked for "
            f"({asdict(config)}); remove it or choose another output folder"
        )
    towers.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])
