"""Write the weights of a run in half precision, as they travel with the package."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ovseg.weights.load import read_state_dict, write_safetensors

from .loading import matcher_of_state

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read a matcher, check that it is whole, and write it."""
    parser = argparse.ArgumentParser(
        prog="python -m ovseg.projects.pnp_ovss.bundle", description=__doc__
    )
    parser.add_argument("weights", type=Path, help="model_final.safetensors of a run")
    parser.add_argument("output", type=Path, help="such as ovseg/assets/pnp_ovss_tiny.safetensors")
    args = parser.parse_args(arguments)
    state = read_state_dict(args.weights)
    matcher_of_state(state, source=str(args.weights))
    half = {name: t.half() if t.is_floating_point() else t for name, t in state.items()}
    write_safetensors(args.output, half)


if __name__ == "__main__":
    main()
