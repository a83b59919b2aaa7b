"""Names whole pictures by a PACL: `python -m ovseg.projects.pacl.classify --help`.

Image classification by text-conditioned pooling (Mukhoti et al., CVPR 2023): the score of a class
is the compatibility of the picture with the class's texts.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch

from ovseg.predictor import load
from ovseg.projects.pacl.model import PACL
from ovseg.utils.command_line import run_parsed
from ovseg.utils.pictures import ImageLike, to_rgb
from ovseg.vocab import Vocabulary

__all__ = ["classify", "main"]


@torch.no_grad()
def classify(model: PACL, image: ImageLike, vocabulary: Vocabulary) -> np.ndarray:
    """Says what a picture shows.

    Args:
        model: a PACL with its weights.
        image: a file, a PIL image, or an (H, W, 3) uint8 RGB array.
        vocabulary: K classes.

    Returns:
        (K,) float32 probabilities: the softmax of the compatibilities at the trained scale.
    """
    pixels = to_rgb(image)
    inputs = {"image": torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))}
    [scores] = model.image_scores([inputs], vocabulary)  # (K,)
    return (model.scale * scores).softmax(-1).cpu().numpy()


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="ovseg.projects.pacl.classify",
        description="Print the most probable classes of each picture, best first.",
    )
    parser.add_argument("--config-file", default="pacl_tiny", help="path, or name of a shipped one")
    parser.add_argument("--weights", help="name, path or address; by default the config's")
    parser.add_argument("--input", nargs="+", required=True, help="pictures")
    parser.add_argument("--class-names", nargs="+", required=True)
    parser.add_argument("--top", type=int, default=5, help="classes to show")
    parser.add_argument("--device", help="by default the GPU if there is one")
    parser.add_argument("opts", nargs="*", help="config overrides: KEY VALUE ..., after --")
    return parser


def main(args: argparse.Namespace) -> None:
    """Print the most probable classes of each picture, best first.

    Args:
        args: what the parser returned.

    Raises:
        ValueError: the config is of another method.
    """
    predictor = load(
        args.weights, config=args.config_file, device=args.device, opts=list(args.opts)
    )
    if not isinstance(predictor.model, PACL):
        raise ValueError(
            f"--config-file: expected a config of PACL, without TEST.SLIDING_WINDOW and TEST.AUG, "
            f"got one that gives a {type(predictor.model).__name__}"
        )
    vocabulary = predictor.vocabulary(args.class_names)
    for file in args.input:
        found = classify(predictor.model, file, vocabulary)
        best = np.argsort(-found, kind="stable")[: args.top]
        named = ", ".join(f"{vocabulary.names[k]} {found[k]:.3f}" for k in best)
        sys.stdout.write(f"{file}: {named}\n")


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
