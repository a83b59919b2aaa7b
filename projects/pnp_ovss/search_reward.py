"""Choose layer, head and threshold of PnP-OVSS without masks: by a reward that CLIP gives.

The pictures' classes are known as names alone; where a label map names them, nothing but the set of
its labels is read.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

import ovseg
from ovseg.clip import load_clip
from ovseg.config import load_cfg
from ovseg.data.catalog import register_builtin
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.data.loaders import get_records
from ovseg.data.mappers import TestMapper
from ovseg.data.sampling import evenly
from ovseg.readers.pictures import read_label
from ovseg.utils.command_line import run_parsed
from ovseg.utils.files import write_json
from ovseg.utils.run_record import RunRecord

from .filters import AllClasses
from .model import PnPOVSS
from .reward import MaskFreeReward
from .search import METHODS, search

logger = logging.getLogger("ovseg.projects.pnp_ovss.search_reward")

EPILOG = """
example:
  python -m ovseg.projects.pnp_ovss.search_reward --config-file pnp_ovss_tiny \\
      --dataset tinyscapes_train_sem_seg --images 100 --output output/search

The judge is the CLIP of MODEL.CLIP_ADAPTER; the paper's is ViT-L/14 at 336 pixels:
  MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME ViT-L/14@336px \\
  MODEL.CLIP_ADAPTER.CLIP_WEIGHTS clip_ViT-L-14-336px
A search that was stopped goes on when the command is given again.
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ovseg.projects.pnp_ovss.search_reward",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", required=True, help="config file or shipped name")
    add("--weights", help="name, path or address (default: the config's)")
    add("--dataset", required=True, help="dataset whose label maps name the classes of pictures")
    add("--images", type=int, default=100, help="how many of its pictures, evenly spread")
    add("--iterations", type=int, default=34, help="settings to try (released: 34)")
    add("--layers", type=int, nargs="+", help="counted from 1 (default: all but the last)")
    add("--thresholds", type=float, nargs="+", default=[0.05, 0.15, 0.25, 0.35, 0.45])
    add("--method", choices=METHODS, default="annealing")
    add("--seed", type=int, default=1164005944, help="of the search")
    add("--output", type=Path, default=Path("output/pnp_ovss_search"), help="folder of the result")
    add("opts", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="config overrides")
    return parser


def judge(args: argparse.Namespace) -> tuple[MaskFreeReward, dict[str, list[Any]], str]:
    """Load model, judge and pictures; returns the reward, what to search, and the weights' hash."""
    opts = ["MODEL.PNP_OVSS.FILTER.NAME", "all", *args.opts]
    predictor = ovseg.load(args.weights, config=args.config_file, opts=opts)
    model = predictor.model
    if not isinstance(model, PnPOVSS) or not isinstance(model.class_filter, AllClasses):
        raise ValueError("expected a config of PnPOVSS without tiles, scales or a class filter")
    cfg = load_cfg(args.config_file, opts)
    adapter = cfg.MODEL.CLIP_ADAPTER
    clip = load_clip(adapter.CLIP_MODEL_NAME, adapter.CLIP_WEIGHTS).to(model.device)
    # The last layer's maps are zero: the score reads no word's row of it.
    layers = args.layers or list(range(1, model.matcher.layers))
    reward = MaskFreeReward(model, clip, [layer - 1 for layer in layers])
    name = resolve_dataset(args.dataset)
    vocabulary = model.find_vocabulary([{"meta": {"dataset_name": name}}])
    mapper = TestMapper(cfg)
    for record in evenly(get_records(name), args.images):
        labels = np.unique(read_label(record["sem_seg_file_name"]))
        present = [int(k) for k in labels if k < len(vocabulary) and k != vocabulary.background]
        reward.add(mapper(record), vocabulary, present)
    logger.info("%d pictures with several classes", len(reward.pictures))
    if not reward.pictures:
        raise ValueError(f"{name}: expected pictures with at least two classes, got none")
    heads = list(range(model.matcher.heads))
    space = {"layer": layers, "head": heads, "threshold": list(args.thresholds)}
    return reward, space, predictor.provenance["weights"]["sha256"]


def main(args: argparse.Namespace) -> None:
    """Search and write the result."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    register_builtin()
    reward, space, digest = judge(args)
    settings = {key: str(value) for key, value in vars(args).items() if key != "output"}
    RunRecord(
        settings | {"weights_sha256": digest},
        what="search",
        remedy="choose another --output",
        free=("iterations", "method", "seed"),
    ).claim(args.output / "settings.json")
    found = search(
        space,
        reward,
        args.iterations,
        args.seed,
        method=args.method,
        journal=args.output / "rewards.json",
    )
    best, wins = found.best
    classes = sum(len(picture.text) for picture in reward.pictures)
    tried = [{**setting, "wins": won} for setting, won in found.tried]
    write_json(args.output / "search.json", {"best": best, "classes": classes, "tried": tried})
    logger.info("%d of %d classes win with", wins, classes)
    logger.info(
        "MODEL.PNP_OVSS.ITM.LAYER %d MODEL.PNP_OVSS.ITM.HEAD %d MODEL.PNP_OVSS.MAP.THRESHOLD %g",
        *(best["layer"], best["head"], best["threshold"]),
    )


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
