"""The models of the caption miner: proposals of an OVSeg model, and its CLIP as the judge.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.data.captions.sources import ImageReader, Source
from ovseg.mining.exports import export_coco, export_tsv, export_webdataset
from ovseg.mining.nouns import NounExtractor
from ovseg.mining.parts import MiningConfig, MiningParts
from ovseg.mining.records import filter_records, read_records
from ovseg.mining.report import write_report
from ovseg.modeling.ovseg import OVSeg, build_region_classifier
from ovseg.modeling.proposer import MaskFormerProposer
from ovseg.modeling.region_scorer import ClipScorer
from ovseg.proposals import FileProposer, GridProposer, InstanceProposer, RegionProposer
from ovseg.training.weights import load_for_evaluation
from ovseg.utils.files import sha256_of
from ovseg.utils.resizing import resize_shortest_edge
from ovseg.weights import catalogue
from ovseg.weights.find import RANDOM, find_weights

__all__ = [
    "EXPORTS",
    "PRECISIONS",
    "PROPOSALS",
    "ModelChoice",
    "after_mining",
    "load_parts",
    "parts_maker",
]

PROPOSALS = ("model", "instances:FILE", "classes:FILE", "files:FOLDER", "grid:ROWSxCOLUMNS")
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
EXPORTS = ("tsv", "colour-key", "webdataset", "coco")
DEFAULT_CONFIG = "ovseg_tiny"


@dataclasses.dataclass(frozen=True)
class ModelChoice:
    """Which models mine.

    Attributes:
        config_file: path or shipped name; "" for the one that belongs to the weights, else
            "ovseg_tiny".
        weights: name in the catalogue, path or address; "random" for random ones, with which
            time and memory can be measured; "" for the config's MODEL.WEIGHTS.
        clip: another CLIP for the scores, of the config's architecture: a name or path; "" for
            the model's own.
        proposals: where regions come from, one of `PROPOSALS`.
        duplicate_iou: see `MaskFormerProposer`.
        precision: one of `PRECISIONS`; the halves are several times faster on a GPU.
        opts: config overrides, KEY VALUE ...

    Raises:
        ValueError: an unknown precision.
    """

    config_file: str = ""
    weights: str = ""
    clip: str = ""
    proposals: str = "model"
    duplicate_iou: float | None = None
    precision: str = "float32"
    opts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision: expected one of {tuple(PRECISIONS)}, got {self.precision!r}"
            )

    @property
    def dtype(self) -> torch.dtype | None:
        """What the models compute in; None leaves it to their weights."""
        return PRECISIONS[self.precision]


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
        Proposer, scorer and noun extractor.

    Raises:
        ValueError: a choice that does not exist or does not fit.
        ovseg.weights.load.WeightsError: weights that do not fit the model.
    """
    cfg = load_cfg(_config_file(choice), ["MODEL.DEVICE", _device(), *choice.opts])
    wanted = choice.weights or cfg.MODEL.WEIGHTS
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights, too, are the same in every worker
        model = build_model(cfg)
        if not isinstance(model, OVSeg):
            raise ValueError(
                f"MODEL.META_ARCHITECTURE: expected OVSeg, got {cfg.MODEL.META_ARCHITECTURE}; only "
                "OVSeg has the CLIP that nouns are compared with"
            )
        loaded = load_for_evaluation(model, wanted)
        name = f"{_short(loaded['name'])}@{loaded['sha256'][:8] or RANDOM}"
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
    return MiningParts(proposer, scorer, NounExtractor(config.nouns), _settings(cfg, choice))


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


def after_mining(
    output: Path,
    source: Source,
    *,
    report: bool,
    exports: Sequence[str],
    template: str = "{}",
    min_count: int | None = None,
    max_count: int | None = None,
) -> Iterator[Path]:
    """Write what is made from the records of a finished run.

    Args:
        output: the run's folder.
        source: where its pictures are.
        report: write report.html.
        exports: which of `EXPORTS` to write, into folders of these names.
        template: of the exported titles, with `{}` for the noun.
        min_count: fewest pairs of an exported noun.
        max_count: most pairs of an exported noun.

    Yields:
        The path of each result, once it is there.
    """
    if not report and not exports:
        return
    records, read = read_records(output), ImageReader(source.image_root)
    if report:
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        lines = (output / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
        quarantine = [json.loads(line) for line in lines]
        yield write_report(output, records, read, summary, quarantine=quarantine)
    chosen = filter_records(records, min_count=min_count, max_count=max_count)
    for kind in exports:
        folder = output / kind
        if kind == "coco":
            yield export_coco(chosen, folder / "instances.json")
        elif kind == "webdataset":
            yield export_webdataset(chosen, read, folder, template=template, progress=True)
        else:
            form = "mask" if kind == "tsv" else kind
            yield export_tsv(chosen, read, folder, form=form, template=template, progress=True)


def _settings(cfg: CfgNode, choice: ModelChoice) -> dict[str, Any]:
    """What the results depend on besides the weights, for the run's manifest."""
    model = {
        key: value for key, value in cfg.MODEL.items() if key not in ("DEVICE", "WEIGHTS", "LOAD")
    }
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
    entry = catalogue.entries().get(choice.weights)
    return entry.config if entry is not None and entry.config else DEFAULT_CONFIG


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _short(name: str) -> str:
    """A file's own name: where it lies says nothing about what it is."""
    return name.replace("\\", "/").rstrip("/").rpartition("/")[2]
