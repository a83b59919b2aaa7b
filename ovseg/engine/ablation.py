"""The paper's tables in miniature: how a CLIP is adapted, and what the whole system gains by it.

Source: OVSeg (Liang et al., CVPR 2023), tables 2 (data of fine-tuning), 3 (what is trained) and,
in the appendix, the comparison of both classifiers with their ensemble. All on tinyscapes, from its
pictures and captions; true labels are used only by the rows that say so.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from ovseg.clip import MaskPromptedCLIP
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.data.build import build_test_loader
from ovseg.data.tinyscapes import ALL_NAMES, render_scene, scene_groups
from ovseg.engine.ablation_pairs import collect_pairs
from ovseg.engine.clip_config import load_clip_config
from ovseg.engine.clip_training import train_clip
from ovseg.engine.crop_accuracy import crop_accuracy
from ovseg.engine.ensemble_sweep import (
    CLIP_ONLY,
    MASK_CLASSIFIER_ONLY,
    MaskedPicture,
    Setting,
    grouped_scores,
    propose,
    sweep,
)
from ovseg.modeling import OVSeg
from ovseg.modeling.region_classifier import RegionClassifier
from ovseg.modeling.weights import load_ovseg_weights
from ovseg.utils.files import atomic_path, sha256_of
from ovseg.utils.weights import load_strict, read_state_dict, write_safetensors
from ovseg.vocab import Vocabulary

__all__ = ["ROWS", "AblationSize", "Row", "run_seed"]

logger = logging.getLogger(__name__)

CONFIG = "ovseg_tiny"
WEIGHTS: tuple[float, ...] = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of its folder.
        label: what the table calls it.
        start: row whose CLIP it starts from; "" starts from the CLIP as it was trained.
        pairs: which pairs it is adapted on, see `ovseg.engine.ablation_pairs`; "" adapts nothing.
        mode: what is trained, "full" or "mask_prompt".
        prompted: whether CLIP sees the masks when it is measured.
    """

    name: str
    label: str
    start: str = ""
    pairs: str = ""
    mode: str = "full"
    prompted: bool = False


ROWS: tuple[Row, ...] = (
    Row("as_trained", "CLIP as trained"),
    Row("classes", "fine-tuned: true masks, class names (seen)", pairs="classes"),
    Row("true_masks", "fine-tuned: true masks (seen), nouns of 1 caption", pairs="true_masks"),
    Row("mined_1", "fine-tuned: proposals, nouns of 1 caption", pairs="mined_1"),
    Row("mined_5", "fine-tuned: proposals, nouns of 5 captions", pairs="mined_5"),
    Row("mutual", "the same, only pairs that chose each other", pairs="mutual"),
    Row("prompts", "mask prompts only", pairs="mined_1", mode="mask_prompt", prompted=True),
    Row(
        "both",
        "fine-tuned, then mask prompts",
        start="mined_1",
        pairs="mined_1",
        mode="mask_prompt",
        prompted=True,
    ),
    Row("longer", "control: fine-tuned for twice the steps", start="mined_1", pairs="mined_1"),
    Row("unmasked", "control: fine-tuned on unmasked boxes", pairs="unmasked"),
    Row("ceiling", "ceiling: true masks and names of all classes", pairs="all_classes"),
)


@dataclass(frozen=True)
class AblationSize:
    """How much of everything; the defaults fit three seeds into three hours on two cores.

    Attributes:
        pictures: training pictures that pairs are taken from.
        steps: optimizer steps of every row that trains.
        accuracy_scenes: scenes per split on which CLIP names ground-truth masks.
        val: scenes of the validation split for the whole system; all choices are made there.
        test: scenes of the test split.
    """

    pictures: int = 2000
    steps: int = 300
    accuracy_scenes: int = 300
    val: int = 300
    test: int = 500


RECIPES = {"full": "clip_tiny_ft", "mask_prompt": "clip_tiny_mpt"}


def run_seed(
    folder: Path,
    base: Path,
    *,
    seed: int,
    size: AblationSize,
    rows: Sequence[Row] = ROWS,
) -> dict[str, dict[str, Any]]:
    """Run every row on one base model; a row whose result is there already is kept.

    Args:
        folder: receives one folder per row, with `clip.safetensors` and `result.json`.
        base: weights of an OVSeg that was trained with this seed from nothing.
        seed: of the order of pairs and of the prompts.
        size: how much of everything.
        rows: the lines, each after the one it starts from.

    Returns:
        Results by name of a row.

    Raises:
        ValueError: if `folder` holds results of another base or another size.
    """
    stage = _Stage(folder, base, seed, size)
    results = {}
    for row in rows:
        setting = {"row": asdict(row), "size": asdict(size), "seed": seed, "base": stage.digest}
        finished = _finished(folder / row.name, setting)
        results[row.name] = finished or _run_row(row, stage, setting)
    return results


