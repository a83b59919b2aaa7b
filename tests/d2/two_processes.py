"""Two processes that report what they see of each other; started by `test_contract.py`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from ovseg import d2
from ovseg.d2.engine import launch
from ovseg.d2.utils import comm


def report(folder: str) -> None:
    rank = comm.get_rank()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    losses = comm.reduce_dict({"loss": torch.tensor(float(rank + 1), device=device)})
    seen = {
        "backend": d2.backend(),
        "world": [comm.get_world_size(), comm.get_local_size(), comm.get_local_rank()],
        "all": comm.all_gather(f"from {rank}"),
        "gathered": comm.gather(rank * 10),
        "main": comm.is_main_process(),
        "loss": float(losses["loss"]),
        "seed": comm.shared_random_seed(),
    }
    comm.synchronize()
    Path(folder, f"{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    launch(report, 2, dist_url="auto", args=(sys.argv[1],))
