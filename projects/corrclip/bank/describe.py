"""The vectors of a region: what a vision model and one or more CorrCLIPs say of it.

Source: CorrCLIP (arXiv 2411.10086), second version: keys are means of a vision model's map of the
whole picture, values are means of the features of a CLIP whose last attention is rebuilt.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.projects.corrclip.bank.work import BankParts
from ovseg.projects.corrclip.correlation import resize_ids
from ovseg.projects.corrclip.model import CorrCLIP
from ovseg.projects.corrclip.pooling import region_means
from ovseg.utils.resizing import resize_shortest_edge
from ovseg.weights.record import state_digest

__all__ = ["ModelChoice", "ModelDescriber", "load_parts", "parts_maker"]

# What does not change the vectors, or is recorded by the hash of its content.
_WITHOUT_EFFECT = (
    "REGIONS",
    "BANK",
    "LOGIT_SCALE",
    "PROB_THD",
    "BACKGROUND_ID",
    "MAP_CORRECTION",
    "SEPARATOR",
)


@dataclass(frozen=True)
class ModelChoice:
    """Which models describe regions.

    Attributes:
        config_file: of the CorrCLIP whose CLIP gives the first values; it also says where regions
            come from.
        keys: config of the one whose vision model makes the keys; "" for the same.
        further: configs of those that give further values, as CONFIG or NAME=CONFIG; without a name
            the encoder is called as its CLIP.
        short: pictures are resized to this shorter side for the values.
        max_size: and to this longest side at most.
        opts: config overrides, KEY VALUE ..., of all.
    """

    config_file: str
    keys: str = ""
    further: tuple[str, ...] = ()
    short: int = 448
    max_size: int = 2048
    opts: tuple[str, ...] = ()


class ModelDescriber:
    """Gives the vectors of a picture's regions; see `RegionDescriber`.

    Args:
        keys: its vision model makes the keys.
        values: by encoder, the CorrCLIPs that make the values.
        short: pictures are resized to this shorter side for the values.
        max_size: and to this longest side at most.
        settings: further plain facts that the vectors depend on.
    """

    def __init__(
        self,
        keys: CorrCLIP,
        values: Mapping[str, CorrCLIP],
        *,
        short: int = 448,
        max_size: int = 2048,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.keys, self.values = keys, dict(values)
        self.short, self.max_size = short, max_size
        self.features = keys.dense.name
        self.encoders = tuple(values)
        self.settings = {"short": short, "max_size": max_size, **(settings or {})}

    @torch.no_grad()
    def __call__(
        self, image: np.ndarray, regions: np.ndarray
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Describe regions; see `RegionDescriber`."""
        ids = torch.from_numpy(regions).to(self.keys.device)
        found, keys = region_means(self.keys.vision_features(image), ids, unit=True)
        small = resize_shortest_edge(image, self.short, self.max_size)
        pixels = torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1))).float()
        small_ids = resize_ids(ids, (small.shape[0], small.shape[1]))
        values = {}
        for encoder, model in self.values.items():
            features = model.clip_features(pixels, small_ids)
            means = region_means(features, ids, unit=False)[1][found > 0]
            values[encoder] = F.normalize(means, dim=1).cpu().numpy()
        return keys[found > 0].cpu().numpy(), values


def parts_maker(choice: ModelChoice) -> Callable[[], BankParts]:
    """Give a function without arguments that builds the models; it can be sent to a worker.

    Args:
        choice: the models.

    Returns:
        `load_parts` with this argument.
    """
    return functools.partial(load_parts, choice)


def load_parts(choice: ModelChoice) -> BankParts:
    """Build what a worker holds, on the current GPU if there is one.

    Args:
        choice: the models.

    Returns:
        Source of regions, and describer.

    Raises:
        ValueError: a config is of another method, two encoders have one name, or a part of a model
            cannot be had.
    """
    first, settings = _build(choice.config_file, choice.opts)
    keys, keys_settings = first, settings
    # The others take the first one's regions.
    opts = (*choice.opts, "MODEL.CORRCLIP.REGIONS.NAME", "grid")
    if choice.keys:
        keys, keys_settings = _build(choice.keys, opts)
    values = {first.clip_name: first}
    facts = {first.clip_name: {**settings, "weights": state_digest(first)}}
    for given in choice.further:
        name, _, config = given.rpartition("=")
        model, made_with = _build(config, opts)
        name = name or model.clip_name
        if name in values:
            raise ValueError(
                f"{given}: expected a new name for this encoder, got {name!r} again; write "
                "NAME=CONFIG"
            )
        values[name] = model
        facts[name] = {**made_with, "weights": state_digest(model)}
    describer = ModelDescriber(
        keys,
        values,
        short=choice.short,
        max_size=choice.max_size,
        settings={
            "keys": {**keys_settings, "vision_model": state_digest(keys.dense)},
            "values": facts,
        },
    )
    return BankParts(first.regions, describer)


def _build(config: str, opts: Sequence[str]) -> tuple[CorrCLIP, dict[str, Any]]:
    """Build a CorrCLIP without a bank; gives its settings, too."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    cfg = load_cfg(config, ["MODEL.DEVICE", device, *opts]).clone()
    if cfg.MODEL.META_ARCHITECTURE != "CorrCLIP":
        raise ValueError(f"{config}: expected a CorrCLIP, got {cfg.MODEL.META_ARCHITECTURE}")
    cfg.defrost()
    cfg.MODEL.CORRCLIP.BANK.ENABLED = False
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights, too, are the same in every worker
        model = build_model(cfg).eval()
    return model, _settings(cfg)


def _settings(cfg: CfgNode) -> dict[str, Any]:
    """What the vectors depend on besides the weights."""
    node = {key: value for key, value in cfg.MODEL.CORRCLIP.items() if key not in _WITHOUT_EFFECT}
    dense = {key: value for key, value in node["DENSE"].items() if key != "WEIGHTS"}
    return {**node, "DENSE": dense, "CLIP_MODEL_NAME": cfg.MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME}
