"""The steps that make the bundled model from nothing; `tools/build_tiny.py` runs them in order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ovseg.clip import MaskPromptedCLIP, build_clip
from ovseg.clip.adapted import replace_clip
from ovseg.clip_training.captions import CaptionPairs
from ovseg.clip_training.config import ClipTrainConfig, load_clip_config
from ovseg.clip_training.model import BackboneTower
from ovseg.clip_training.train import train_backbone as train_tower
from ovseg.clip_training.train import train_clip as train_clip_on_pairs
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_backbone
from ovseg.tinyscapes import VERSION, render_pair
from ovseg.tinyscapes.ablation_pairs import collect_pairs
from ovseg.tinyscapes.accuracy import crop_accuracy
from ovseg.training.checkpoint import averaged_state, latest_checkpoint, read_checkpoint
from ovseg.weights.clip import CLIP_IN_OVSEG
from ovseg.weights.load import load_strict, read_state_dict, write_safetensors

CONFIG = "ovseg_tiny"
FROM_NOTHING, BACKBONE = "clip_tiny_from_nothing", "clip_tiny_backbone"


@dataclass(frozen=True)
class AdaptationSize:
    """How the CLIP of the bundled model is adapted; chosen on the validation split.

    Attributes:
        pairs: which pairs, see `ovseg.tinyscapes.ablation_pairs`.
        pictures: training pictures that they are mined from.
        recipes: what is trained, one after the other.
        steps: optimizer steps of each.
    """

    pairs: str = "mutual"
    pictures: int = 2000
    recipes: tuple[str, ...] = ("clip_tiny_ft",)
    steps: int = 300


def new_clip() -> MaskPromptedCLIP:
    """The small CLIP with random weights."""
    adapter = load_cfg(CONFIG).MODEL.CLIP_ADAPTER
    return build_clip(adapter.CLIP_MODEL_NAME, mask_prompt_depth=adapter.MASK_PROMPT_DEPTH)


def train_clip(folder: Path, *, seed: int) -> Path:
    """Train the small CLIP on the captioned pictures of tinyscapes.

    Args:
        folder: where its weight file goes; one that is there already is kept.
        seed: of the initial weights.

    Returns:
        The weight file.
    """
    target = folder / "clip.safetensors"
    if not target.exists():
        config = load_clip_config(FROM_NOTHING, {"seed": seed})
        torch.manual_seed(seed)
        clip = new_clip()
        train_clip_on_pairs(
            config,
            clip,
            _captions(config, clip.image_size),
            output_dir=folder / "clip",
            evaluate=crop_accuracy,
            resume=True,
        )
        write_safetensors(target, clip.state_dict(), metadata={"world": VERSION})
    return target


def train_backbone(folder: Path, clip_file: Path, *, seed: int) -> Path:
    """Train the backbone on captioned pictures, beside the text tower of the trained CLIP.

    Args:
        folder: where its weight file goes; one that is there already is kept.
        clip_file: weights of the trained CLIP.
        seed: of the initial weights.

    Returns:
        The weight file, under the names of the whole model.
    """
    target = folder / "backbone.safetensors"
    if not target.exists():
        cfg = load_cfg(CONFIG)
        torch.manual_seed(seed)
        clip = new_clip()
        load_strict(clip, read_state_dict(clip_file))
        tower = BackboneTower(
            backbone=build_backbone(cfg),
            embed_dim=clip.embed_dim,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
        )
        config = load_clip_config(BACKBONE, {"seed": seed})
        seen = len(_captions(load_clip_config(FROM_NOTHING), clip.image_size))
        pairs = _captions(config, clip.image_size, first=seen)  # pictures that CLIP did not see
        train_tower(config, tower, clip, pairs, output_dir=folder / "backbone", resume=True)
        state = {f"backbone.{k}": v for k, v in tower.backbone.state_dict().items()}
        write_safetensors(target, state, metadata={"world": VERSION})
    return target


def _captions(
    config: ClipTrainConfig, image_size: tuple[int, int], *, first: int = 0
) -> CaptionPairs:
    """As many captioned pictures as a run takes."""
    assert config.steps is not None  # the recipes say how many
    count = config.steps * config.batch_size
    return CaptionPairs(render_pair, count=count, image_size=image_size, first=first)


def adapt_clip(folder: Path, base: Path, *, seed: int, size: AdaptationSize) -> Path:
    """Mine pairs from training captions with a model, and adapt its CLIP to them.

    Args:
        folder: where pairs, training and result go; what is there already is kept.
        base: weights of the model, with the CLIP as it was trained.
        seed: of the order of pairs.
        size: which pairs, and how long.

    Returns:
        The file of the whole model with the adapted CLIP.
    """
    target = folder / "ovseg_tiny.safetensors"
    if not target.exists():
        state = read_state_dict(base)
        clip = new_clip()
        inside = {n.removeprefix(CLIP_IN_OVSEG): t for n, t in state.items()}
        load_strict(clip, {name: inside[name] for name in clip.state_dict()})
        pairs = collect_pairs(
            size.pairs,
            folder=folder,
            base=base,
            pictures=size.pictures,
            image_size=clip.image_size,
            seed=seed,
        )
        for recipe in size.recipes:
            settings = {"steps": size.steps, "seed": seed, "workers": 0}
            config = load_clip_config(recipe, settings)
            train_clip_on_pairs(config, clip, pairs, output_dir=folder / recipe, resume=True)
        metadata = {"world": VERSION, "seed": str(seed), "license": "Apache-2.0"}
        write_safetensors(target, replace_clip(state, clip.state_dict()).state, metadata=metadata)
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
    metadata = {"world": VERSION, "seed": str(seed), "license": "Apache-2.0"}
    write_safetensors(target, half, metadata=metadata)
