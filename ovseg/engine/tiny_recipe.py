"""The steps that make the bundled model from nothing; `tools/build_tiny.py` runs them in order."""

from __future__ import annotations

from pathlib import Path

import torch

from ovseg.clip import MaskPromptedCLIP, build_clip
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_backbone
from ovseg.data.tinyscapes import render_pair, world_version
from ovseg.engine.checkpoint import averaged_state, latest_checkpoint, read_checkpoint
from ovseg.engine.clip_pretraining import BackboneTower, PretrainConfig, pretrain
from ovseg.engine.crop_accuracy import tiny_crop_accuracy
from ovseg.utils.weights import load_strict, read_state_dict, write_safetensors

CONFIG = "ovseg_tiny"


def new_clip() -> MaskPromptedCLIP:
    """The small CLIP with random weights."""
    adapter = load_cfg(CONFIG).MODEL.CLIP_ADAPTER
    return build_clip(adapter.CLIP_MODEL_NAME, mask_prompt_depth=adapter.MASK_PROMPT_DEPTH)


def train_clip(folder: Path, config: PretrainConfig) -> Path:
    """Train the small CLIP on the captioned pictures of tinyscapes.

    Args:
        folder: where its weight file goes; one that is there already is kept.
        config: length, batch size, seed.

    Returns:
        The weight file.
    """
    target = folder / "clip.safetensors"
    if not target.exists():
        torch.manual_seed(config.seed)
        clip = new_clip()
        pretrain(
            clip,
            render_pair,
            config=config,
            output_dir=folder / "clip",
            evaluate=lambda: tiny_crop_accuracy(clip),
        )
        write_safetensors(target, clip.state_dict(), metadata={"world": world_version()})
    return target


def train_backbone(folder: Path, clip_file: Path, config: PretrainConfig) -> Path:
    """Train the backbone on captioned pictures, beside the text tower of the trained CLIP.

    Args:
        folder: where its weight file goes; one that is there already is kept.
        clip_file: weights of the trained CLIP.
        config: length, batch size, seed, and which pictures.

    Returns:
        The weight file, under the names of the whole model.
    """
    target = folder / "backbone.safetensors"
    if not target.exists():
        cfg = load_cfg(CONFIG)
        torch.manual_seed(config.seed)
        clip = new_clip()
        load_strict(clip, read_state_dict(clip_file))
        towers = BackboneTower(
            backbone=build_backbone(cfg),
            clip=clip,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
        )
        pretrain(towers, render_pair, config=config, output_dir=folder / "backbone")
        state = {f"backbone.{k}": v for k, v in towers.backbone.state_dict().items()}
        write_safetensors(target, state, metadata={"world": world_version()})
    return target


def export_half(run: Path, target: Path, *, seed: int) -> None:
    """Write the last checkpoint of a training run in half precision, the form that is bundled.

    Args:
        run: the run's output folder.
        target: the file to write.
        seed: of the run, for the file's metadata.

    Raises:
        FileNotFoundError: if the run has left no checkpoint.
    """
    checkpoint = latest_checkpoint(run)
    if checkpoint is None:
        raise FileNotFoundError(f"{run}: expected a checkpoint of the training run, found none")
    state = averaged_state(read_checkpoint(checkpoint))
    half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    metadata = {"world": world_version(), "seed": str(seed), "license": "Apache-2.0"}
    write_safetensors(target, half, metadata=metadata)
