"""The settings of a contrastive run, from named recipes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from ovseg.clip.contrastive import DUPLICATES
from ovseg.config import config_path, setting_pairs
from ovseg.readers.documents import DocumentError, parse_yaml, read_yaml

__all__ = ["MODES", "OPTIMIZERS", "PRECISIONS", "ClipTrainConfig", "load_clip_config"]

MODES = ("full", "mask_prompt", "both", "towers")
OPTIMIZERS = ("adamw", "muon")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")


@dataclass(frozen=True)
class ClipTrainConfig:
    """Settings of one run; see the attributes.

    Attributes:
        mode: what is trained besides the temperature: "full" (the image tower without the mask
            prompt), "mask_prompt" (the prompt alone), "both" (all of it at once), "towers" (image
            and text tower without the prompt, for a CLIP from nothing).
        model: the CLIP's name, as `ovseg.clip.build_clip` takes it.
        weights: what to start from: a name in the catalogue, a path or an address; "random" starts
            from nothing.
        mask_prompt_depth: prompted layers, where the weights bring no trained prompt.
        epochs: passes over the pairs; the last pairs that fill no batch are left to the next one.
        steps: optimizer steps, instead of `epochs`; 0 trains nothing.
        batch_size: pairs per step, over all processes.
        optimizer: "adamw", or "muon" for the matrices of the transformer blocks with AdamW for the
            rest.
        lr: peak learning rate.
        prompt_lr: that of the mask prompt in mode "both"; None is `lr`.
        weight_decay: of all but biases, norms, the temperature and the mask prompt; with "muon" of
            the matrices alone.
        prompt_weight_decay: of the mask prompt.
        beta1: of AdamW.
        beta2: of AdamW.
        eps: of AdamW.
        warmup: steps of linear warm-up before the cosine.
        prompt_init_std: a prompt of zeros starts training from this normal distribution.
        duplicates: pairs of the same noun are each other's "negative" (OVSeg) or "positive", or
            "ignored"; see `ovseg.clip.contrastive.ContrastiveLoss`.
        template: what a noun of a record is put into; tables and tars bring their texts.
        min_scale: least share of a region that random cropping keeps.
        expand_ratio: factor on the sides of a record's tight box, as MASK_EXPAND_RATIO.
        damage: share of the regions from labels whose mask is damaged, see
            `ovseg.data.mask_damage`.
        label_share: share of pairs from labels, in (0, 1), where there are others, too: pairs of
            the side that is short are repeated. None takes each pair as often as any other.
        noun_exponent: a noun with n pairs is drawn in proportion to n to this power, in [0, 1]; 1
            goes through the pairs as they are.
        precision: "fp32", or "bf16" or "fp16" autocast; "auto" is bf16 where the hardware has it.
        grad_checkpointing: compute activations twice and keep fewer.
        seed: of the order, the random crops and the prompt.
        workers: processes that read pairs ahead of training.
        checkpoint_period: steps between two checkpoints; 0 saves after every epoch.
        eval_period: steps between two evaluations; 0 evaluates after every epoch.
        log_period: steps between two reports.
    """

    mode: str = "full"
    model: str = "ViT-L/14"
    weights: str = ""
    mask_prompt_depth: int = 3
    epochs: int = 5
    steps: int | None = None
    batch_size: int = 256
    optimizer: str = "adamw"
    lr: float = 5e-6
    prompt_lr: float | None = None
    weight_decay: float = 0.2
    prompt_weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    warmup: int = 100
    prompt_init_std: float = 0.02
    duplicates: str = "negative"
    template: str = "a photo of a {}."
    min_scale: float = 0.9
    expand_ratio: float = 1.0
    damage: float = 0.0
    label_share: float | None = None
    noun_exponent: float = 1.0
    precision: str = "auto"
    grad_checkpointing: bool = False
    seed: int = 0
    workers: int = 2
    checkpoint_period: int = 0
    eval_period: int = 0
    log_period: int = 20

    def __post_init__(self) -> None:
        choices = {
            "mode": MODES,
            "optimizer": OPTIMIZERS,
            "duplicates": DUPLICATES,
            "precision": PRECISIONS,
        }
        for name, valid in choices.items():
            if getattr(self, name) not in valid:
                raise ValueError(f"{name}: expected one of {valid}, got {getattr(self, name)!r}")
        if self.batch_size < 1 or self.epochs < 0 or (self.steps or 0) < 0:
            raise ValueError(
                "expected batch_size >= 1, epochs >= 0 and steps >= 0, got "
                f"{self.batch_size}, {self.epochs} and {self.steps}"
            )
        if self.seed < 0:
            raise ValueError(f"seed: expected a number of at least 0, got {self.seed}")
        if not 0 <= self.damage <= 1:
            raise ValueError(f"damage: expected a share in [0, 1], got {self.damage}")
        if not 0 <= self.noun_exponent <= 1:
            raise ValueError(
                f"noun_exponent: expected a number in [0, 1], got {self.noun_exponent}"
            )
        if self.label_share is not None and not 0 < self.label_share < 1:
            raise ValueError(
                f"label_share: expected a share in (0, 1) or none, got {self.label_share}; leave "
                "out --labels or --pairs to train on one of them alone"
            )

    @property
    def trains_prompt(self) -> bool:
        """Whether the mask prompt changes."""
        return self.mode in ("mask_prompt", "both")

    def total_steps(self, pairs: int) -> int:
        """Optimizer steps of the run on so many pairs."""
        return self.epochs * (pairs // self.batch_size) if self.steps is None else self.steps

    def to_yaml(self) -> str:
        """The settings as `load_clip_config` reads them."""
        return yaml.safe_dump(asdict(self), sort_keys=False)


def load_clip_config(
    path_or_name: str | Path, overrides: Mapping[str, Any] | Sequence[str] = ()
) -> ClipTrainConfig:
    """Read a recipe.

    Args:
        path_or_name: a YAML file, or the name of a shipped one such as "clip_ft_vitL14_paper".
        overrides: settings on top of it, by name or as KEY, VALUE, KEY, VALUE, ...

    Returns:
        The settings.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown name, or a value of the wrong type or out of range.
    """
    path = config_path(path_or_name)
    try:
        values = read_yaml(path) or {}
    except DocumentError as error:
        raise ValueError(f"{path} is not valid YAML: {error.reason}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected NAME: VALUE lines, got a {type(values).__name__}")
    if not isinstance(overrides, Mapping):
        overrides = {name: parse_yaml(str(text), name) for name, text in setting_pairs(overrides)}
    settings = _typed({**values, **overrides}, source=str(path))
    try:
        return ClipTrainConfig(**settings)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _typed(values: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    hints = get_type_hints(ClipTrainConfig)
    names = [field.name for field in fields(ClipTrainConfig)]
    result = {}
    for name, value in values.items():
        if name not in names:
            close = difflib.get_close_matches(str(name), names, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(names)}"
            raise ValueError(f"{source}: unknown setting {name!r}{hint}")
        result[name] = _cast(value, hints[name], f"{source}: {name}")
    return result


def _cast(value: Any, wanted: Any, where: str) -> Any:
    kinds = getattr(wanted, "__args__", (wanted,))  # the members of `X | None`
    if value is None and type(None) in kinds:
        return None
    kind = kinds[0]
    if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 5e-6 as text
        except ValueError as error:
            raise ValueError(f"{where}: expected a number, got {value!r}") from error
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{where}: expected {kind.__name__}, got {value!r}")
    return value
