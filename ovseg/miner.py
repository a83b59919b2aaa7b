"""The models of the caption miner: proposals of an OVSeg model, and its CLIP as the judge.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.data.catalog import register_builtin
from ovseg.mining.explained import TrainingLabels
from ovseg.mining.nouns import NounExtractor
from ovseg.mining.options import PROPOSALS, ModelChoice
from ovseg.mining.parts import MiningConfig, MiningParts
from ovseg.modeling.ovseg import OVSeg, build_region_classifier
from ovseg.modeling.proposer import MaskFormerProposer
from ovseg.modeling.region_scorer import ClipScorer
from ovseg.proposals import FileProposer, GridProposer, InstanceProposer, RegionProposer
from ovseg.utils.files import sha256_of
from ovseg.utils.resizing import resize_shortest_edge
from ovseg.weights import catalogue
from ovseg.weights.find import RANDOM, find_weights, named_weights, trained_weights
from ovseg.weights.record import config_for, load_named

__all__ = ["load_parts", "make_proposer", "parts_maker"]


def parts_maker(config: MiningConfig, choice: ModelChoice) -> Callable[[], MiningParts]:
    """Give a function without arguments that builds the models; it can be sent to a worker.

    Weights that are not here yet are fetched now, once for all workers.

    Args:
        config: the miner's settings.
        choice: the models.

    Returns:
        `load_parts` with these arguments.
    """
    for wanted in (choice.clip, choice.weights):
        if wanted not in ("", RANDOM):
            catalogue.resolve(wanted)
    return functools.partial(load_parts, config, choice)


def load_parts(config: MiningConfig, choice: ModelChoice) -> MiningParts:
    """Build what a worker holds, on the current GPU if there is one.

    Args:
        config: the miner's settings.
        choice: the models.

    Returns:
        Proposer, scorer, noun extractor and, where they are asked for, labels.

    Raises:
        ValueError: a choice that does not exist or does not fit.
        ovseg.weights.load.WeightsError: weights that do not fit the model.
    """
    cfg = load_cfg(_config_file(choice), ["MODEL.DEVICE", _device(), *choice.opts])
    wanted = choice.weights or trained_weights(cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights, too, are the same in every worker
        model = build_model(cfg)
        if not isinstance(model, OVSeg):
            raise ValueError(
                f"MODEL.META_ARCHITECTURE: expected OVSeg, got {cfg.MODEL.META_ARCHITECTURE}; only "
                "OVSeg has the CLIP that nouns are compared with"
            )
        loaded = load_named(model, wanted)
        name = f"{_short(loaded['name'])}@{loaded['sha256'][:8]}"
        classifier, clip_name = model.clip_adapter, name
        if choice.clip:
            path = find_weights(choice.clip)
            opts = ["MODEL.DEVICE", _device(), *choice.opts]
            adapted = [*opts, "MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", str(path)]
            classifier = build_region_classifier(load_cfg(_config_file(choice), adapted))
            classifier.to(model.device)
            clip_name = f"{_short(choice.clip)}@{sha256_of(path)[:8]}"
    model.eval()
    proposer = make_proposer(choice, cfg, model, name)
    scorer = ClipScorer(
        classifier=classifier, name=clip_name, templates=config.templates, dtype=choice.dtype
    )
    settings, labels = _settings(cfg, choice), None
    if choice.labels:
        register_builtin()
        labels = TrainingLabels(choice.labels)
        settings["labels"] = labels.name
    return MiningParts(proposer, scorer, NounExtractor(config.nouns), settings, labels)


def make_proposer(
    choice: ModelChoice, cfg: CfgNode, model: OVSeg, model_name: str
) -> RegionProposer:
    """Make the proposer that was chosen.

    Args:
        choice: `proposals` says which.
        cfg: the model's config.
        model: the model.
        model_name: its name.

    Returns:
        The proposer.

    Raises:
        ValueError: an unknown kind, or a grid that is not ROWSxCOLUMNS.
    """
    kind, _, argument = choice.proposals.partition(":")
    if kind == "model" and not argument:
        short, longest = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
        return MaskFormerProposer(
            model=model,
            name=model_name,
            resize=functools.partial(resize_shortest_edge, short=short, max_size=longest),
            threshold=cfg.MODEL.CLIP_ADAPTER.MASK_THR,
            duplicate_iou=choice.duplicate_iou,
            dtype=choice.dtype,
        )
    if kind in ("instances", "classes") and argument:
        return InstanceProposer(argument, per_class=kind == "classes")
    if kind == "files" and argument:
        return FileProposer(argument)
    rows, _, cols = argument.partition("x")
    if kind == "grid" and rows.isdigit() and cols.isdigit():
        return GridProposer(int(rows), int(cols))
    raise ValueError(f"proposals: expected one of {PROPOSALS}, got {choice.proposals!r}")


def _settings(cfg: CfgNode, choice: ModelChoice) -> dict[str, Any]:
    """What the results depend on besides the weights, for the run's manifest."""
    left_out = ("DEVICE", "WEIGHTS", "TRAINED_WEIGHTS", "LOAD")
    model = {key: value for key, value in cfg.MODEL.items() if key not in left_out}
    adapter = dict(model["CLIP_ADAPTER"])
    del adapter["CLIP_WEIGHTS"]
    sizes = {key: cfg.INPUT[key] for key in ("MIN_SIZE_TEST", "MAX_SIZE_TEST")}
    return {
        "MODEL": {**model, "CLIP_ADAPTER": adapter},
        "INPUT": sizes,
        "duplicate_iou": choice.duplicate_iou,
        "precision": choice.precision,
    }


def _config_file(choice: ModelChoice) -> str:
    if choice.config_file:
        return choice.config_file
    wanted = choice.weights or named_weights(choice.opts)
    return config_for(None if wanted in ("", RANDOM) else wanted)


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _short(name: str) -> str:
    """A file's own name: where it lies says nothing about what it is."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]
