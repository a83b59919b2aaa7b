"""`ovseg benchmark --receipt`: ways against the reference, what they score, how they grow."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ovseg.benchmark.accuracy import measure_accuracy
from ovseg.benchmark.growth import made_up_names, measure_growth, parse_growth
from ovseg.benchmark.lent_masks import lend_masks
from ovseg.benchmark.performance import write_page
from ovseg.benchmark.rounds import Subject, measure_ways
from ovseg.benchmark.ways import REFERENCE, ReadyWay, Way, read_ways, share_weights
from ovseg.commands.models import build_ovseg
from ovseg.commands.throughput import measure_training
from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.data.catalog import register_builtin
from ovseg.data.loaders import get_records
from ovseg.modeling import SegmentationModel
from ovseg.modeling.ovseg import OVSeg
from ovseg.predictor import Predictor, load
from ovseg.readers.documents import read_json
from ovseg.readers.pictures import read_image
from ovseg.tinyscapes.scenes import render_scene
from ovseg.training.weights import load_for_evaluation
from ovseg.utils.command_line import usage
from ovseg.utils.environment import environment_record, processor_name
from ovseg.utils.files import require_writable, write_json
from ovseg.utils.resizing import resized_shape
from ovseg.utils.threads import usable_cores
from ovseg.vocab import Vocabulary

__all__ = ["measure_performance"]

_NEW_WORDS = 10


def measure_performance(args: argparse.Namespace) -> dict[str, Any]:
    """Measure what is asked for, write figures and page, and return the figures."""
    with usage():
        if args.output is None:
            raise ValueError(
                "--receipt, --grow, --dataset, --train and --page need --output, a JSON file"
            )
        for file in filter(None, (args.output, args.page)):
            require_writable(file.parent)
        if args.masks_from and args.dataset:
            raise ValueError("--masks-from is for random weights; it does not go with --dataset")
        if args.train is not None and args.train < 1:
            raise ValueError(f"--train: expected at least 1 iteration, got {args.train}")
    measured = args.receipt or args.grow or args.dataset or args.train is not None
    with usage():
        if not measured and args.page is None:
            raise ValueError("--ways needs --receipt, --grow or --dataset, which measure them")
    figures = _measure(args) if measured else {}
    if args.page is not None:
        with usage():
            write_page(args.page, args.output.parent)
        print(args.page)
    return figures


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    """The figures, written after every part."""
    with usage():
        grown = parse_growth(args.grow)
        ways = read_ways(args.ways)
        growing = _chosen(args.grow_ways, ways)
        configs = [_config(args, way) for way in ways]
        if args.dataset:
            register_builtin()
        picture = _picture(args)
        figures = _begin(args, configs[0], picture)
        ready = _build(args, ways, configs)
        if args.masks_from:
            donor = load(args.masks_from, device="cpu").model
            if not isinstance(donor, OVSeg):
                raise ValueError(f"--masks-from: expected an OVSeg, got {type(donor).__name__}")
            for model in {id(each.model): each.model for each in ready}.values():
                lend_masks(model, donor, picture)
    print(f"{args.config_file}, {picture.shape[0]} x {picture.shape[1]}, {len(ways)} ways")
    model = ready[0].model
    vocabulary = Vocabulary.benchmark(args.benchmark, templates=model.templates)
    subject = Subject(picture, vocabulary, _new_words(vocabulary))

    def keep(part: str, found: dict[str, Any]) -> None:
        figures[part] = found
        write_json(args.output, figures)
        print(f"{part} -> {args.output}", flush=True)

    if args.receipt:
        measure_ways(
            ready, subject, repeats=args.repeats, report=lambda found: keep("receipt", found)
        )
    if args.dataset:
        keep("accuracy", measure_accuracy(ready, args.dataset, pictures=args.pictures))
    for kind, sizes in grown.items():
        chosen = [each for each in ready if each.way.title in growing]
        found = measure_growth(chosen, kind, sizes, subject, repeats=args.repeats)
        keep("growth", {**figures.get("growth", {}), kind: found})
    if args.train is not None:
        keep("training", measure_training(args))
    return figures


def _config(args: argparse.Namespace, way: Way) -> CfgNode:
    try:
        return load_cfg(args.config_file, [*args.opts, *way.opts])
    except (KeyError, ValueError) as error:
        raise ValueError(f"way {way.title!r}: {error.args[0]}") from error


def _chosen(titles: Sequence[str] | None, ways: Sequence[Way]) -> list[str]:
    known = [way.title for way in ways]
    unknown = [title for title in titles or () if title not in known]
    if unknown:
        raise ValueError(
            f"--grow-ways: expected titles of {', '.join(known)}, got {', '.join(unknown)}"
        )
    return list(titles or (title for title in known if title != REFERENCE.title))


def _picture(args: argparse.Namespace) -> np.ndarray:
    """The data set's first picture, or a scene or random one (H, W, 3) uint8 of --size."""
    if args.dataset:
        return read_image(get_records(args.dataset)[0]["file_name"])
    if args.masks_from:
        height, width = args.size
        return cv2.resize(render_scene("val", 0).image, (width, height))
    return np.random.default_rng(0).integers(0, 256, (*args.size, 3), dtype=np.uint8)


