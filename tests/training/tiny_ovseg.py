"""Gradients of one training step of a very small OVSeg.

Run as a script, this is one of several processes that take the step together.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.d2.arguments import default_argument_parser
from ovseg.d2.config import CfgNode
from ovseg.d2.data import MetadataCatalog
from ovseg.d2.modeling import build_model
from ovseg.d2.structures import Instances
from ovseg.d2.utils import comm
from ovseg.training.distributed import run_distributed
from ovseg.training.loop import Trainer
from tests.modeling.tiny import NAMES, tiny_cfg

DATASET = "engine_test_scenes"
# Masks per image: shares of them between processes and micro-batches are all different.
COUNTS = (3, 0, 1, 2)
WITHOUT_CHANCE = {
    "MODEL.MASK_FORMER.DROPOUT": 0.0,
    "MODEL.SWIN.DROP_PATH_RATE": 0.0,
    "SOLVER.CLIP_GRADIENTS.ENABLED": False,
    "SOLVER.IMS_PER_BATCH": len(COUNTS),
    "SEED": 1,
}


def small_cfg(output: Path, *opts: object) -> CfgNode:
    given = dict(zip(opts[::2], opts[1::2], strict=True))
    settings = WITHOUT_CHANCE | {"OUTPUT_DIR": str(output)} | given
    return tiny_cfg(**{str(key).replace(".", "__"): value for key, value in settings.items()})


def small_model(cfg: CfgNode) -> nn.Module:
    MetadataCatalog.get(DATASET).set(stuff_classes=list(NAMES))
    torch.manual_seed(cfg.SEED)
    return build_model(cfg).train()


def scenes() -> list[dict]:
    rng = np.random.default_rng(5)
    inputs = []
    for count in COUNTS:
        masks = torch.from_numpy(rng.random((count, 64, 64)) < 0.4)
        instances = Instances((64, 64))
        instances.gt_classes = torch.arange(count)
        instances.gt_masks = masks
        image = torch.from_numpy(rng.integers(0, 256, (3, 64, 64), dtype=np.uint8))
        inputs.append({"image": image, "instances": instances, "meta": {"dataset_name": DATASET}})
    return inputs


def gradients(cfg: CfgNode) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Gradients and losses of one step on this process's share of the scenes."""
    model = small_model(cfg)
    trainer = Trainer.from_config(cfg, model, evaluate=None)
    losses = trainer.step(scenes()[comm.get_rank() :: comm.get_world_size()], iteration=0)
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad}, losses


def main(args) -> None:
    output = Path(os.environ["TINY_OUTPUT"])
    found, losses = gradients(small_cfg(output, *args.opts))
    if comm.is_main_process():
        torch.save({"gradients": found, "losses": losses}, output / "step.pth")


if __name__ == "__main__":
    run_distributed(main, default_argument_parser().parse_args(sys.argv[1:]))
