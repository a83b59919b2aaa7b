"""Tinyscapes on disk, in the layout and the formats of COCO and COCO-Stuff.

    tinyscapes/train2017/000000000000.jpg               pictures
    tinyscapes/stuffthingmaps/train2017/*.png           8-bit labels, 255 where ignored
    tinyscapes/annotations/instances_train2017.json     things as run-length masks
    tinyscapes/annotations/captions_train2017.json      five captions a picture
    tinyscapes/version_train.json                       written last: what the split was made by

Training files show the seen classes only. Pictures are drawn in chunks; a finished chunk leaves
a part file, so that an interrupted run goes on where it stopped and ends with the same bytes.
"""

from __future__ import annotations

import logging
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from iopath.common.file_io import file_lock
from tqdm import tqdm

from ovseg.readers.documents import read_json
from ovseg.utils.files import atomic_path, require_writable, write_json
from ovseg.utils.masks import encode_rle
from ovseg.utils.processes import exit_with_parent

from .scenes import Scene, render_scene
from .version import SAME_CONTENT, VERSION
from .world import ALL_NAMES, CLASSES, IGNORE_LABEL, SEEN_NAMES, SPLITS

DEFAULT_COUNTS: dict[str, int] = {"train": 4000, "val": 500, "test": 1000}
CHUNK_SIZE = 50
JPEG_QUALITY = 92

Chunk = tuple[int, int]  # first index, and one past the last

_log = logging.getLogger(__name__)


def write_split(
    root: str | Path,
    split: str,
    count: int | None = None,
    *,
    workers: int = 2,
    progress: bool = False,
) -> Path:
    """Writes one split, or completes one that was interrupted; the bytes depend on neither.

    Args:
        root: the folder that holds datasets; the files go to `root/tinyscapes`.
        split: "train", "val" or "test".
        count: number of pictures, >= 1; None takes the split's default.
        workers: processes that draw; 0 and 1 draw in this one.
        progress: whether to show a progress bar.

    Returns:
        the folder `root/tinyscapes`.

    Raises:
        ValueError: unknown split or a count below 1.
        OSError: the folder cannot be written to.
    """
    count = _checked_count(split, count)
    folder = Path(root) / "tinyscapes"
    require_writable(folder)
    with file_lock(str(folder / f".{split}")):
        _write(folder, split, count, workers=workers, progress=progress)
    return folder


def ensure_split(
    root: str | Path, split: str, count: int | None = None, *, workers: int = 0
) -> Path:
    """Writes a split unless this version of it is there already.

    Args:
        root: the folder that holds datasets.
        split: "train", "val" or "test".
        count: number of pictures; None takes what is there, or else the split's default.
        workers: processes that draw. By default this one does, because a script that merely
            loads a dataset may lack the main guard that new processes need.

    Returns:
        the folder `root/tinyscapes`.

    Raises:
        ValueError: unknown split or a count below 1.
        OSError: the folder cannot be written to.
    """
    wanted = _checked_count(split, count)
    folder = Path(root) / "tinyscapes"
    if _is_current(folder, split, count):
        return folder
    require_writable(folder)
    with file_lock(str(folder / f".{split}")):
        if not _is_current(folder, split, count):  # another process may have written meanwhile
            _log.info("Drawing tinyscapes %s: %d pictures into %s", split, wanted, folder)
            _write(folder, split, wanted, workers=workers, progress=False)
    return folder


def training_labels(labels: np.ndarray) -> np.ndarray:
    """Labels as training sees them: 255 where an unseen class is.

    Args:
        labels: (H, W) uint8 class ids.

    Returns:
        (H, W) uint8 with values 0..len(SEEN_NAMES)-1 and 255.
    """
    return np.where(labels < len(SEEN_NAMES), labels, IGNORE_LABEL).astype(np.uint8)


def _checked_count(split: str, count: int | None) -> int:
    if split not in SPLITS:
        raise ValueError(f"expected a split of {', '.join(SPLITS)}, got {split!r}")
    count = DEFAULT_COUNTS[split] if count is None else count
    if count < 1:
        raise ValueError(f"expected a count of pictures >= 1, got {count}")
    return count


def _version_file(folder: Path, split: str) -> Path:
    return folder / f"version_{split}.json"


def _is_current(folder: Path, split: str, count: int | None) -> bool:
    try:
        found = read_json(_version_file(folder, split))
    except (FileNotFoundError, ValueError):
        return False
    return (
        isinstance(found, dict)
        and found.get("version") in (VERSION, *SAME_CONTENT)
        and (count is None or found.get("images") == count)
    )


def _write(folder: Path, split: str, count: int, *, workers: int, progress: bool) -> None:
    if _is_current(folder, split, count):
        return
    _version_file(folder, split).unlink(missing_ok=True)
    parts = folder / f".parts_{split}_{VERSION}"
    for stale in folder.glob(f".parts_{split}_*"):
        if stale != parts:
            shutil.rmtree(stale)
    for part_folder in (parts, *_picture_folders(folder, split)):
        part_folder.mkdir(parents=True, exist_ok=True)
    chunks = [(start, min(start + CHUNK_SIZE, count)) for start in range(0, count, CHUNK_SIZE)]
    draw = partial(_write_chunk, folder, split)
    todo = [chunk for chunk in chunks if not _part_file(folder, split, chunk).exists()]
    with tqdm(total=count, desc=f"tinyscapes {split}", unit="img", disable=not progress) as bar:
        bar.update(count - sum(stop - start for start, stop in todo))
        for drawn in _map_chunks(draw, todo, workers):
            bar.update(drawn)
    records = [record for chunk in chunks for record in read_json(_part_file(folder, split, chunk))]
    _write_annotations(folder, split, records)
    _remove_surplus(folder, split, count)
    summary = {
        "version": VERSION,
        "split": split,
        "images": count,
        "instances": sum(len(r["instances"]) for r in records),
        "captions": sum(len(r["captions"]) for r in records),
        "classes": list(_shown_names(split)),
    }
    write_json(_version_file(folder, split), summary, indent=None)
    shutil.rmtree(parts)


