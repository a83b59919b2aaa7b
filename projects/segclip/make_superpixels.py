"""Make the superpixels of captioned pictures; one that is killed goes on when it is repeated.

    python -m ovseg.projects.segclip.make_superpixels --config-file segclip_vitB16 --output FOLDER

Pictures that cannot be read are quarantined: OUTPUT/quarantine.json has them with the reasons, and
training takes other samples in their place.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.utils import setup_logger
from ovseg.data.captions.records import open_caption_set
from ovseg.data.captions.sources import ImageReader, Shard, Source
from ovseg.projects.segclip.superpixels import (
    Felzenszwalb,
    shard_file,
    shrink,
    write_quarantine,
    write_shard,
)
from ovseg.readers.pictures import ImageError
from ovseg.utils.command_line import run_parsed
from ovseg.utils.folder_lock import only_run
from ovseg.utils.processes import exit_with_parent, map_unordered
from ovseg.utils.run_record import RunRecord

RECORD = "run.json"


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--config-file", required=True, help="says which pictures (DATASETS.TRAIN) and settings")
    add("--output", type=Path, required=True, help="folder of the store")
    add("--workers", type=int, default=1, help="processes; the store is the same for any number")
    add("--shard-size", type=int, default=1000, help="pictures of a file")
    add("opts", nargs=argparse.REMAINDER, help="settings to override: KEY VALUE ...")
    return parser


def make_superpixels(
    cfg: CfgNode, output: Path, *, workers: int = 1, shard_size: int = 1000
) -> dict[str, Any]:
    """Make what is missing of a store.

    Args:
        cfg: DATASETS.TRAIN, MODEL.SEGCLIP.FELZENSZWALB and STORED_SHORT_SIDE count.
        output: folder of the store.
        workers: processes.
        shard_size: pictures of a file.

    Returns:
        Quarantined pictures and the reasons.

    Raises:
        AnotherRunError: the folder holds superpixels with other settings.
        BusyFolderError: another run is writing to the folder.
    """
    sources = [open_caption_set(name) for name in cfg.DATASETS.TRAIN]
    settings = cfg.MODEL.SEGCLIP
    graph = settings.FELZENSZWALB
    method = Felzenszwalb(graph.SCALE, graph.SIGMA, graph.MIN_SIZE)
    record = {
        "felzenszwalb": method._asdict(),
        "short_side": settings.STORED_SHORT_SIDE,
        "shard_size": shard_size,
        "pictures": {str(n): len(s) for n, s in zip(cfg.DATASETS.TRAIN, sources, strict=True)},
    }
    remedy = "name another --output or remove the folder"
    with only_run(output, what="making superpixels"):
        RunRecord(record, "store of superpixels", remedy).claim(output / RECORD)
        work = partial(_segment, output, method, settings.STORED_SHORT_SIDE)
        pending = [item for item in _numbered(sources, shard_size) if not _is_done(output, item[0])]
        progress = tqdm(total=sum(len(shard.rows) for _, shard, _ in pending), unit="picture")
        with progress:
            if workers == 1:
                for item in pending:
                    progress.update(work(item)["pictures"])
            else:
                with ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
                    for done in map_unordered(pool, work, pending, max_pending=2 * workers):
                        progress.update(done["pictures"])
        return write_quarantine(output)


def _numbered(sources: list[Source], shard_size: int) -> Iterator[tuple[int, Shard, Path]]:
    """Shards of all sources, numbered through, with the folder of their pictures."""
    number = 0
    for source in sources:
        for shard in source.shards(shard_size):
            yield number, shard, Path(source.image_root)
            number += 1


def _is_done(output: Path, number: int) -> bool:
    return shard_file(output, number).with_suffix(".npz").is_file()


def _start_worker() -> None:
    cv2.setNumThreads(0)
    exit_with_parent()


def _segment(
    output: Path, method: Felzenszwalb, short: int, item: tuple[int, Shard, Path]
) -> dict[str, int]:
    number, shard, image_root = item
    read = ImageReader(image_root)

    def maps() -> Iterator[tuple[str, np.ndarray | str]]:
        for row in shard.rows:
            try:
                yield row.image_id, method(shrink(read(row), short))
            except ImageError as error:
                yield row.image_id, str(error)

    return write_shard(output, number, maps())


def main(args: argparse.Namespace) -> None:
    """Make the store."""
    setup_logger(name="ovseg")
    cfg = load_cfg(args.config_file, args.opts)
    if args.workers < 1 or args.shard_size < 1:
        raise ValueError("--workers, --shard-size: expected at least 1")
    quarantined = make_superpixels(
        cfg, args.output, workers=args.workers, shard_size=args.shard_size
    )
    logging.getLogger("ovseg").info(
        "%s is complete; %d pictures are quarantined", args.output, len(quarantined)
    )


if __name__ == "__main__":
    sys.exit(run_parsed(make_parser(), main))
