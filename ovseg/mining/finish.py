"""The end of a run: the shards' figures are added up and the folder is marked as complete."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ovseg.data.captions.sources import Shard
from ovseg.mining.summary import merge_statistics, summarise
from ovseg.mining.worker import MANIFEST, parts_of
from ovseg.readers.documents import read_json
from ovseg.utils.environment import environment_record
from ovseg.utils.files import atomic_path, write_json
from ovseg.utils.part_files import remove_unfinished
from ovseg.utils.wording import counted

__all__ = ["RUN", "SUCCESS", "finish", "image_root_of", "is_unfinished"]

logger = logging.getLogger(__name__)

RUN = "run.json"
SUCCESS = "_SUCCESS"
_NAMES = ("part-", "manifest.", "summary.", "quarantine.", "run.", "report.", "_")


def finish(output: Path, shards: Sequence[Shard], *, run: Mapping[str, Any]) -> dict[str, Any]:
    """Add up the shards and write summary.json, quarantine.jsonl, run.json and _SUCCESS.

    Args:
        output: the run's folder, all of whose shards are finished.
        shards: all of them.
        run: facts about this run that another run with the same result may have otherwise; if
            `shards_mined` is 0, an earlier run's stay, but for `image_root`.

    Returns:
        The summary.
    """
    shards = sorted(shards, key=lambda shard: shard.index)
    digest, files = hashlib.sha256(), parts_of(output)

    def parts() -> Iterable[dict[str, Any]]:
        with atomic_path(output / "quarantine.jsonl") as temporary, temporary.open("w") as file:
            for shard in shards:
                part = files.read(shard.index)
                digest.update(part["sha256"].encode())
                for entry in part["set_aside"]:
                    file.write(json.dumps({"shard": shard.index, **entry}, sort_keys=True) + "\n")
                yield part

    manifest = read_json(output / MANIFEST)
    made_with = ("proposal_model", "clip_model", "noun_tagger", "config_hash")
    statistics = merge_statistics(parts())
    summary = {**{name: manifest[name] for name in made_with}, **summarise(statistics)}
    # Nobody writes here any more.
    remove_unfinished((output, files.folder), _NAMES)
    write_json(output / "summary.json", summary, sort_keys=True)
    write_json(output / RUN, _run_record(output / RUN, run), sort_keys=True)
    counts = {name: summary[name] for name in ("images_in", "pairs", "unique_nouns")}
    # Of the shards' checksums, in their order: one value stands for all pairs.
    done = {**counts, "shards": len(shards), "sha256_of_parts": digest.hexdigest()}
    write_json(output / SUCCESS, done, sort_keys=True)
    logger.info(
        "%s: %d with pairs, %d without, %d quarantined; %s of %s in %s",
        counted(summary["images_in"], "image"),
        summary["images_with_pairs"],
        summary["images_without_pairs"],
        summary["images_quarantined"],
        counted(summary["pairs"], "pair"),
        counted(summary["unique_nouns"], "noun"),
        output,
    )
    return summary


def image_root_of(records: str | Path) -> Path | None:
    """Tell where the pictures of records lay when they were mined.

    Args:
        records: as `ovseg.mining.records.read_records` takes it.

    Returns:
        The folder that relative addresses lie in; None where no finished run tells.

    Raises:
        ValueError: the run's file is damaged.
    """
    path = _run_of(Path(records)) / RUN
    root = _read_run(path).get("image_root") if path.is_file() else None
    return Path(root) if isinstance(root, str) else None


def is_unfinished(records: str | Path) -> bool:
    """Say whether records are of a run of the miner that has not come to its end.

    Args:
        records: as `ovseg.mining.records.read_records` takes it.

    Returns:
        False as well where no run tells.
    """
    run = _run_of(Path(records))
    return (run / MANIFEST).is_file() and not (run / SUCCESS).is_file()


def _run_record(path: Path, run: Mapping[str, Any]) -> dict[str, Any]:
    """What run.json is to hold: who only asks for a report later does not lose the run's speed."""
    if path.is_file() and not run["shards_mined"]:
        return {**_read_run(path), "image_root": run["image_root"]}
    return {**run, "environment": environment_record()}


def _read_run(path: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{path}: expected facts about a run of the miner ({error}); delete it and start the "
            "same run again"
        ) from error


def _run_of(records: Path) -> Path:
    """The run's folder, from itself, its `shards/` or a file in there."""
    folder = records.absolute()
    folder = folder.parent if folder.is_file() else folder
    return folder.parent if folder.name == "shards" else folder
