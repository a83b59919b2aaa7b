"""`ovseg segment`: pictures of one's own."""

from __future__ import annotations

import argparse

from ovseg.commands.flags.choices import EXPORT_FORMATS, VIEWS

WORK = "segment"
DESCRIPTION = "Segment pictures into the classes you name."
EXAMPLES = """
examples:
  %(prog)s A.jpg B.png 'dir/*.jpg' --names sky "red star" tree --output out/
  %(prog)s photos/ --vocabulary ade20k_150 --weights ovseg_swinB
  %(prog)s ortho.tif --names roof road meadow --weights ovseg_swinB --tile 1024
"""
OUTCOMES = f"""
writes for every picture:
  NAME_labels.png   label map: the value is the class's place in the list, from 0; pixels that no
                    class claims are 255 (8 bit, up to 255 classes) or 65535 (16 bit); with
                    --tile of a TIFF NAME_labels.tif, with its coordinates
  NAME.json         names, areas, scores, COCO RLE, and which weights made them
  NAME_VIEW         pictures to look at, of {", ".join(VIEWS)} (--vis)
  FORMAT/           for other tools, of {", ".join(EXPORT_FORMATS)} (--export)

exit status: 0, or 1 if a picture failed (the others are still done), or 2 for wrong arguments
"""


def make_parser(program: str) -> argparse.ArgumentParser:
    """Make the parser of `ovseg segment`, which takes the pictures without a flag."""
    parser = argparse.ArgumentParser(
        prog=program,
        description=DESCRIPTION,
        epilog=EXAMPLES + OUTCOMES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", nargs="+", metavar="PATH", help="files, folders, quoted patterns")
    add_flags(parser)
    return parser


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add all flags but that of the pictures."""
    add = parser.add_argument
    add("--output", default="out", metavar="DIR", help="folder for the results (default: out)")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument(
        *("--class-names", "--names"), nargs="+", metavar="NAME", help="what to look for"
    )
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
        type=_score,
        default=0.0,
        metavar="SCORE",
        help="leave pixels of classes with a lower score without a class (default: 0, none)",
    )
    add("--proposals", action="store_true", help="list the model's masks in the JSON file")
    add(
        "--min-region-area",
        type=_area,
        default=0,
        metavar="PIXELS",
        help="merge connected parts with fewer pixels into what surrounds them (default: none)",
    )
    add(
        "--tile",
        type=_side,
        metavar="PIXELS",
        help="segment large pictures in tiles with so many pixels a side, in bounded memory; TIFFs "
        "are read by windows, which takes the extra geo",
    )
    add(
        "--overlap",
        type=_overlap,
        metavar="SHARE",
        help="of a tile, that the next one covers again, from 0 to 0.5 (default: 0.25)",
    )
    add("--config-file", metavar="FILE", help="config file or shipped name")
    add("--weights", metavar="W", help="name, path, address, random (default: the config's)")
    add("--device", help="cpu, cuda, cuda:1, mps (default: the GPU if there is one)")
    add("--opts", nargs="+", default=[], metavar="KEY VALUE", help="config overrides")


def _score(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"expected a score from 0 to 1, got {text}")
    return value


def _overlap(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 0.5:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to 0.5, got {text}")
    return value


def _side(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number of pixels, at least 1, got {text}")
    return int(text)


def _area(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a number of pixels, got {text}")
    return int(text)
