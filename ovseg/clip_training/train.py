"""Training a CLIP on regions or captions.

Adapting CLIP to masked regions follows Liang et al., "Open-Vocabulary Semantic Segmentation with
Mask-adapted CLIP" (CVPR 2023), sections 3.2 and 3.3. The text tower is locked there, and the
temperature `logit_scale` is trained: it is stored with the result, but segmentation compares at a
fixed one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ovseg.clip import MaskPromptedCLIP
from ovseg.clip_training.accuracy import has_trained_prompt
from ovseg.clip_training.captions import CaptionPairs
from ovseg.clip_training.config import ClipTrainConfig
from ovseg.clip_training.model import ContrastiveModel, LockedTexts, TextTower
from ovseg.clip_training.parameters import set_trainable
from ovseg.clip_training.trainer import ContrastiveTrainer
from ovseg.data.pairs import PairDataset
from ovseg.training.randomness import derive_seed

__all__ = ["RESULT_NAME", "Evaluate", "train_clip"]

RESULT_NAME = "clip.safetensors"
_PROMPT_STREAM = 11

Evaluate = Callable[[MaskPromptedCLIP], Mapping[str, float]]


def train_clip(
    config: ClipTrainConfig,
    clip: MaskPromptedCLIP,
    dataset: PairDataset | CaptionPairs,
    *,
    output_dir: str | Path,
    evaluate: Evaluate | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Train a CLIP on pairs, in place, as the config's `mode` says.

    Args:
        config: the settings.
        clip: on its device, with the weights to start from.
        dataset: the pairs; where the text tower is locked and their texts are known, each text is
            encoded once.
        output_dir: receives checkpoints, logs, and the result as `clip.safetensors`.
        evaluate: maps the CLIP to figures; called by the main process before the first step and
            after every epoch. None never evaluates.
        resume: continue the run in the folder, if there is one.

    Returns:
        See `ContrastiveTrainer.run`.

    Raises:
        ValueError: if the pairs do not fill one batch, or the CLIP lacks the prompt to train.
        AnotherRunError: if the run to continue has other settings.
    """
    set_trainable(clip, config.mode)
    clip.visual.set_grad_checkpointing(config.grad_checkpointing)
    locked = LockedTexts(clip)
    known = isinstance(dataset, PairDataset) and config.mode != "towers"
    model = ContrastiveModel(
        image_tower=clip.visual,
        text_tower=locked if known else TextTower(clip),
        logit_scale=clip.logit_scale,
        use_masks=config.trains_prompt or has_trained_prompt(clip),
        duplicates=config.duplicates,
        recomputed=config.grad_checkpointing,
    )

    def begin(start: int) -> None:
        if isinstance(dataset, PairDataset):
            locked.encode(dataset.texts)
        if start == 0 and config.trains_prompt and not has_trained_prompt(clip):
            _draw_prompt(clip, config)

    trainer = ContrastiveTrainer(
        config,
        model,
        dataset,
        owner=clip,
        output_dir=Path(output_dir),
        result_name=RESULT_NAME,
        evaluate=None if evaluate is None else partial(evaluate, clip),
        begin=begin,
    )
    result = trainer.run(resume=resume)
    clip.eval()
    return result


def _draw_prompt(clip: MaskPromptedCLIP, config: ClipTrainConfig) -> None:
    """Draw a prompt that was never trained; one of zeros is at a point without scale."""
    prompt = clip.visual.mask_embedding
    generator = torch.Generator().manual_seed(derive_seed(config.seed, _PROMPT_STREAM))
    drawn = torch.empty(prompt.shape).normal_(0.0, config.prompt_init_std, generator=generator)
    with torch.no_grad():
        prompt.copy_(drawn)
