"""How each kind of recording of upstream OVSeg is replayed.

A kind is told from what its index entry holds, so that another folder of recordings may have cases
with other names, seeds, sizes and class names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ovseg.clip import OPENAI_NAMES, build_clip, tokenize
from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_backbone, build_model
from ovseg.d2.structures import Instances
from ovseg.modeling.encoding import RegionFeatures
from ovseg.modeling.matcher import HungarianMatcher
from ovseg.modeling.ovseg import OVSeg
from ovseg.vocab import TEMPLATE_NAMES, Vocabulary
from tests.parity.fill import fill
from tests.parity.recordings import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    SCORE_TOLERANCE,
    Case,
    Recordings,
    assert_equal,
    assert_matches,
)

MASK_PROMPT_DEPTH = 3


def tiny_cfg(recordings: Recordings, folder: Path, opts: list[Any]) -> CfgNode:
    """The small configuration behind the recordings, with a case's overrides."""
    index = recordings.index
    clip_config = folder / "clip.json"
    clip_config.write_text(json.dumps(index["tiny_clip"]), encoding="utf-8")
    clip = ["MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME", str(clip_config)]
    return load_cfg("ovseg_swinB", [*index["base_opts"], *clip, *opts])


def tiny_model(recordings: Recordings, folder: Path, opts: list[Any]) -> OVSeg:
    model = build_model(tiny_cfg(recordings, folder, opts))
    fill(model)
    return model


def run_forward(case: Case, folder: Path) -> None:
    opts = ["MODEL.META_ARCHITECTURE", case.entry["arch"], "TEST.OUTPUT", "sem_seg"]
    model = tiny_model(case.recordings, folder, opts + case.entry["opts"]).eval()
    image, recorded = case.tensor("image"), case.tensor("sem_seg")
    height, width = recorded.shape[1:]
    x = {"image": image, "height": height, "width": width}
    vocabulary = Vocabulary.make(case.entry["class_names"], templates=model.templates)
    seen = spy(model)
    [result] = model([x], vocabulary)

    for name, value in seen["features"].items():
        if f"backbone_{name}" in case.arrays:
            assert_matches(value, case.tensor(f"backbone_{name}"), f"backbone {name}")
    for key, name in (("pred_embeddings", "pred_logits"), ("pred_masks", "pred_masks")):
        if key in case.arrays:
            assert_matches(seen["outputs"][name], case.tensor(key), key)
    if "clip_valid" in case.arrays:
        compare_clip(case, model, seen)
    # A single class is told apart from an internal second one, which the original also returned.
    assert recorded.shape[0] in (len(vocabulary), max(len(vocabulary), 2))
    scores, recorded = result["sem_seg"], recorded[: len(vocabulary)]
    assert_matches(scores, recorded, "sem_seg")
    # Scores can be so small that the absolute floor of the tolerance hides them.
    error = (scores - recorded).abs().max() / recorded.abs().max().clamp(min=1e-30)
    assert error <= SCORE_TOLERANCE, f"sem_seg: largest relative difference {error:.3g}"


def spy(model: OVSeg) -> dict[str, Any]:
    """Records what passes between the parts of a model in one forward."""
    seen: dict[str, Any] = {}
    model.backbone.register_forward_hook(lambda _m, _i, out: seen.update(features=out))
    model.sem_seg_head.register_forward_hook(lambda _m, _i, out: seen.update(outputs=dict(out)))
    adapter = model.clip_adapter
    encode, crop_regions = adapter.forward, adapter.crop_regions
    similarity = adapter.similarity

    def spying_forward(*args: Any, **options: Any) -> RegionFeatures:
        regions = encode(*args, **options)
        seen["valid"] = regions.valid
        return regions

    def spying_similarity(embeddings: Tensor, text: Tensor) -> Tensor:
        seen["logits"] = similarity(embeddings, text)  # CLIP's come after the mask classifier's
        return seen["logits"]

    def spying_crop(*args: Any, **options: Any) -> tuple[Tensor, Tensor]:
        regions, masks = crop_regions(*args, **options)
        seen.setdefault("region", regions[0])
        return regions, masks

    adapter.forward, adapter.similarity = spying_forward, spying_similarity
    adapter.crop_regions = spying_crop
    return seen


