"""Raw data of a few made-up pictures, in the formats and under the names of the originals."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from ovseg.utils.images import write_png
from ovseg.vocab import class_list
from tests.helpers import ROOT

VOC = ("2007_000033", "2008_000002", "2010_000009")
CONTEXT = ("2008_000002", "2008_000007")
CITIES = ("frankfurt_000000_000294", "munster_000000_000019")
SIZES = ((37, 53), (41, 29), (24, 24))

# Where LabelMap holds a class of PC-59, one of the other 400, and nothing.
CONTEXT_NAMES = ("aeroplane", "person", "wood", "accordion", "unknown")


def script(name: str) -> Callable[[list[str]], int]:
    """The main function of datasets/prepare_<name>.py."""
    file = ROOT / "datasets" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def prepare(name: str, root: Path, *arguments: str) -> int:
    return script(f"prepare_{name}")(["--root", str(root), "--workers", "1", *arguments])


def is_sound(name: str, root: Path) -> bool:
    """Whether datasets/verify.py finds no fault but that most pictures are missing."""
    arguments = ["--subset", "--workers", "1", "--sheets", str(root / "sheets")]
    return script("verify")([name, "--root", str(root), *arguments]) == 0


def noise(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(sum(size)).integers(0, 255, (*size, 3), dtype=np.uint8)


def write_picture(path: Path, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(size)).save(path)


def stripes(size: tuple[int, int], values) -> np.ndarray:
    """Vertical stripes of three pixels; the last value takes the rest."""
    labels = np.full(size, values[-1])
    for column, value in enumerate(values):
        labels[:, 3 * column : 3 * column + 3] = value
    return labels


def write_palette_png(path: Path, labels: np.ndarray) -> None:
    """As VOC's: indices into a palette, whose colours are not the labels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(labels.astype(np.uint8)).convert("P")
    image.putpalette([(37 * i + 11) % 256 for i in range(768)])
    image.save(path)


def write_voc(root: Path, folder: str = "SegmentationClass") -> None:
    """Three pictures; the last is nothing but background and outlines."""
    base = root / "VOCdevkit" / "VOC2012"
    values = ([0, 1, 20, 255, 15], [255, 4, 0], [0, 255, 0])
    for name, size, raw in zip(VOC, SIZES, values, strict=True):
        write_picture(base / "JPEGImages" / f"{name}.jpg", size)
        write_palette_png(base / folder / f"{name}.png", stripes(size, raw))
    write_picture(base / "JPEGImages" / "2012_004331.jpg", (20, 20))  # of another split
    write_listing(base / "ImageSets" / "Segmentation" / "val.txt", VOC)


def write_listing(path: Path, names) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def write_names(path: Path, names) -> None:
    path.write_text("".join(f"{i}: {name}\n" for i, name in enumerate(names, 1)), encoding="utf-8")


def context_number(name: str) -> int:
    return class_list("pascal_context_459").names.index(name) + 1


def write_context(root: Path) -> None:
    """Two pictures: stripes of CONTEXT_NAMES before unlabelled pixels, and all unlabelled."""
    base = root / "VOCdevkit" / "VOC2010"
    (base / "trainval").mkdir(parents=True)
    numbers = [context_number(name) for name in CONTEXT_NAMES]
    maps = (stripes(SIZES[0], [*numbers, 0]), np.zeros(SIZES[1]))
    for name, raw in zip(CONTEXT, maps, strict=True):
        write_picture(base / "JPEGImages" / f"{name}.jpg", raw.shape)
        content = {"LabelMap": raw.astype(np.uint16)}
        savemat(base / "trainval" / f"{name}.mat", content, do_compression=True)
    write_names(base / "labels.txt", class_list("pascal_context_459").names)
    write_names(base / "59_labels.txt", class_list("pascal_context_59").names)
    write_listing(base / "pascalcontext_val.txt", CONTEXT)


def write_cityscapes(root: Path) -> None:
    """Two pictures in two cities: road, person, bicycle, caravan, number plate, unlabelled."""
    for name, size in zip(CITIES, SIZES, strict=False):
        city = name.split("_")[0]
        pictures = root / "cityscapes" / "leftImg8bit" / "val" / city
        raw = root / "cityscapes" / "gtFine" / "val" / city
        write_picture(pictures / f"{name}_leftImg8bit.png", size)
        labels = stripes(size, [7, 24, 33, 29, 255, 0]).astype(np.uint8)
        write_png(raw / f"{name}_gtFine_labelIds.png", labels)
        write_png(raw / f"{name}_gtFine_instanceIds.png", labels.astype(np.uint16) * 1000)
        write_picture(raw / f"{name}_gtFine_color.png", size)
        (raw / f"{name}_gtFine_polygons.json").write_text("{}", encoding="utf-8")


def write_loveda(root: Path) -> None:
    """A rural picture of every value, an urban one without any data."""
    for scene, name, values in (("Rural", "2522", [0, 1, 7, 4, 2]), ("Urban", "3514", [0])):
        base = root / "LoveDA" / "Val" / scene
        write_picture(base / "images_png" / f"{name}.png", SIZES[0])
        write_png(base / "masks_png" / f"{name}.png", stripes(SIZES[0], values).astype(np.uint8))


VAIHINGEN_COLORS = [
    (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0), (0, 0, 0),
]  # fmt: skip


def write_vaihingen(root: Path, size: tuple[int, int] = (600, 530)) -> None:
    """Area 2, of the validation part, and area 1, of the training part, as RGB TIFF."""
    base = root / "Vaihingen"
    truth = base / "ISPRS_semantic_labeling_Vaihingen_ground_truth_eroded_COMPLETE"
    top = base / "ISPRS_semantic_labeling_Vaihingen" / "top"
    for folder in (truth, top):
        folder.mkdir(parents=True)
    colors = np.array(VAIHINGEN_COLORS, np.uint8)[stripes(size, range(7))]
    for area in (1, 2):
        Image.fromarray(noise(size)).save(top / f"top_mosaic_09cm_area{area}.tif")
        Image.fromarray(colors).save(truth / f"top_mosaic_09cm_area{area}_noBoundary.tif")
