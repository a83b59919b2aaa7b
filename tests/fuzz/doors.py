"""Where files come in: for each kind a small valid file, and what the package reads it with."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
import torch
from PIL import Image

from ovseg.clip_training.config import load_clip_config
from ovseg.config.load import config_path, load_cfg
from ovseg.data.captions.sources import ImageReader, open_source
from ovseg.data.coco_labels import CocoFile, coco_records
from ovseg.data.dataset_yaml import DatasetYaml
from ovseg.data.pair_files import TarPairDataset, TsvPairDataset
from ovseg.data.pairs import PairDataset, RecordPairDataset
from ovseg.data.prepare.ade20k import read_index
from ovseg.data.prepare.pipeline import PreparationError
from ovseg.evaluation.counts import ImageCounts, read_counts, write_counts
from ovseg.evaluation.results import DatasetResult, load_result
from ovseg.mining.records import write_records
from ovseg.proposals import FileProposer, InstanceProposer
from ovseg.readers.arrays import map_npy
from ovseg.readers.digests import DIGEST, content_digest
from ovseg.readers.documents import read_json_lines
from ovseg.readers.matlab import read_mat_labels
from ovseg.readers.pictures import ImageError, image_size, picture_comment, read_image, read_label
from ovseg.readers.rasters import open_geotiff
from ovseg.segmentation import Segmentation
from ovseg.training.checkpoint import read_checkpoint
from ovseg.utils.masks import encode_rle
from ovseg.vocab.class_files import read_class_file
from ovseg.weights.load import read_state_dict, write_safetensors
from tests.mining.test_records import row

__all__ = ["DOORS", "Door", "write_companions"]

RNG = np.random.default_rng(0)
PICTURE = RNG.integers(0, 255, (12, 16, 3), np.uint8)
LABELS = (np.arange(12 * 16).reshape(12, 16) // 20 % 2).astype(np.uint8)
MASK = LABELS == 1
POLYGON = [1.0, 1.0, 9.0, 2.5, 7.0, 8.0]
STATE = {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.ones(5).half()}


@dataclass(frozen=True)
class Door:
    """How files of a kind come in.

    Args:
        file: its name, as far as readers go by it.
        make: writes a valid one.
        read: what the package reads it with; gives plain values, arrays and tensors.
        form: what can be damaged from within: "json", "jsonl", "yaml", "csv", "zip", "png", "tar".
        checked: whether a checksum has to tell any change of what it holds.
        errors: that the reader documents beside ValueError and OSError.
    """

    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], Any]
    form: str = ""
    checked: bool = False
    errors: tuple[type[Exception], ...] = ()


class QuarantinedError(ValueError):
    """Stands for a refusal of single rows, which the package counts and goes on."""


def write_companions(folder: Path) -> None:
    """Write what files refer to: a picture, its label map, a mask."""
    for name, values in (("picture", PICTURE), ("segmentation_labels", LABELS), ("mask", MASK)):
        Image.fromarray(values).save(folder / f"{name}.png")


def read_picture(path: Path) -> Any:
    return image_size(path), picture_comment(path), read_image(path)


def read_windows(path: Path) -> Any:
    window = (slice(0, 12), slice(3, 16))
    with open_geotiff(path) as picture:
        return picture.size, picture.read(window), picture.blank(window)


def read_captioned(path: Path) -> Any:
    source = open_source(path)
    read = ImageReader(source.image_root)
    rows = [row for shard in source.shards(2) for row in shard.rows]
    return rows_of(path, ((row.image_id, row.captions, read(row)) for row in rows))


def read_pairs(kind: Callable[..., PairDataset], path: Path) -> Any:
    pairs = kind(path, image_size=(8, 8))
    regions = (pairs.region(number) for number in range(len(pairs)))
    return pairs.texts, pairs.nouns, rows_of(path, regions)


def rows_of(path: Path, rows: Iterator[Any]) -> list[Any]:
    try:
        return list(rows)
    except (ImageError, ValueError) as error:
        raise QuarantinedError(f"{path}: {error}") from error


def read_coco_labels(path: Path) -> Any:
    classes = list(CocoFile.read(path).categories.values())
    where = {"images": path.parent, "labels": path.parent / "drawn"}
    records = coco_records(path, name="x", **where, classes=classes, ignore_label=255)
    return classes, [read_label(record["sem_seg_file_name"]) for record in records]


def read_result(path: Path) -> Any:
    result = load_result(path.parent)
    return result.dataset, result.scores, {name: result.interval(name) for name in result.scores}


def read_all_counts(path: Path) -> Any:
    images, classes = read_counts(path)
    return classes, {name: (image.cells, image.pixels) for name, image in images.items()}


def read_stored(path: Path) -> Any:
    result = Segmentation.load(path, image=PICTURE)
    return result.names, result.labels, result.scores, result.background, result.to_coco_rle()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def encoded(values: np.ndarray, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


def write_script(path: Path) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(STATE["a.weight"].clone())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    torch.jit.save(torch.jit.trace(Twice(), torch.ones(4)), str(path))


def write_checkpoint(path: Path) -> None:
    state: dict[str, Any] = {
        **{"format": 1, "iteration": 3, "model": dict(STATE), "ema": None, "scheduler": {}},
        **{"optimizer": {"param_groups": [{"lr": 0.1, "params": [0]}]}, "scaler": {}, "facts": {}},
    }
    torch.save({**state, DIGEST: content_digest(state)}, path)


def write_mat(path: Path, **options: Any) -> None:
    scipy.io.savemat(path, {"S": LABELS.astype(np.uint16), "T": ["a"]}, **options)
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(116) + path.read_bytes()[116:])  # no date


def write_text(text: str, path: Path) -> None:
    path.write_text(text, encoding="utf-8")


def write_image(values: np.ndarray, path: Path, **options: Any) -> None:
    Image.fromarray(values).save(path, **options)


def write_parquet(path: Path) -> None:
    columns = {"jpg": [encoded(PICTURE)] * 2, "caption": ["a cat", "a dog"], "key": ["1", "2"]}
    pq.write_table(pa.table(columns), path, compression="zstd")


def write_record_file(path: Path) -> None:
    counts = encode_rle(MASK)["counts"]
    place = {"image_uri": "picture.png", "height": 12, "width": 16, "rle_counts": counts}
    write_records(path, [row(number, **place) for number in range(3)])


def as_json(content: Any) -> Callable[[Path], None]:
    return partial(write_text, json.dumps(content))


_IMAGE = {"id": 1, "file_name": "picture.png", "height": 12, "width": 16}
_RLE = encode_rle(MASK)
_INSTANCES = {
    "images": [_IMAGE],
    "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [POLYGON]},
        {"id": 2, "image_id": 1, "category_id": 5, "segmentation": dict(_RLE)},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": {**_RLE, "counts": [100, 92]}},
    ],
}
_CAPTIONS = {"images": [_IMAGE], "annotations": [{"image_id": 1, "caption": "a cat on grass"}]}
_METRICS = {
    "dataset": "world",
    "sem_seg": {"mIoU": 40.5, "pACC": 61.0, "IoU-cat": None},
    "intervals": {"scores": {"mIoU": [38.0, 42.5]}},
}
_STORED = {
    **{"format_version": 1, "height": 12, "width": 16, "names": ["sky", "cat"]},
    **{"background": None, "blank_value": 255, "provenance": {"image": "picture.png"}},
    "classes": [{"category_id": 1, "score": 0.5, "segmentation": _RLE}],
    "proposals": [
        {"category_id": 1, "score": 0.5, "proposal_score": 0.5, "clip_score": None, "share": 0.1}
        | {"segmentation": _RLE}
    ],
}
_DATASET = "name: garden\nimages: pictures\nlabels: labels\nclasses: [lawn, path]\nsplit: val\n"
_DATASET += "ignore_label: 255\nevaluation_set: {seen: [lawn]}\n"
_PAIRS = "title\tfilepath\tmaskpath\tnoun\na photo of a cat.\tpicture.png\tmask.png\tcat\n"
_CSV = "name,iou,images\nsky,40.5,3\n" + '"a, b",nan,0\n'
_COUNTS = [
    ImageCounts(np.array([0, 3]), np.array([5, 7])),
    ImageCounts(np.array([4]), np.array([9])),
]
_INDEX = {
    "folder": ["a/b", "a/c"],
    "filename": np.array(["ADE_val_1.jpg", "ADE_val_2.jpg"]),
    "objectnames": ("wall", "sky"),
    "counts": np.arange(6.0).reshape(2, 3),
}
_TAR = {"1.jpg": encoded(PICTURE, "JPEG"), "1.txt": b"a cat", "2.png": encoded(PICTURE)}
_TAR["2.json"] = b'{"captions": ["a dog", null]}'
_PAIR_TAR = {"1.png": encoded(PICTURE), "1.mask.png": encoded(MASK), "1.txt": b"a photo of a cat."}
_PAIR_TAR["1.json"] = b'{"noun": "cat"}'
_CLASSES = ["sky", "red star", "tree"]


def write_geotiff(path: Path) -> None:
    import rasterio

    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", height=12, width=16, count=3, dtype="uint8",
            tiled=True, blockxsize=16, blockysize=16, compress="deflate", crs="EPSG:32633",
            transform=rasterio.Affine(0.5, 0, 4e5, 0, -0.5, 5e6),
        ) as file,
    ):  # fmt: skip
        file.write(PICTURE.transpose(2, 0, 1))
        file.write_mask(~MASK)


def rasters() -> dict[str, Door]:
    if find_spec("rasterio") is None:  # of the extra geo
        return {}
    return {"geotiff": Door("a.tif", write_geotiff, read_windows)}


def pictures() -> dict[str, Door]:
    rgb = partial(write_image, PICTURE)
    label = partial(write_image, LABELS.astype(np.uint16))
    kinds = {"jpeg": "jpg", "webp": "webp", "bmp": "bmp", "gif": "gif", "tiff": "tif", "ppm": "ppm"}
    return {
        **{kind: Door(f"a.{ending}", rgb, read_picture) for kind, ending in kinds.items()},
        "png": Door("a.png", rgb, read_picture, "png", checked=True),
        "tiff_packed": Door(
            "a.tif", partial(write_image, PICTURE, compression="tiff_lzw"), read_picture
        ),
        "label_png": Door("a.png", label, read_label, "png", checked=True),
        "label_tiff": Door("a.tif", label, read_label),
    }


def documents() -> dict[str, Door]:
    config = config_path("ovseg_tiny").read_text(encoding="utf-8")
    clip = config_path("clip_tiny_ft").read_text(encoding="utf-8")
    classes = {
        "txt": ("\n".join(_CLASSES), ""),
        "json": (json.dumps({"names": _CLASSES}), "json"),
        "yaml": (json.dumps({"names": dict(enumerate(_CLASSES))}), "yaml"),
        "csv": ("name,id\nsky,1\nred star,2\n", "csv"),
    }
    return {
        **{
            f"classes_{ending}": Door(
                f"a.{ending}", partial(write_text, text), read_class_file, form
            )
            for ending, (text, form) in classes.items()
        },
        "coco_labels": Door(
            *("instances.json", as_json(_INSTANCES), read_coco_labels, "json"),
            errors=(PreparationError,),
        ),
        "instances": Door(
            "a.json", as_json(_INSTANCES), lambda p: InstanceProposer(p)(PICTURE, "1"), "json"
        ),
        "regions_json": Door("a.json", as_json([_RLE, [POLYGON]]), read_regions, "json"),
        "captions_json": Door("captions_val.json", as_json(_CAPTIONS), read_captioned, "json"),
        "json_lines": Door(
            "quarantine.jsonl",
            partial(write_text, '{"image_id": "1", "reason": "no"}\n[2]\n'),
            lambda path: list(read_json_lines(path)),
            "jsonl",
        ),
        "metrics": Door("metrics.json", as_json(_METRICS), read_result, "json"),
        "stored": Door("segmentation.json", as_json(_STORED), read_stored, "json"),
        "dataset_yaml": Door("a.yaml", partial(write_text, _DATASET), DatasetYaml.read, "yaml"),
        "config": Door(
            *("a.yaml", partial(write_text, config), lambda p: load_cfg(p).dump(), "yaml"),
            errors=(KeyError, ImportError),
        ),
        "clip_config": Door(
            "a.yaml", partial(write_text, clip), lambda p: asdict(load_clip_config(p)), "yaml"
        ),
        "captions_tsv": Door("a.tsv", partial(write_text, _PAIRS), read_captioned, "csv"),
        "pairs_tsv": Door(
            "a.tsv", partial(write_text, _PAIRS), partial(read_pairs, TsvPairDataset), "csv"
        ),
        "table": Door(
            "per_class.csv",
            partial(write_text, _CSV),
            lambda path: DatasetResult(path.parent, {}, {}).rows("per_class"),
            "csv",
        ),
    }


def read_regions(path: Path) -> Any:
    return FileProposer(path.parent)(PICTURE, path.stem)


def containers() -> dict[str, Door]:
    records = partial(RecordPairDataset, image_root=".")
    return {
        "npz_regions": Door(
            "a.npz", lambda p: np.savez_compressed(p, masks=MASK[None]), read_regions, "zip", True
        ),
        "npz_counts": Door(
            "image_counts.npz",
            lambda path: write_counts(path, ["a", "b"], _COUNTS, 3),
            read_all_counts,
            *("zip", True),
        ),
        "npy": Door("a.npy", lambda p: np.save(p, RNG.random((5, 7))), lambda p: map_npy(p).copy()),
        "captions_tar": Door("a.tar", partial(write_tar, members=_TAR), read_captioned, "tar"),
        "pairs_tar": Door(
            "a.tar",
            partial(write_tar, members=_PAIR_TAR),
            partial(read_pairs, TarPairDataset),
            "tar",
        ),
        "captions_parquet": Door("a.parquet", write_parquet, read_captioned),
        "records": Door(
            "part-0.parquet",
            write_record_file,
            lambda p: read_pairs(partial(records, image_root=p.parent), p),
        ),
        "mat": Door(
            "a.mat",
            partial(write_mat, do_compression=True),
            partial(read_mat_labels, variable="S"),
        ),
        "mat_plain": Door("a.mat", write_mat, partial(read_mat_labels, variable="S")),
        "index": Door(
            "index_ade20k.pkl",
            lambda p: p.write_bytes(pickle.dumps(_INDEX, 2)),
            read_index,
            errors=(PreparationError,),
        ),
    }


def weights() -> dict[str, Door]:
    arrays = OrderedDict((name, tensor.numpy()) for name, tensor in STATE.items())
    old = partial(torch.save, {"model": STATE}, _use_new_zipfile_serialization=False)
    read_any = partial(read_state_dict, allow_pickle=True)
    return {
        "pickle": Door("a.pkl", lambda p: p.write_bytes(pickle.dumps(arrays, 4)), read_any),
        "torch": Door("a.pth", partial(torch.save, {"model": STATE}), read_any, "zip", True),
        "torch_old": Door("a.pth", old, read_any),
        "torchscript": Door("a.pt", write_script, read_any, "zip", True),
        "safetensors": Door(
            "a.safetensors", lambda p: write_safetensors(p, STATE), read_any, checked=True
        ),
        "checkpoint": Door("model_0000003.pth", write_checkpoint, read_checkpoint, "zip", True),
    }


DOORS = {**pictures(), **rasters(), **documents(), **containers(), **weights()}
