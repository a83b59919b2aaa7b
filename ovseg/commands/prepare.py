"""`ovseg prepare DATASET`: a dataset's files of its raw data."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from ovseg.commands.flags.prepare import CAPTION_SPLITS, LABELLED, SCENES
from ovseg.data.catalog import dataset_root
from ovseg.data.prepare import cityscapes, loveda, pascal_context, pascal_voc, vaihingen
from ovseg.data.prepare.ade20k import plan_ade20k, plan_ade20k_full
from ovseg.data.prepare.coco import plan_coco_object, plan_coco_stuff, plan_coco_stuff_10k
from ovseg.data.prepare.coco_captions import check_coco_captions
from ovseg.data.prepare.pipeline import PreparationError, prepare
from ovseg.tinyscapes import VERSION, write_split
from ovseg.tinyscapes.garden import write_garden
from ovseg.utils.command_line import FAILED
from ovseg.utils.wording import counted

logger = logging.getLogger(__name__)

PLANS = {
    "ade20k": plan_ade20k,
    "ade20k_full": plan_ade20k_full,
    "cityscapes": cityscapes.plan,
    "coco_object": plan_coco_object,
    "coco_stuff": plan_coco_stuff,
    "coco_stuff_10k": plan_coco_stuff_10k,
    "loveda": loveda.plan,
    "pascal_context": pascal_context.plan,
    "vaihingen": vaihingen.plan,
    "voc": pascal_voc.plan,
}


def main(args: argparse.Namespace) -> int:
    """Prepare one dataset; the exit status is 1 if a file was quarantined or has a fault."""
    if args.dataset == "garden":
        return draw_garden(args)
    args.root = dataset_root(args.root)
    others = {"coco_captions": check_captions, "tinyscapes": draw_tinyscapes}
    return others.get(args.dataset, make_labels)(args)


def make_labels(args: argparse.Namespace) -> int:
    """Make the labels of the splits that were asked for."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    status = 0
    for split in args.split or LABELLED[args.dataset][1]:
        try:
            work = PLANS[args.dataset](args.root, split)
            report = prepare(
                work.tasks, work.convert, workers=args.workers, progress=True, force=args.force
            )
            report.write(work.report)
        except PreparationError as error:
            logger.error("%s: %s", split, error)
            return FAILED
        logger.info("%s: %s", split, report)
        for file, reason in report.failed[:10]:
            logger.error("quarantined: %s: %s", file, reason)
        if report.failed:
            logger.error(
                "%s could not be used; %s lists all. Replace what is damaged and start the same "
                "command again",
                *(counted(len(report.failed), "file"), work.report),
            )
            status = FAILED
    return status


def check_captions(args: argparse.Namespace) -> int:
    """Check the captions and pictures of COCO."""
    status = 0
    for split in args.split or CAPTION_SPLITS:
        try:
            check = check_coco_captions(args.root, split)
        except PreparationError as error:
            raise PreparationError(f"{split}: {error}") from error
        print(f"{split}: {check.images} pictures, {check.captions} captions")
        for complaint in check.complaints:
            print(f"{split}: {complaint}", file=sys.stderr)
            status = FAILED
    return status


def draw_tinyscapes(args: argparse.Namespace) -> int:
    """Draw the splits of tinyscapes."""
    root: Path = args.root
    for split in SCENES:
        count = getattr(args, split)
        if count:
            write_split(root, split, count, workers=args.workers, progress=True)
    print(f"tinyscapes, version {VERSION}, is in {root / 'tinyscapes'}")
    return 0


def draw_garden(args: argparse.Namespace) -> int:
    """Draw the dataset of docs/your_data.md."""
    folder = write_garden(args.folder, train=args.train, val=args.val)
    print(f"a garden is in {folder}: pictures, labels, train.yaml and val.yaml")
    return 0