def _start_worker() -> None:
    exit_with_parent()
    cv2.setNumThreads(1)  # the processes share the cores already


def _map_chunks(draw: partial[int], chunks: list[Chunk], workers: int) -> Iterator[int]:
    if workers <= 1 or len(chunks) <= 1:
        yield from map(draw, chunks)
        return
    # Forking a process that runs threads (torch, OpenCV) may hang, so workers start afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(chunks)),
        mp_context=context,
        initializer=_start_worker,
    ) as pool:
        yield from pool.map(draw, chunks)


def _picture_folders(folder: Path, split: str) -> tuple[Path, Path]:
    return folder / f"{split}2017", folder / "stuffthingmaps" / f"{split}2017"


def _part_file(folder: Path, split: str, chunk: Chunk) -> Path:
    start, stop = chunk
    return folder / f".parts_{split}_{VERSION}" / f"{start:07d}-{stop:07d}.json"


def _shown_names(split: str) -> tuple[str, ...]:
    return SEEN_NAMES if split == "train" else ALL_NAMES


def _write_chunk(folder: Path, split: str, chunk: Chunk) -> int:
    """Draws and writes the pictures of one chunk, then its part file; returns how many."""
    images, maps = _picture_folders(folder, split)
    records = []
    for index in range(*chunk):
        scene = render_scene(split, index)
        labels = training_labels(scene.labels) if split == "train" else scene.labels
        jpeg = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
        write_image(images / f"{index:012d}.jpg", scene.image[..., ::-1], jpeg)
        write_image(maps / f"{index:012d}.png", labels, ())
        records.append(_record(scene, index, len(_shown_names(split))))
    write_json(_part_file(folder, split, chunk), records, indent=None)
    return len(records)


def _record(scene: Scene, index: int, shown: int) -> dict[str, Any]:
    instances = []
    for class_id, mask in scene.instances:
        if class_id >= shown:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x, y = int(columns[0]), int(rows[0])
        instances.append(
            {
                "category_id": class_id + 1,
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                "area": int(mask.sum()),
                "segmentation": encode_rle(mask),
            }
        )
    height, width = scene.labels.shape
    return {
        "id": index,
        "size": [height, width],
        "instances": instances,
        "captions": scene.captions,
    }


def _write_annotations(folder: Path, split: str, records: list[dict[str, Any]]) -> None:
    """Gathers the chunks' records into COCO's two annotation files."""
    header = {
        "info": {"description": "tinyscapes", "version": VERSION, "year": 2026},
        "licenses": [{"id": 1, "name": "Apache-2.0", "url": ""}],
        "images": [
            {
                "id": record["id"],
                "file_name": f"{record['id']:012d}.jpg",
                "height": record["size"][0],
                "width": record["size"][1],
                "license": 1,
            }
            for record in records
        ],
    }
    instances = [
        {"image_id": record["id"], "iscrowd": 0, **instance}
        for record in records
        for instance in record["instances"]
    ]
    captions = [
        {"image_id": record["id"], "caption": caption}
        for record in records
        for caption in record["captions"]
    ]
    categories = [
        {"id": i + 1, "name": thing.name, "supercategory": "thing"}
        for i, thing in enumerate(CLASSES[: len(_shown_names(split))])
        if thing.kind == "thing"
    ]
    target = folder / "annotations"
    write_json(
        target / f"instances_{split}2017.json",
        {**header, "annotations": _numbered(instances), "categories": categories},
        indent=None,
    )
    write_json(
        target / f"captions_{split}2017.json",
        {**header, "annotations": _numbered(captions)},
        indent=None,
    )


def _numbered(annotations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"id": number, **a} for number, a in enumerate(annotations, 1)]


def _remove_surplus(folder: Path, split: str, count: int) -> None:
    """Deletes what a larger run (pictures) or a killed one (temporary files) has left."""
    for pictures in _picture_folders(folder, split):
        for path in pictures.iterdir():
            beyond = path.stem.isdigit() and int(path.stem) >= count
            if beyond or path.name.startswith(".0"):
                path.unlink()


def write_image(path: Path, image: np.ndarray, options: tuple[int, ...]) -> None:
    """Writes a picture or a label map; the path's end says in which format.

    Args:
        path: target.
        image: (H, W, 3) BGR or (H, W), uint8.
        options: of OpenCV's encoder.

    Raises:
        RuntimeError: OpenCV lacks the encoder.
    """
    done, data = cv2.imencode(path.suffix, image, options)
    if not done:
        raise RuntimeError(
            f"OpenCV could not encode {path.name}; is its {path.suffix} codec there?"
        )
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.tobytes())
