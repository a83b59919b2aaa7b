"""Mined records together with the folders that their pictures are in."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ovseg.mining.finish import image_root_of, is_unfinished
from ovseg.mining.records import SCHEMA, read_records
from ovseg.readers.pictures import ImageError
from ovseg.utils.image_store import ImageStore

__all__ = ["open_records"]

logger = logging.getLogger(__name__)


def open_records(
    paths: Sequence[str | Path], image_root: str | Path | None = None
) -> tuple[pa.Table, Path]:
    """Read mined records and find the pictures that they refer to.

    Args:
        paths: folders of the miner or record files; at least one.
        image_root: folder that relative addresses lie in; None takes the one that each run of the
            miner read its pictures from, and the current one where no run tells.

    Returns:
        The records of all paths, and the folder that their relative addresses lie in.

    Raises:
        FileNotFoundError: no records at a path.
        ValueError: a file that holds no records, or pictures that are not where they should be.
    """
    found = [(path, read_records(path), _root(path, image_root)) for path in paths]
    for path, records, root in found:
        if is_unfinished(path):
            logger.warning("%s: mining has not finished; the pairs so far are used", path)
        _check_pictures(path, records, root)
    roots = [root for _, _, root in found]
    tables = [records for _, records, _ in found]
    if len({root.absolute() for root in roots}) > 1:
        tables = [_with_root(*one) for one in zip(tables, roots, strict=True)]
    return pa.concat_tables(tables), roots[0]


def _root(path: str | Path, image_root: str | Path | None) -> Path:
    if image_root is not None:
        root, told = Path(image_root), "--image-root"
    else:
        mined = image_root_of(path)
        root, told = mined or Path(), f"the run of {path}"
    if not root.is_dir():
        raise ValueError(
            f"{root}: no such folder, though {told} has its pictures there; give the folder that "
            "they are in now with --image-root"
        )
    return root


def _check_pictures(path: str | Path, records: pa.Table, root: Path) -> None:
    """Look up the first, middle and last picture: a wrong folder shows at once, not in training."""
    if not len(records):
        return
    store, faults, others = ImageStore(root), [], 0
    rows = sorted({0, len(records) // 2, len(records) - 1})
    for row in records.take(rows).select(["image_uri", "image_sha256"]).to_pylist():
        try:
            data = store.read_bytes(row["image_uri"])
        except ImageError as error:
            faults.append(error)
        else:
            others += hashlib.sha256(data).hexdigest() != row["image_sha256"]
    if len(faults) == len(rows):
        raise ValueError(
            f"{path}: its pictures are not in {root.absolute()} ({faults[0]}); give the folder "
            "that the records' addresses are relative to with --image-root"
        )
    if others == len(rows) - len(faults):
        logger.warning(
            "%s: the pictures in %s are not those that were mined, byte for byte; the regions fit "
            "only if they show the same. Is it the right --image-root?",
            path,
            root.absolute(),
        )


def _with_root(records: pa.Table, root: Path) -> pa.Table:
    """Write the records' addresses with the folder that they lie in."""
    given = records["image_uri"]
    joined = pc.binary_join_element_wise(str(root.absolute()), given, "/")
    addresses = pc.if_else(pc.starts_with(given, "/"), given, joined)
    position = SCHEMA.get_field_index("image_uri")
    return records.set_column(position, SCHEMA.field(position), addresses)
