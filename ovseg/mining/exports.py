"""Mined pairs in the forms that other programs read: a table of crops, WebDataset, COCO.

The records stay the source; an export can be made again at any time. An export that was stopped
goes on where it was when called again with the same records and options: each file is written
beside its place and renamed, and the file that lists the pairs comes last.

Stock open_clip trains on both kinds of pairs, from inside the export's folder:

    python -m open_clip_train.main --train-data pairs.tsv --dataset-type csv
        --csv-img-key filepath --csv-caption-key title ...
    python -m open_clip_train.main --train-data '{00000..00041}.tar' --dataset-type webdataset ...
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from ovseg.mining.crops import (
    FORMS,
    Pair,
    ReadImage,
    encode_png,
    iterate_pairs,
    iterate_rows,
)
from ovseg.utils.files import atomic_path, write_json
from ovseg.utils.masks import RunLength
from ovseg.utils.run_record import RunRecord

__all__ = ["export_coco", "export_tsv", "export_webdataset"]

logger = logging.getLogger(__name__)

_SETTINGS = "export.json"
_SHARD_SIZE = 10_000
# Names of `atomic_path` for the files of an export.
_TEMPORARY_FILES = (
    ".export.*.json",
    ".pairs.*.tsv",
    ".sizes.*.json",
    ".*.tar",
    "images/*/.*.png",
    "masks/*/.*.png",
)

# What pandas reads as a missing value, quoted or not, and open_clip then trains as the text "nan".
# CLIP's tokenizer makes no difference between capitals and small letters.
_MISSING_TO_PANDAS = {
    "nan": "Nan",
    "NaN": "Nan",
    "null": "Null",
    "NULL": "Null",
    "NA": "Na",
    "n/a": "N/a",
    "N/A": "N/a",
    "None": "none",
}


def export_tsv(
    records: pa.Table,
    read_image: ReadImage,
    output: str | Path,
    *,
    form: str = "mask",
    template: str = "{}",
    progress: bool = False,
) -> Path:
    """Write crops as PNG and a tab-separated table of them, for open_clip's csv dataset.

    The table has a header and the columns `title` and `filepath` (relative to the table); in the
    form "mask" also `maskpath` (a PNG of 0 and 255) and `noun`.

    Args:
        records: of the records' schema; a pair that occurs twice is written once.
        read_image: gives the picture of a row.
        output: folder; `pairs.tsv` and the folders `images` and `masks` are made in it.
        form: "mask" or "colour-key", see `ovseg.mining.crops`.
        template: of the title, with `{}` for the noun.
        progress: show a bar with rate and remaining time.

    Returns:
        The table's path.

    Raises:
        ValueError: an option is not valid, or a picture does not fit its record.
        AnotherRunError: the folder holds another export.
        OSError: a picture cannot be read.
    """
    _check_options(form, template)
    folder = Path(output)
    records = _drop_duplicates(records)
    _claim(folder, records, {"kind": "tsv", "form": form, "template": template})
    index = folder / "pairs.tsv"
    if index.exists():
        return index
    missing = _without_crop(records, folder)
    with tqdm(
        total=len(records), initial=len(records) - len(missing), unit="pair", disable=not progress
    ) as bar:
        for pair in iterate_pairs(missing, read_image, form):
            name = pair.row["pair_id"]
            if form == "mask":
                _write(folder / _png_path("masks", name), encode_png(pair.mask))
            _write(folder / _png_path("images", name), encode_png(pair.image))
            bar.update()
    columns = ["title", "filepath", *(["maskpath", "noun"] if form == "mask" else [])]
    with atomic_path(index) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(columns)
        for row in iterate_rows(records.select(["pair_id", "noun"])):
            name, noun = row["pair_id"], row["noun"]
            cells = [
                _title(noun, template),
                _png_path("images", name),
                _png_path("masks", name),
                noun,
            ]
            writer.writerow(cells[: len(columns)])
    return index


def export_webdataset(
    records: pa.Table,
    read_image: ReadImage,
    output: str | Path,
    *,
    shard_size: int = _SHARD_SIZE,
    form: str = "mask",
    template: str = "{}",
    progress: bool = False,
) -> Path:
    """Write tars of crops, masks, texts and records, and their sizes, as open_clip reads them.

    A sample is KEY.png (the crop), KEY.mask.png (0 and 255), KEY.txt (the title) and KEY.json
    (the record). The tars depend on the records and options alone, byte for byte.

    Args:
        records: of the records' schema; a pair that occurs twice is written once.
        read_image: gives the picture of a row.
        output: folder; `00000.tar`, ... and `sizes.json` are made in it.
        shard_size: most pairs in a tar.
        form: "mask" or "colour-key", see `ovseg.mining.crops`.
        template: of the text, with `{}` for the noun.
        progress: show a bar with rate and remaining time.

    Returns:
        The path of `sizes.json`.

    Raises:
        ValueError: an option is not valid, or a picture does not fit its record.
        AnotherRunError: the folder holds another export.
        OSError: a picture cannot be read.
    """
    _check_options(form, template)
    if shard_size < 1:
        raise ValueError(f"shard_size: expected at least 1, got {shard_size}")
    folder = Path(output)
    records = _drop_duplicates(records)
    settings = {"kind": "webdataset", "form": form, "template": template, "shard_size": shard_size}
    _claim(folder, records, settings)
    sizes: dict[str, int] = {}
    with tqdm(total=len(records), unit="pair", disable=not progress) as bar:
        for number, start in enumerate(range(0, len(records), shard_size)):
            part = records.slice(start, shard_size)
            target = folder / f"{number:05d}.tar"
            if not target.exists():
                _write_tar(target, iterate_pairs(part, read_image, form), template)
            sizes[target.name] = len(part)
            bar.update(len(part))
    index = folder / "sizes.json"
    write_json(index, sizes)
    return index


def export_coco(records: pa.Table, output: str | Path) -> Path:
    """Write the pairs as COCO instances: categories are the nouns, segmentations run lengths.

    Images keep their numbers where all image ids are decimal numbers, and are counted from 1
    otherwise; `file_name` is the image's address. Annotations also carry `pair_id`, `score` and
    `margin` (null if the picture had one proposal).

    Args:
        records: of the records' schema.
        output: the JSON file to write or replace.

    Returns:
        Its path.
    """
    path = Path(output)
    _remove(path.parent, f".{path.stem}.*{path.suffix}")
    images = _coco_images(records)
    numbers = {image["image_id"]: image["id"] for image in images}
    nouns = sorted(records["noun"].unique().to_pylist())
    categories = [{"id": number, "name": noun} for number, noun in enumerate(nouns, start=1)]
    category_ids = {noun: number for number, noun in enumerate(nouns, start=1)}
    annotations = (
        _coco_annotation(number, _plain(row), numbers[row["image_id"]], category_ids[row["noun"]])
        for number, row in enumerate(iterate_rows(records), start=1)
    )
    info = {"description": "noun-region pairs mined from captions"}
    with atomic_path(path) as partial, partial.open("w", encoding="utf-8", newline="\n") as file:
        # Written piece by piece: a million annotations as one Python object need gigabytes.
        file.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": [')
        file.writelines(_json_lines(iter(categories)))
        file.write('],\n"images": [')
        file.writelines(_json_lines(iter(images)))
        file.write('],\n"annotations": [')
        file.writelines(_json_lines(annotations))
        file.write("]}\n")
    return path


def _check_options(form: str, template: str) -> None:
    if form not in FORMS:
        raise ValueError(f"form: expected one of {FORMS}, got {form!r}")
    if template.count("{}") != 1 or "{" in template.replace("{}", ""):
        raise ValueError(
            f'template: expected one "{{}}" where the noun goes, as in "a photo of a {{}}.", '
            f"got {template!r}"
        )


def _drop_duplicates(records: pa.Table) -> pa.Table:
    """Keep the first of pairs with the same name: the same picture and caption came twice."""
    codes = records["pair_id"].combine_chunks().dictionary_encode().indices.to_numpy()  # (P,)
    kept = np.zeros(len(codes), np.bool_)
    kept[np.unique(codes, return_index=True)[1]] = True
    if kept.all():
        return records
    logger.info("%d pairs occur more than once and are exported once", (~kept).sum())
    return records.filter(pa.array(kept))


def _claim(folder: Path, records: pa.Table, settings: dict[str, Any]) -> None:
    """Note what the folder is for; refuse one that was begun for something else."""
    digest = hashlib.sha256("\n".join(records["pair_id"].to_pylist()).encode()).hexdigest()
    _remove(folder, *_TEMPORARY_FILES)
    RunRecord(
        {**settings, "pairs": len(records), "records_sha256": digest},
        what="export",
        remedy="choose another folder, or remove this one",
    ).claim(folder / _SETTINGS)


def _remove(folder: Path, *kinds: str) -> None:
    """Remove temporary files that killed processes left."""
    for kind in kinds:
        for file in folder.glob(kind):
            file.unlink(missing_ok=True)


def _without_crop(records: pa.Table, folder: Path) -> pa.Table:
    # A pair's mask is written before its crop.
    names = records["pair_id"].to_pylist()
    missing = [not (folder / _png_path("images", name)).exists() for name in names]
    return records.filter(pa.array(missing, pa.bool_()))


def _png_path(kind: str, name: str) -> str:
    # 256 folders at most: a million files in one are slow to list.
    return f"{kind}/{name[:2]}/{name}.png"


def _title(noun: str, template: str) -> str:
    title = " ".join(template.replace("{}", noun).split())
    return _MISSING_TO_PANDAS.get(title, title)


def _write(path: Path, content: bytes) -> None:
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def _write_tar(target: Path, pairs: Iterator[Pair], template: str) -> None:
    with (
        atomic_path(target) as partial,
        tarfile.open(partial, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for pair in pairs:
            members = {
                "png": encode_png(pair.image),
                "mask.png": encode_png(pair.mask),
                "txt": _title(pair.row["noun"], template).encode(),
                "json": json.dumps(_plain(pair.row), ensure_ascii=False).encode(),
            }
            for ending, content in members.items():
                # Owner and time stay at 0, or no two runs would write the same bytes.
                member = tarfile.TarInfo(f"{pair.row['pair_id']}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def _coco_images(records: pa.Table) -> list[dict[str, Any]]:
    seen: dict[str, dict[str, Any]] = {}
    for row in iterate_rows(records.select(["image_id", "image_uri", "height", "width"])):
        seen.setdefault(row["image_id"], row)
    numbered = all(name.isascii() and name.isdigit() for name in seen)
    numbered = numbered and len({int(name) for name in seen}) == len(seen)
    return [
        {
            "id": int(name) if numbered else position,
            "file_name": row["image_uri"],
            "height": row["height"],
            "width": row["width"],
            "image_id": name,
        }
        for position, (name, row) in enumerate(seen.items(), start=1)
    ]


def _coco_annotation(
    number: int, row: dict[str, Any], image_id: int, category_id: int
) -> dict[str, Any]:
    left, top, right, bottom = row["bbox"]
    segmentation: RunLength = {"size": [row["height"], row["width"]], "counts": row["rle_counts"]}
    return {
        "id": number,
        "image_id": image_id,
        "category_id": category_id,
        "segmentation": segmentation,
        "bbox": [left, top, right - left, bottom - top],
        "area": row["area"],
        "iscrowd": 0,
        "pair_id": row["pair_id"],
        "score": row["clip_score"],
        "margin": row["margin"],
    }


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    # Scores are float32 of 4 decimals; as doubles they would show digits that mean nothing.
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}


def _json_lines(items: Iterator[dict[str, Any]]) -> Iterator[str]:
    for position, item in enumerate(items):
        yield ("\n" if position == 0 else ",\n") + json.dumps(item, ensure_ascii=False)
