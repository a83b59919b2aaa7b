"""Detectron2's command line, this one under both backends: the real one takes seconds to import."""

from __future__ import annotations

import argparse
import os
import sys

__all__ = ["default_argument_parser"]


def default_argument_parser(epilog: str | None = None) -> argparse.ArgumentParser:
    """Make a parser with the arguments that Detectron2 users know.

    Args:
        epilog: text after the list of arguments; None shows examples.

    Returns:
        The parser, open for more arguments.
    """
    script = sys.argv[0]
    parser = argparse.ArgumentParser(
        epilog=epilog
        or f"""
examples:
  train on 8 GPUs:    {script} --config-file cfg.yaml --num-gpus 8
  override settings:  {script} --config-file cfg.yaml MODEL.WEIGHTS model.safetensors
  two machines:       {script} --num-machines 2 --machine-rank 0 --dist-url <URL> ...
                      {script} --num-machines 2 --machine-rank 1 --dist-url <URL> ...
""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--config-file", default="", metavar="FILE", help="config file")
    add("--resume", action="store_true", help="continue from the last checkpoint, if any")
    add("--eval-only", action="store_true", help="evaluate only")
    add("--num-gpus", type=int, default=1, help="GPUs (processes) per machine")
    add("--num-machines", type=int, default=1, help="number of machines")
    add("--machine-rank", type=int, default=0, help="number of this machine, from 0")
    # One port per user: a run that an earlier one left behind shows up as a port in use.
    port = 2**15 + 2**14 + hash(os.getuid() if hasattr(os, "getuid") else 1) % 2**14
    add("--dist-url", default=f"tcp://127.0.0.1:{port}", help="where the processes meet")
    add("opts", nargs=argparse.REMAINDER, help="settings to override: KEY VALUE KEY VALUE ...")
    return parser
