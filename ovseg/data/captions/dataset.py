"""Captioned pictures as a training set: what `DATASETS.TRAIN` may name beside label maps.

- a name of `ovseg.data.benchmarks.CAPTIONED`, such as `coco_2017_train_captions`;
- `captions:PATH`, with anything that `ovseg.data.captions.sources` opens: COCO's JSON, a table, a
  folder, tars or parquet, a pattern such as `cc12m/*.tar`. A relative path lies below the root of
  all datasets.

A record holds `file_name` (the picture's address, see `ovseg.utils.image_store`), `image_id`,
`captions` (a tuple of texts) and `meta`. All records are listed in memory before training begins.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.benchmarks import CAPTIONED, CaptionFiles
from ovseg.data.captions.rows import Source
from ovseg.data.captions.sources import open_source
from ovseg.data.catalog import dataset_root, make_files

__all__ = ["caption_records", "names_captions", "register_captions"]

PREFIX = "captions:"

_logger = logging.getLogger(__name__)


def names_captions(entry: str) -> bool:
    """Tell whether an entry of `DATASETS.TRAIN` names captioned pictures.

    Args:
        entry: a name or a path.

    Returns:
        Whether `register_captions` takes it.
    """
    return entry.startswith(PREFIX) or any(files.name == entry for files in CAPTIONED)


def register_captions(entry: str) -> str:
    """Register captioned pictures; doing it again, also with another root, does no harm.

    Args:
        entry: see the module.

    Returns:
        The name in the catalogue, which is the entry.

    Raises:
        ValueError: the entry names no captions.
    """
    if not names_captions(entry):
        known = ", ".join(files.name for files in CAPTIONED)
        raise ValueError(f"expected one of {known} or {PREFIX}PATH, got {entry!r}")
    listed = {files.name: files for files in CAPTIONED}
    files = listed.get(entry) or CaptionFiles(entry, entry.removeprefix(PREFIX))
    if entry in DatasetCatalog.list():
        DatasetCatalog.remove(entry)
    DatasetCatalog.register(entry, partial(_load, files, dataset_root()))
    if entry not in MetadataCatalog.list():
        MetadataCatalog.get(entry).set(evaluator_type="none", split="train")
    return entry


def caption_records(source: Source, *, name: str = "") -> list[dict[str, Any]]:
    """List the pictures of a source that have a caption.

    Args:
        source: the pictures.
        name: dataset name, for messages and `meta`.

    Returns:
        One record per picture, in the source's order; see the module.
    """
    records = []
    for row in source:
        captions = tuple(text for text in row.captions if text and text.strip())
        if captions and row.uri:
            absolute = Path(row.uri).is_absolute()
            records.append(
                {
                    "file_name": row.uri if absolute else f"{source.image_root}/{row.uri}",
                    "image_id": row.image_id,
                    "captions": captions,
                    "meta": {"dataset_name": name},
                }
            )
    if len(records) < len(source):
        left_out = len(source) - len(records)
        _logger.warning("%s: left out %d rows without a picture or a caption", name, left_out)
    return records


def _load(files: CaptionFiles, root: Path) -> list[dict[str, Any]]:
    if files.maker is not None:
        make_files(files.maker, root)
    return caption_records(open_source(root / files.path), name=files.name)