def _named(args: argparse.Namespace) -> str:
    if args.dataset:
        return f"the first of {args.dataset}"
    return f"a scene with the masks of {args.masks_from}" if args.masks_from else "random pixels"


def _begin(args: argparse.Namespace, cfg: CfgNode, picture: np.ndarray) -> dict[str, Any]:
    """What the file of figures has already, or its head.

    Raises:
        ValueError: its figures are of other settings or another machine.
    """
    templates = SegmentationModel.from_config(cfg)["templates"]
    vocabulary = Vocabulary.benchmark(args.benchmark, templates=templates)
    height, width = picture.shape[:2]
    fixed: dict[str, Any] = {
        "settings": {
            "config": args.config_file,
            "weights": args.weights,
            "opts": list(args.opts),
            "benchmark": args.benchmark,
            "classes": len(vocabulary),
            "templates": len(vocabulary.templates),
            "picture": _named(args),
            "size": [height, width],
            "network_size": list(
                resized_shape(height, width, cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
            ),
        },
        "machine": {
            "processor": processor_name(),
            "cores": usable_cores(),
            "threads": torch.get_num_threads(),
        },
    }
    figures = {**fixed, "environment": environment_record()}
    if not Path(args.output).is_file():
        return figures
    known = read_json(args.output)
    for part, values in fixed.items():
        theirs = known.get(part) if isinstance(known, dict) else None
        if theirs != values:
            raise ValueError(
                f"{args.output}: expected figures of the {part} {values}, got {theirs}; choose "
                "another file"
            )
    return {**known, **figures}


def _build(
    args: argparse.Namespace, ways: Sequence[Way], configs: Sequence[CfgNode]
) -> list[ReadyWay]:
    """Each way with a model; ways of one config share it, and others its weights."""
    ready: list[ReadyWay] = []
    for way, cfg in zip(ways, configs, strict=True):
        known = next((each for each in ready if each.cfg == cfg), None)
        if known is not None:
            ready.append(ReadyWay(way, cfg, known.model, known.predictor))
            continue
        torch.manual_seed(0)  # random weights are the same for all
        model = build_ovseg(cfg)
        load_for_evaluation(model, args.weights)
        share_weights(model, [each.model for each in ready])
        ready.append(ReadyWay(way, cfg, model, Predictor.from_config(cfg, model)))
    return ready


def _new_words(vocabulary: Vocabulary) -> Vocabulary:
    """Ten classes that the vocabulary has not."""
    known = {prompt for prompts in vocabulary.prompts for prompt in prompts}
    names = made_up_names(len(known) + _NEW_WORDS)
    fresh = [name for name in names if name not in known][:_NEW_WORDS]
    return Vocabulary.make(fresh, templates=vocabulary.templates)
