"""A model and a loader small enough to train for many steps within a test.

Run as a script it trains the toy in a process of its own, which a test may kill or start several
of.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from ovseg.config import get_default_cfg
from ovseg.d2.arguments import default_argument_parser
from ovseg.d2.config import CfgNode
from ovseg.d2.utils import comm
from ovseg.training.distributed import run_distributed
from ovseg.training.loop import train
from ovseg.utils.command_line import guarded

WIDTH = 6


class ToyModel(nn.Module):
    """Two losses: a mean over images, and a sum over marked images divided by their number."""

    def __init__(self, *, dropout: float = 0.2, weighted: bool = True) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.ReLU())
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(WIDTH, 1)
        self.frozen = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.weighted = weighted

    def forward(self, batch: list[dict]) -> dict[str, torch.Tensor]:
        rows = torch.stack([item["row"] for item in batch]).to(
            self.head.weight.device
        )  # (B, WIDTH)
        marks = torch.tensor([item["marked"] for item in batch], dtype=torch.float32)  # (B,)
        score = self.head(self.dropout(self.backbone(rows + self.frozen(rows))))[:, 0]  # (B,)
        error = (score - rows.sum(1)).square()
        marked = (error * marks.to(error.device)).sum() / self.divisor(batch)
        return {"loss_all": error.mean(), "loss_marked": marked}

    def divisor(self, batch: list[dict]) -> float:
        total = torch.tensor(float(sum(item["marked"] for item in batch)))
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(total)
        return float(total) / comm.get_world_size()

    @property
    def micro_batch_weights(self):
        if not self.weighted:
            raise AttributeError("this toy tells nothing about its divisor")
        return self._weights

    def _weights(self, micro_batches: list[list[dict]]) -> list[dict[str, float]]:
        each = [self.divisor(batch) for batch in micro_batches]
        return [{"loss_marked": divisor / sum(each)} for divisor in each]


def toy_batch(cfg: CfgNode, iteration: int) -> list[dict]:
    """This process's part of a batch; the same whole batch for any number of processes."""
    generator = torch.Generator().manual_seed(1000 * cfg.SEED + iteration)
    rows = torch.randn(cfg.SOLVER.IMS_PER_BATCH, WIDTH, generator=generator)
    items = [{"row": row, "marked": index % 4 != 1} for index, row in enumerate(rows)]
    return items[comm.get_rank() :: comm.get_world_size()]


def toy_loader(cfg: CfgNode, *, start_iteration: int = 0) -> Iterator[list[dict]]:
    iteration = start_iteration
    while True:
        yield toy_batch(cfg, iteration)
        iteration += 1


def toy_cfg(output: Path, *opts: object) -> CfgNode:
    cfg = get_default_cfg()
    settings = [
        *("OUTPUT_DIR", str(output), "SEED", 3, "MODEL.DEVICE", "cpu", "SOLVER.LOG_PERIOD", 1),
        *("SOLVER.IMS_PER_BATCH", 8, "SOLVER.MAX_ITER", 12, "SOLVER.CHECKPOINT_PERIOD", 5),
        *("SOLVER.LR_SCHEDULER_NAME", "WarmupPolyLR", "SOLVER.WARMUP_ITERS", 4),
        *("SOLVER.BASE_LR", 0.05),
    ]
    cfg.merge_from_list([*settings, *opts])
    cfg.freeze()
    return cfg


def make_toy(cfg: CfgNode, **kwargs) -> ToyModel:
    torch.manual_seed(cfg.SEED)
    return ToyModel(**kwargs)


def killing_loader(cfg: CfgNode, *, start_iteration: int = 0) -> Iterator[list[dict]]:
    """Ends the process, as `kill -9` does, when iteration KILL_AT asks for its batch.

    Where KILL_RANK is given, only the process of that rank. When INTERRUPT_AT does, the main
    process gets what Ctrl-C sends.
    """
    fatal, stop = (int(os.environ.get(name, "-1")) for name in ("KILL_AT", "INTERRUPT_AT"))
    victim = int(os.environ.get("KILL_RANK", comm.get_rank()))
    for offset, batch in enumerate(toy_loader(cfg, start_iteration=start_iteration)):
        if start_iteration + offset == fatal and comm.get_rank() == victim:
            os.kill(os.getpid(), signal.SIGKILL)
        if start_iteration + offset == stop and comm.is_main_process():
            os.kill(os.getpid(), signal.SIGINT)
        yield batch


def main(args) -> None:
    cfg = toy_cfg(Path(os.environ["TOY_OUTPUT"]), *args.opts)
    model = make_toy(cfg, dropout=float(os.environ.get("TOY_DROPOUT", "0.2")))
    train(cfg, model, resume=args.resume, make_loader=killing_loader)
    if comm.is_main_process():
        gradients = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        torch.save(gradients, Path(cfg.OUTPUT_DIR) / "gradients.pth")


if __name__ == "__main__":
    arguments = default_argument_parser().parse_args()
    sys.exit(guarded(lambda: run_distributed(main, arguments), program="toy"))
