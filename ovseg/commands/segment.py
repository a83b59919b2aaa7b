"""`ovseg segment` and `ovseg demo`: label maps, records and pictures of files."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import ovseg
from ovseg.batch import Source, check_tiled, find_images, segment_files, split_names
from ovseg.exports import check_formats, make_exporter
from ovseg.large import OVERLAP
from ovseg.segmentation import check_views
from ovseg.utils.command_line import FAILED, usage
from ovseg.utils.files import require_writable
from ovseg.vocab import class_list_names
from ovseg.vocab.class_files import read_class_file


def main(args: argparse.Namespace) -> int:
    """Segment every picture, print what was found, and return the exit status."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    with usage():
        views, formats = _split_list(args.vis), _split_list(args.export)
        check_views(views)
        check_formats(formats)
        names = _choose_names(args)
        sources = find_images(args.input or [sample_folder()])
        if all(source.error for source in sources):
            raise ValueError("; ".join(f"{one.path}: {one.error}" for one in sources))
        _check_tiles(args, sources, formats)
        require_writable(args.output)
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
    print(f"{predictor.describe()}\nclasses: {len(vocabulary)}", flush=True)
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
        tile=args.tile,
        overlap=OVERLAP if args.overlap is None else args.overlap,
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
    return FAILED if failed else 0


def sample_folder() -> Path:
    """Find the sample scenes: inside the package when installed from a wheel, else in demo/."""
    package = Path(ovseg.__file__).resolve().parent
    installed = package / "samples"
    return installed if installed.is_dir() else package.parent / "demo" / "samples"


def _check_tiles(
    args: argparse.Namespace, sources: Sequence[Source], formats: Sequence[str]
) -> None:
    """Refuse flags that do not go with tiles, or not without them."""
    if args.tile is not None:
        check_tiled(
            sources,
            proposals=args.proposals,
            min_region_area=args.min_region_area,
            exports=bool(formats),
        )
    elif args.overlap is not None:
        raise ValueError("--overlap: expected it with --tile, which it is a share of")


def _choose_names(args: argparse.Namespace) -> list[str] | None:
    """Read the class names that the arguments give; None for a benchmark's."""
    if len(args.class_names or ()) == 1 and args.class_names[0] in class_list_names():
        args.vocabulary, args.class_names = args.class_names[0], None
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


def _split_list(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
