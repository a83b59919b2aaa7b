"""Write the weights of a run in half precision, as they travel with the package."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ovseg.utils.command_line import run_parsed
from ovseg.weights.load import read_state_dict, write_safetensors

from .loading import matcher_of_state

__all__ = ["main"]


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m ovseg.projects.pnp_ovss.bundle", description=__doc__
    )
    parser.add_argument("weights", type=Path, help="model_final.safetensors of a run")
    parser.add_argument("output", type=Path, help="such as ovseg/assets/pnp_ovss_tiny.safetensors")
    return parser


def main(args: argparse.Namespace) -> None:
    """Read a matcher, check that it is whole, and write it."""
    state = read_state_dict(args.weights)
    matcher_of_state(state, source=str(args.weights))
    half = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    write_safetensors(args.output, half)


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