def compare_clip(case: Case, model: OVSeg, seen: dict[str, Any]) -> None:
    valid = case.tensor("clip_valid")
    assert_equal(seen["valid"], valid, "clip_valid")
    logits = case.tensor("clip_logits")
    if len(logits) == len(valid):
        logits = logits[valid]
    assert_matches(seen["logits"], logits, "clip_logits")
    if "clip_region0" in case.arrays and "region" in seen:
        adapter = model.clip_adapter
        region = seen["region"] * adapter.pixel_std[0] + adapter.pixel_mean[0]
        assert_matches(region, case.tensor("clip_region0"), "clip_region0")


def run_training(case: Case, folder: Path) -> None:
    names = case.entry["class_names"]
    opts = ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", len(names), *case.entry.get("opts", [])]
    model = tiny_model(case.recordings, folder, opts).train()
    count = sum(1 for key in case.arrays if key.startswith("image"))
    batch = []
    for i in range(count):
        image = case.tensor(f"image{i}")
        instances = Instances(
            tuple(image.shape[1:]),
            gt_classes=case.tensor(f"classes{i}"),
            gt_masks=case.tensor(f"masks{i}"),
        )
        batch.append({"image": image, "instances": instances})
    losses = model(batch, Vocabulary.make(names, templates=model.templates))
    total = sum(losses.values())
    total.backward()

    got = {name: value.item() for name, value in losses.items()}
    assert got == pytest.approx(case.entry["losses"], rel=LOSS_TOLERANCE)
    assert total.item() == pytest.approx(case.entry["total"], rel=LOSS_TOLERANCE)
    norms = {n: p.grad.norm().item() for n, p in model.named_parameters() if p.grad is not None}
    recorded = case.entry["grad_norms"]
    assert set(norms) == set(recorded)
    assert norms == pytest.approx(recorded, rel=GRADIENT_TOLERANCE, abs=noise(recorded))


def noise(norms: dict[str, float]) -> float:
    """Size below which a gradient norm is rounding of a zero, not a number to reproduce.

    Some gradients vanish in exact arithmetic: a bias in front of a normalisation, the projection
    of queries that are all zero. What is recorded for them is float32 rounding of sums that are as
    large as the other gradients.
    """
    return torch.finfo(torch.float32).eps * max(norms.values())


def run_matcher(case: Case, folder: Path) -> None:
    entry = case.entry
    matcher = HungarianMatcher(
        cost_class=entry["cost_class"], cost_mask=entry["cost_mask"], cost_dice=entry["cost_dice"]
    )
    logits, masks = case.tensor("logits"), case.tensor("masks")
    targets = [
        {"labels": case.tensor(f"l{i}"), "masks": case.tensor(f"t{i}")} for i in range(len(logits))
    ]
    for i, (queries, chosen) in enumerate(
        matcher({"pred_logits": logits, "pred_masks": masks}, targets)
    ):
        assert_equal(queries, case.tensor(f"src{i}"), f"queries of image {i}")
        assert_equal(chosen, case.tensor(f"tgt{i}"), f"targets of image {i}")


def run_text_features(case: Case, folder: Path) -> None:
    templates = [name for name in TEMPLATE_NAMES if f"_{name}" in case.name]
    opts = ["MODEL.CLIP_ADAPTER.TEXT_TEMPLATES", *templates[:1]] if templates else []
    model = tiny_model(case.recordings, folder, opts + case.entry.get("opts", []))
    vocabulary = Vocabulary.make(case.entry["class_names"], templates=model.templates)
    features = model.clip_adapter.text_features(vocabulary)
    assert_matches(features, case.tensor("text_features"), "text features")


def run_tokens(case: Case, folder: Path) -> None:
    assert_equal(tokenize(case.entry["texts"]), case.tensor("tokens"), "tokens")