class _Stage:
    """The base model, and what all rows share: masks of the pictures, made when first needed."""

    def __init__(self, folder: Path, base: Path, seed: int, size: AblationSize) -> None:
        self.folder = folder
        self.seed = seed
        self.cfg = load_cfg(CONFIG, ["MODEL.WEIGHTS", str(base)])
        self.base = base
        self.size = size
        self.digest = sha256_of(base)
        self.vocabulary = Vocabulary.make(ALL_NAMES)
        self._pictures: dict[str, list[MaskedPicture]] = {}

    def model(self) -> OVSeg:
        """The base model with its own CLIP."""
        model = build_model(self.cfg)
        assert isinstance(model, OVSeg)
        load_ovseg_weights(model, self.base)
        return model.eval()

    def pictures(self, split: str) -> list[MaskedPicture]:
        """First-stage results; the CLIP's adaptation leaves them as they are (text is locked)."""
        if split not in self._pictures:
            loader = build_test_loader(self.cfg, f"tinyscapes_{split}_sem_seg")
            batches = islice(loader, getattr(self.size, split))  # one picture a batch
            self._pictures[split] = list(propose(self.model(), batches, self.vocabulary))
        return self._pictures[split]


def _run_row(row: Row, stage: _Stage, setting: Mapping[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    model = stage.model()
    clip = model.clip_adapter.clip_model
    if row.start:
        load_strict(clip, read_state_dict(stage.folder / row.start / "clip.safetensors"))
    training = _adapt(clip, row, stage) if row.pairs else {}
    clip.requires_grad_(False).eval()
    trained = time.perf_counter()
    target = stage.folder / row.name
    write_safetensors(target / "clip.safetensors", clip.state_dict())
    model.clip_adapter.mask_prompt = row.prompted
    result: dict[str, Any] = {
        **setting,
        "training": training,
        "accuracy": {s: _accuracy(clip, row, s, stage.size) for s in ("val", "test")},
        "system": {s: _system(model, stage, s) for s in ("val", "test")},
        "seconds": {"training": trained - began, "evaluation": time.perf_counter() - trained},
    }
    result["chosen_weight"] = _best_weight(result["system"]["val"])
    with atomic_path(target / "result.json") as partial:
        partial.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    logger.info("%s: %s", row.name, _headline(result))
    return result


def _adapt(clip: MaskPromptedCLIP, row: Row, stage: _Stage) -> dict[str, Any]:
    """Train the CLIP in place as the row says; the length is the same for every row."""
    recipe = load_clip_config(
        RECIPES[row.mode], {"steps": stage.size.steps, "seed": stage.seed, "workers": 0}
    )
    pairs = collect_pairs(
        row.pairs,
        folder=stage.folder,
        base=stage.base,
        pictures=stage.size.pictures,
        image_size=clip.image_size,
        seed=stage.seed,
    )
    train_clip(recipe, clip, pairs, output_dir=stage.folder / row.name / "training", resume=True)
    return {"pairs": len(pairs), "nouns": len(set(pairs.nouns)), "recipe": RECIPES[row.mode]}


def _accuracy(clip: MaskPromptedCLIP, row: Row, split: str, size: AblationSize) -> dict[str, float]:
    """Accuracy on ground-truth masks, see `crop_accuracy`."""
    scenes = (render_scene(split, index) for index in range(size.accuracy_scenes))
    pictures = (
        (torch.from_numpy(s.image).permute(2, 0, 1).float(), torch.from_numpy(s.labels))
        for s in scenes
    )
    classifier = RegionClassifier(clip_model=clip, mask_prompt=row.prompted)
    return crop_accuracy(classifier, pictures, Vocabulary.make(ALL_NAMES), groups=scene_groups())


def _system(model: OVSeg, stage: _Stage, split: str) -> dict[str, dict[str, float]]:
    """mIoU of both classifiers and of their ensemble under every weight."""
    settings: list[Setting] = [MASK_CLASSIFIER_ONLY, CLIP_ONLY, *WEIGHTS]
    counts = sweep(model, stage.pictures(split), stage.vocabulary, settings)
    groups = scene_groups()
    groups["seen"] = groups["seen_things"] + groups["seen_stuff"]
    groups["unseen"] = groups["unseen_things"] + groups["unseen_stuff"]
    return {str(s): grouped_scores(m, ALL_NAMES, groups) for s, m in counts.items()}


def _best_weight(system: Mapping[str, Mapping[str, float]]) -> float:
    return max(WEIGHTS, key=lambda weight: system[str(weight)]["mIoU"])


def _headline(result: Mapping[str, Any]) -> str:
    accuracy, system = result["accuracy"]["val"], result["system"]["val"]
    ensemble = system[str(result["chosen_weight"])]
    return (
        f"val: masked crops {accuracy['masked/all']:.1f}, unseen things "
        f"{accuracy['masked/unseen_things']:.1f}; mIoU {ensemble['mIoU']:.1f}, unseen "
        f"{ensemble['mIoU-unseen']:.1f}"
    )


def _finished(target: Path, setting: Mapping[str, Any]) -> dict[str, Any] | None:
    file = target / "result.json"
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for key, expected in setting.items():
        if result[key] != expected:
            raise ValueError(
                f"{file}: expected a result of {key} {expected}, got one of {result[key]}; remove "
                "it or choose another folder"
            )
    return result
