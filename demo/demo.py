#!/usr/bin/env python
"""Segment pictures into the classes you name.

Without any argument the bundled model segments the sample scenes into the classes of tinyscapes:
six scenes of its test split, drawn by lot (random.Random(0)) before anybody looked.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch; see ovseg.utils.threads

import ovseg
from ovseg.batch import find_images, segment_files, split_names
from ovseg.exports import EXPORT_FORMATS, check_formats, make_exporter
from ovseg.segmentation import VIEWS, check_views
from ovseg.vocab import class_list_names
from ovseg.vocab.class_files import read_class_file

SAMPLES = Path(__file__).resolve().parent / "samples"
EPILOG = f"""
examples:
  demo.py --input A.jpg B.png 'dir/*.jpg' --class-names sky "red star" tree --output out/
  demo.py --input photos/ --vocabulary ade20k_150 --weights ovseg_swinB

writes for every picture:
  NAME_labels.png   label map: the value is the class's place in the list, from 0; pixels that no
                    class claims are 255 (8 bit, up to 255 classes) or 65535 (16 bit)
  NAME.json         names, areas, scores, COCO RLE, and which weights made them
  NAME_VIEW         pictures to look at, of {", ".join(VIEWS)} (--vis)
  FORMAT/           for other tools, of {", ".join(EXPORT_FORMATS)} (--export)

exit status: 0, or 1 if a picture failed (the others are still done), or 2 for wrong arguments
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", nargs="+", metavar="PATH", help="files, folders, quoted patterns")
    add("--output", default="out", metavar="DIR", help="folder for the results (default: out)")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument("--class-names", nargs="+", metavar="NAME", help="what to look for")
    classes.add_argument(
        "--class-file", metavar="FILE", help="names: one per line, JSON, YAML, CSV"
    )
    classes.add_argument("--vocabulary", metavar="BENCHMARK", help="such as ade20k_150")
    add("--background", metavar="NAME", help='a class for everything else, such as "others"')
    add("--vis", default="overlay", metavar="VIEWS", help=f"of {','.join(VIEWS)}, with commas")
    add(
        "--export",
        default="",
        metavar="FORMATS",
        help=f"of {','.join(EXPORT_FORMATS)}, with commas",
    )
    add(
        "--threshold",
        type=float,
        default=0.0,
        metavar="SCORE",
        help="leave pixels of classes with a lower score without a class (default: 0, none)",
    )
    add("--proposals", action="store_true", help="list the model's masks in the JSON file")
    add(
        "--min-region-area",
        type=int,
        default=0,
        metavar="PIXELS",
        help="merge connected parts with fewer pixels into what surrounds them (default: none)",
    )
    add("--config-file", metavar="FILE", help="config file or shipped name")
    add(
        "--weights",
        metavar="W",
        help="name, path, address, random (default: the config's)",
    )
    add("--device", help="cpu, cuda, cuda:1, mps (default: the GPU if there is one)")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config overrides")
    args = parser.parse_args(arguments)
    if len(args.class_names or ()) == 1 and args.class_names[0] in class_list_names():
        args.vocabulary, args.class_names = args.class_names[0], None
    if not 0 <= args.threshold <= 1:
        parser.error(f"--threshold: expected a score from 0 to 1, got {args.threshold}")
    if args.min_region_area < 0:
        parser.error(f"--min-region-area: expected pixels, got {args.min_region_area}")
    return args


def choose_names(args: argparse.Namespace) -> list[str] | None:
    """Read the class names that the arguments give; None for a benchmark's."""
    if args.class_file:
        return read_class_file(args.class_file)
    if args.class_names:
        names, remark = split_names(args.class_names, has_input=bool(args.input))
        if remark:
            print(f"note: {remark}")
        return names
    if args.input and not args.vocabulary:
        raise ValueError("name what to look for: --class-names, --class-file or --vocabulary")
    return None


def split_list(text: str) -> list[str]:
    """Read words with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo and return its exit status."""
    args = parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    views = split_list(args.vis)
    try:
        check_views(views)
        formats = split_list(args.export)
        check_formats(formats)
        names = choose_names(args)
        Path(args.output).mkdir(parents=True, exist_ok=True)
        predictor = ovseg.load(
            args.weights, config=args.config_file, device=args.device, opts=args.opts
        )
        vocabulary = (
            predictor.vocabulary(names, background=args.background)
            if names
            else predictor.benchmark(args.vocabulary or "tinyscapes", background=args.background)
        )
        exporters = [
            make_exporter(name, Path(args.output) / name, vocabulary.names) for name in formats
        ]
    except (OSError, ValueError, KeyError) as error:
        text = error.args[0] if isinstance(error, KeyError) else error  # str() would quote it
        print(f"demo.py: error: {text}", file=sys.stderr)
        return 2
    print(f"{predictor.describe()}\nclasses: {len(vocabulary)}", flush=True)
    sources = find_images(args.input or [SAMPLES])
    outcomes = segment_files(
        predictor,
        sources,
        vocabulary,
        args.output,
        views=views,
        proposals=args.proposals,
        min_region_area=args.min_region_area,
        threshold=args.threshold,
        exporters=exporters,
    )
    failed = []
    for number, source in enumerate(sources, start=1):
        print(f"\n[{number}/{len(sources)}] {source.path}", flush=True)
        outcome = next(outcomes)
        print(outcome.describe(), flush=True)
        failed += [outcome] if outcome.error else []
    for exporter in exporters:
        print(f"\n{exporter.name}: {', '.join(str(file) for file in exporter.finish()[:3])}")
    print(f"\n{len(sources) - len(failed)} of {len(sources)} segmented, results in {args.output}")
    for outcome in failed:
        print(f"failed: {outcome.path}: {outcome.error}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