def run_visual(case: Case, folder: Path) -> None:
    clip = build_clip(case.entry["model"], mask_prompt_depth=MASK_PROMPT_DEPTH).eval()
    fill(nn.ModuleDict({"visual": clip.visual}))  # under its names, without the text tower
    images, masks = visual_inputs(case, clip.image_size)
    with torch.no_grad():
        assert_matches(clip.visual(images), case.tensor("plain"), "plain tower")
        assert_matches(clip.visual(images, masks), case.tensor("prompted"), "prompted tower")


def visual_inputs(case: Case, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images and masks of a tower's case: recorded, or described by the note."""
    if {"x", "masks"} <= set(case.arrays):
        masks = case.tensor("masks").float()
        return case.tensor("x"), masks if masks.ndim == 4 else masks[:, None]
    seed = re.search(r"RandomState\((\d+)\)\.randn\(([\d,\s]+)\)", case.note)
    boxes = re.findall(r"\[(\d+),\s*(\d+):(\d+),\s*(\d+):(\d+)\]\s*=\s*1", case.note)
    assert seed and boxes, f"neither arrays x and masks nor a note that describes them: {case.note}"
    shape = [int(side) for side in seed[2].split(",")]
    assert tuple(shape[2:]) == size
    images = torch.from_numpy(np.random.RandomState(int(seed[1])).randn(*shape).astype("float32"))
    masks = torch.zeros(shape[0], 1, *size)
    for box in boxes:
        index, top, bottom, left, right = map(int, box)
        masks[index, 0, top:bottom, left:right] = 1
    return images, masks


def run_backbone(case: Case, folder: Path) -> None:
    names = {"r101c": "ovseg_R101c", "swinb": "ovseg_swinB"}
    found = [config for key, config in names.items() if key in case.name.lower()]
    assert found, f"no configuration for the backbone of {case.name}; known: {', '.join(names)}"
    backbone = build_backbone(load_cfg(found[0], case.entry.get("opts", []))).eval()
    fill(backbone)
    with torch.no_grad():
        features = backbone(case.tensor("x"))
    compared = [name for name in features if name in case.arrays]
    assert compared, f"none of {', '.join(features)} in the recording"
    for name in compared:
        recorded = case.tensor(name)  # the first channels only
        assert_matches(features[name][:, : recorded.shape[1]], recorded, name)


def runner_of(case: Case) -> Callable[[Case, Path], None] | None:
    """The function that replays a case, None if its kind is unknown."""
    entry = case.entry
    if "arch" in entry:
        return run_forward
    if "losses" in entry:
        return run_training
    if "cost_class" in entry:
        return run_matcher
    if "texts" in entry:
        return run_tokens
    by_prefix = {
        "text_features": run_text_features,
        "visual_": run_visual,
        "backbone_": run_backbone,
    }
    for prefix, runner in by_prefix.items():
        if case.name.startswith(prefix):
            return runner
    return None


def module_of_state_dict(recordings: Recordings, name: str, folder: Path) -> nn.Module | None:
    """The module whose names and shapes a file of recorded names describes, without memory."""
    with torch.device("meta"):
        if name.startswith("state_dict_swinB_vitL"):
            return build_model(load_cfg("ovseg_swinB", ["MODEL.DEVICE", "meta"]))
        if name.startswith("state_dict_R101c_vitB"):
            return build_model(load_cfg("ovseg_R101c", ["MODEL.DEVICE", "meta"]))
        if name.startswith("tiny_state_dict"):
            return build_model(tiny_cfg(recordings, folder, ["MODEL.DEVICE", "meta"]))
        if name.startswith("backbone_r101c_state_dict"):
            return build_backbone(load_cfg("ovseg_R101c"))
        for model in OPENAI_NAMES:
            if name.startswith(f"clip_{model.replace('/', '')}_state_dict"):
                return build_clip(model, mask_prompt_depth=MASK_PROMPT_DEPTH)
    return None
