"""The end of a run: the shards' figures are added up and the folder is marked as complete."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg.mining.sources import Shard
from ovseg.mining.summary import merge_statistics, summarise
from ovseg.mining.worker import MANIFEST, part_path, read_part, write_json
from ovseg.utils.environment import environment_record
from ovseg.utils.files import atomic_path

__all__ = ["SUCCESS", "finish"]

logger = logging.getLogger(__name__)

SUCCESS = "_SUCCESS"


def finish(output: Path, shards: Sequence[Shard], *, run: Mapping[str, Any]) -> dict[str, Any]:
    """Add up the shards and write summary.json, quarantine.jsonl, run.json and _SUCCESS.

    Args:
        output: the run's folder, all of whose shards are finished.
        shards: all of them.
        run: facts about this run that another run with the same result may have otherwise.

    Returns:
        The summary.
    """
    shards = sorted(shards, key=lambda shard: shard.index)
    digest = hashlib.sha256()

    def parts() -> Iterable[dict[str, Any]]:
        with atomic_path(output / "quarantine.jsonl") as temporary, temporary.open("w") as file:
            for shard in shards:
                part = read_part(output, shard.index)
                digest.update(part["sha256"].encode())
                for entry in part["set_aside"]:
                    file.write(json.dumps({"shard": shard.index, **entry}, sort_keys=True) + "\n")
                yield part

    manifest = json.loads((output / MANIFEST).read_text(encoding="utf-8"))
    made_with = ("proposal_model", "clip_model", "noun_tagger", "config_hash")
    statistics = merge_statistics(parts())
    summary = {**{name: manifest[name] for name in made_with}, **summarise(statistics)}
    _remove_leftovers(output, shards)
    write_json(output / "summary.json", summary)
    write_json(output / "run.json", {**run, "environment": environment_record()})
    counts = {name: summary[name] for name in ("images_in", "pairs", "unique_nouns")}
    # Of the shards' checksums, in their order: one value stands for all pairs.
    write_json(
        output / SUCCESS, {**counts, "shards": len(shards), "sha256_of_parts": digest.hexdigest()}
    )
    logger.info(
        "%d images: %d with pairs, %d without, %d set aside; %d pairs of %d nouns in %s",
        summary["images_in"],
        summary["images_with_pairs"],
        summary["images_without_pairs"],
        summary["images_quarantined"],
        summary["pairs"],
        summary["unique_nouns"],
        output,
    )
    return summary


def _remove_leftovers(output: Path, shards: Sequence[Shard]) -> None:
    """Remove half-written files of processes that were killed; nobody writes here any more."""
    if not shards:
        return
    for folder in (output, part_path(output, 0).parent):
        for kind in (".part-*", ".manifest.*", ".summary.*", ".quarantine.*", ".run.*", "._*"):
            for file in folder.glob(kind):
                file.unlink(missing_ok=True)
