"""Draw the demo's sample scenes, segment them and write README's picture of them.

Which scenes of tinyscapes' test split these are says a lot, `ovseg.tinyscapes.sample_scenes`, not
whether the model does well on them. They are asked for all classes.

examples:
  python tools/sample_pictures.py        # demo/samples and docs/overlay.jpg anew
  python tools/sample_pictures.py --count 10 --seed 1 --truth --samples out --picture out/ten.jpg
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

import ovseg
from ovseg.tinyscapes import (
    SAMPLE_SPLIT,
    mentioned_classes,
    render_scene,
    sample_scenes,
    write_samples,
)
from ovseg.utils.command_line import run_parsed
from ovseg.utils.result_files import write_picture
from ovseg.visualization import tiles

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = 2


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=len(sample_scenes()), help="of scenes")
    parser.add_argument("--seed", type=int, default=0, help="of the lot (default: the demo's, 0)")
    parser.add_argument("--truth", action="store_true", help="show the true labels beside")
    parser.add_argument("--samples", type=Path, default=ROOT / "demo" / "samples", metavar="DIR")
    parser.add_argument("--picture", type=Path, default=ROOT / "docs" / "overlay.jpg")
    parser.add_argument("--weights", help="name or path (default: the bundled ones)")
    parser.add_argument("--config-file", help="where the weights' name does not tell it")
    return parser


def main(args: argparse.Namespace) -> None:
    """Write the scenes and the picture; print what was found in each."""
    numbers = sample_scenes(args.count, args.seed)
    files = write_samples(args.samples, numbers)
    predictor = ovseg.load(args.weights, config=args.config_file)
    vocabulary = predictor.benchmark("tinyscapes")
    pictures = []
    for number, file in zip(numbers, files, strict=True):
        scene = render_scene(SAMPLE_SPLIT, number)
        result = predictor.segment(file, vocabulary)
        pictures.append(result.overlay())
        if args.truth:
            truth = replace(result, labels=scene.labels.astype(np.int32))
            pictures.append(truth.overlay())
        print(f"{file}\nits captions mention: {mentioned_classes(scene.captions)}")
        print(f"{result.table()}\n", flush=True)
    args.picture.parent.mkdir(parents=True, exist_ok=True)
    write_picture(args.picture, tiles(pictures, COLUMNS), quality=75)
    print(args.picture)


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
