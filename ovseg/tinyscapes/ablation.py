"""The paper's tables in miniature: how a CLIP is adapted, and what the whole system gains by it.

Source: OVSeg (Liang et al., CVPR 2023), tables 2 (data of fine-tuning), 3 (what is trained) and,
in the appendix, the comparison of both classifiers with their ensemble. All on tinyscapes, from its
pictures and captions; true labels are used only by the rows that say so.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ovseg.clip import MaskPromptedCLIP
from ovseg.clip_training.accuracy import proposal_scores, top_accuracy
from ovseg.clip_training.config import load_clip_config
from ovseg.clip_training.train import train_clip
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.data.loaders import build_test_loader
from ovseg.modeling.ovseg import OVSeg
from ovseg.readers.documents import read_json
from ovseg.tinyscapes import ALL_NAMES, scene_groups
from ovseg.tinyscapes.ablation_pairs import collect_pairs
from ovseg.tinyscapes.accuracy import crop_accuracy, macro_accuracy
from ovseg.tuning.sweep import (
    CLIP_ONLY,
    MASK_CLASSIFIER_ONLY,
    LabelledEncoding,
    Setting,
    encode_all,
    grouped_scores,
    sweep,
)
from ovseg.utils.files import sha256_of, write_json
from ovseg.utils.run_record import RunRecord
from ovseg.vocab import Vocabulary
from ovseg.weights.load import load_strict, read_state_dict, write_safetensors

__all__ = ["ROWS", "AblationSize", "Row", "SeedStage", "run_row"]

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
        pairs: which pairs it is adapted on, see `tinyscapes.ablation_pairs`; "" adapts nothing.
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
    Row("adaptation", "fine-tuned: the bundled model's pairs", pairs="adaptation"),
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
    """How much of everything.

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
ADAPTATION = "clip_tiny_adapt"  # of the row with such pairs


class SeedStage:
    """The base model of a seed, and what its rows share: masks of the pictures, when first needed.

    Args:
        folder: receives one folder per row, with `clip.safetensors` and `result.json`.
        base: weights of an OVSeg that was trained with this seed from nothing.
        seed: of the order of pairs and of the prompts.
        size: how much of everything.
    """

    def __init__(self, folder: Path, base: Path, seed: int, size: AblationSize) -> None:
        self.folder = folder
        self.seed = seed
        self.cfg = load_cfg(CONFIG, ["MODEL.WEIGHTS", str(base)])
        self.base = base
        self.size = size
        self.digest = sha256_of(base)
        self.vocabulary = Vocabulary.make(ALL_NAMES)
        self._pictures: dict[str, list[LabelledEncoding]] = {}

    def model(self) -> OVSeg:
        """The base model with its own CLIP."""
        model = build_model(self.cfg)
        assert isinstance(model, OVSeg)
        model.load_weights(self.base)
        return model.eval()

    def pictures(self, split: str) -> list[LabelledEncoding]:
        """First-stage results; the CLIP's adaptation leaves them as they are (text is locked)."""
        if split not in self._pictures:
            loader = build_test_loader(self.cfg, f"tinyscapes_{split}_sem_seg")
            batches = islice(loader, getattr(self.size, split))  # one picture a batch
            self._pictures[split] = list(encode_all(self.model(), batches))
        return self._pictures[split]


def run_row(row: Row, stage: SeedStage) -> dict[str, Any]:
    """Adapt CLIP as a row says and measure it; a result that is there already is kept.

    Args:
        row: the row that it starts from must have been run.
        stage: of the seed.

    Returns:
        What `result.json` holds: "training", "accuracy" and "system" by split, "chosen_weight".

    Raises:
        AnotherRunError: if the folder holds a result of another base or another size.
    """
    size = asdict(stage.size)
    setting = {"row": asdict(row), "size": size, "seed": stage.seed, "base": stage.digest}
    target = stage.folder / row.name
    finished = _finished(target, setting)
    if finished:
        return finished
    began = time.perf_counter()
    model = stage.model()
    clip = model.clip_adapter.clip_model
    if row.start:
        load_strict(clip, read_state_dict(stage.folder / row.start / "clip.safetensors"))
    training = _adapt(clip, row, stage) if row.pairs else {}
    trained = time.perf_counter()
    write_safetensors(target / "clip.safetensors", clip.state_dict())
    result: dict[str, Any] = {**setting, "training": training, **measure(model, row, stage)}
    result["seconds"] = {
        "training": trained - began,
        "evaluation": time.perf_counter() - trained,
    }
    write_json(target / "result.json", result)
    logger.info("seed %d, %s: %s", stage.seed, row.name, _headline(result))
    return _finished(target, setting) or result  # as it will be read the next time


