"""`ovseg mine`: noun-region pairs of captioned pictures."""

from __future__ import annotations

import argparse
import json
import logging

from ovseg.d2.utils import setup_logger
from ovseg.data.captions.sources import open_source
from ovseg.miner import parts_maker
from ovseg.mining.executors import run_mining
from ovseg.mining.options import settings
from ovseg.mining.outcomes import after_mining
from ovseg.utils.command_line import FAILED, usage


def main(args: argparse.Namespace) -> int:
    """Mine, then write what was asked for; the exit status says whether there are pairs."""
    setup_logger(name="ovseg").setLevel(logging.INFO)
    with usage():
        source = open_source(args.source, args.kind, args.image_root)
        config, choice = settings(args)
    how = {name: getattr(args, name) for name in ("executor", "workers", "limit")}
    how["make_parts"] = parts_maker(config, choice)
    summary = run_mining(source, config, args.output, **how)
    if summary is None:
        return 0  # one of the other ranks
    print(json.dumps({k: v for k, v in summary.items() if k != "histograms"}, indent=1))
    after = {name: getattr(args, name) for name in ("template", "min_count", "max_count")}
    after |= {"report": args.report or args.executor == "dry-run", "exports": args.export}
    for path in after_mining(args.output, source, **after):
        print(path)
    return 0 if summary["pairs"] else FAILED
