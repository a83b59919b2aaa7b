"""Store the regions of pictures in files, so that a slow source of regions runs once.

They are written as CorrCLIP's authors publish theirs: NAME.npz with an array instance_mask. Results
then come from MODEL.CORRCLIP.REGIONS.NAME files and PATH the folder. A run that is interrupted and
started again goes on.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also runs where it is not installed

from ovseg.config import load_cfg
from ovseg.d2.utils import setup_logger
from ovseg.data.captions.sources import KINDS
from ovseg.projects.corrclip.regions import RegionSource, build_regions
from ovseg.projects.corrclip.regions.store import store_regions
from ovseg.projects.corrclip.sources import open_pictures
from ovseg.utils.command_line import run_parsed
from ovseg.utils.shard_runs import EXECUTORS

EXAMPLES = """examples:
  %(prog)s --config-file corrclip_vitB --source ade20k_150_test_sem_seg --output regions/ade \\
    MODEL.CORRCLIP.REGIONS.NAME sam2
  %(prog)s --config-file corrclip_tiny --source photos --output regions/photos --workers 8 \\
    MODEL.CORRCLIP.REGIONS.NAME slic MODEL.CORRCLIP.REGIONS.SLIC.SEGMENTS 50
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLES, formatter_class=form)
    add = parser.add_argument
    add("--config-file", required=True, help="a CorrCLIP's; its section REGIONS says which source")
    add("--source", nargs="+", required=True, help="dataset, folder of pictures, or captions")
    add("--kind", choices=KINDS, default="auto", help="of a source that is no dataset")
    add("--image-root", help="folder of the pictures, where the source does not tell")
    add("--limit", type=int, help="the first so many pictures only")
    add("--output", type=Path, required=True, help="folder of the maps")
    add("--executor", choices=EXECUTORS, default="local")
    add("--workers", type=int, default=1, help="processes or actors, each with its own model")
    add("--shard-size", type=int, default=100, help="pictures that a worker takes at a time")
    add("opts", nargs=argparse.REMAINDER, help="config overrides, KEY VALUE ...")
    return parser


def load_source(config_file: str, opts: list[str]) -> RegionSource:
    """Build the source of regions in a worker."""
    return build_regions(load_cfg(config_file, opts))


def main(args: argparse.Namespace) -> int:
    """Store regions; the exit status says whether every picture has some."""
    setup_logger(name="ovseg").setLevel(logging.INFO)
    summary = store_regions(
        open_pictures(args.source, args.kind, args.image_root),
        args.output,
        make_source=functools.partial(load_source, args.config_file, args.opts),
        **{name: getattr(args, name) for name in ("executor", "workers", "shard_size", "limit")},
    )
    if summary is None:
        return 0  # one of the other ranks
    print(json.dumps(summary, indent=1))
    return 1 if summary["images_quarantined"] else 0


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