def measure(model: OVSeg, row: Row, stage: SeedStage) -> dict[str, Any]:
    """Measure a model on val and test: the part of a row's result that training is not.

    Args:
        model: with the row's CLIP.
        row: says whether CLIP sees the masks.
        stage: of the seed.

    Returns:
        "accuracy" and "system" by split, and "chosen_weight".
    """
    model.clip_adapter.mask_prompt = row.prompted
    clip = model.clip_adapter.clip_model.requires_grad_(False).eval()
    accuracy, system = {}, {}
    for split in ("val", "test"):
        on_proposals, system[split] = _system(model, stage, split)
        count = stage.size.accuracy_scenes
        on_masks = crop_accuracy(clip, split=split, count=count, mask_prompt=row.prompted)
        accuracy[split] = on_masks | on_proposals
    return {"accuracy": accuracy, "system": system, "chosen_weight": _best_weight(system["val"])}


def _adapt(clip: MaskPromptedCLIP, row: Row, stage: SeedStage) -> dict[str, Any]:
    """Train the CLIP in place as the row says; the length is the same for every row."""
    name = ADAPTATION if row.pairs == "adaptation" else RECIPES[row.mode]
    settings = {"steps": stage.size.steps, "seed": stage.seed, "workers": 0}
    recipe = load_clip_config(name, settings)
    pairs = collect_pairs(
        row.pairs,
        folder=stage.folder,
        base=stage.base,
        pictures=stage.size.pictures,
        image_size=clip.image_size,
        config=recipe,
    )
    train_clip(recipe, clip, pairs, output_dir=stage.folder / row.name / "training", resume=True)
    return {"pairs": len(pairs), "nouns": len(set(pairs.nouns)), "recipe": name}


def _system(
    model: OVSeg, stage: SeedStage, split: str
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """CLIP's accuracy on proposals, and mIoU of both classifiers and of the ensemble's weights."""
    groups = scene_groups()
    scores, targets = [], []
    settings: list[Setting] = [MASK_CLASSIFIER_ONLY, CLIP_ONLY, *WEIGHTS]
    size = len(ALL_NAMES) + 1
    counts = {setting: np.zeros((size, size), dtype=np.int64) for setting in settings}
    for encoded, labels in stage.pictures(split):
        picture = LabelledEncoding(replace(encoded, regions={}), labels)  # seen by this row's CLIP
        for setting, matrix in sweep(model, picture, stage.vocabulary, settings).items():
            counts[setting] += matrix
        prediction = model.decode(picture.encoding, stage.vocabulary)
        named, shown = proposal_scores(prediction, torch.from_numpy(labels))
        scores.append(named)
        targets.append(shown)
    figures = top_accuracy(torch.cat(scores), torch.cat(targets), groups=groups)
    on_proposals = macro_accuracy(figures, "proposals")
    groups["seen"] = groups["seen_things"] + groups["seen_stuff"]
    groups["unseen"] = groups["unseen_things"] + groups["unseen_stuff"]
    return on_proposals, {str(s): grouped_scores(m, ALL_NAMES, groups) for s, m in counts.items()}


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
    result: dict[str, Any] = read_json(file)
    record = RunRecord(
        setting, what="row of the ablation", remedy="remove it or choose another folder"
    )
    record.check({key: result.get(key) for key in setting}, file)
    return result
