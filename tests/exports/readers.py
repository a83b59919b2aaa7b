"""Label maps read back from exports, each as the tool or its documented format says."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import cv2
import numpy as np
import yaml
from PIL import Image, ImageDraw
from pycocotools.coco import COCO

Maps = dict[str, np.ndarray]  # picture -> (H, W) int32 labels, -1 where there is none


def read_coco(folder: Path) -> Maps:
    coco = COCO(str(folder / "annotations.json"))
    maps = {}
    for image in coco.loadImgs(coco.getImgIds()):
        labels = np.full((image["height"], image["width"]), -1, np.int32)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask = coco.annToMask(annotation).astype(bool)
            assert mask.sum() == annotation["area"]
            labels[mask] = annotation["category_id"] - 1
        maps[image["file_name"]] = labels
    return maps


def read_yolo(folder: Path) -> Maps:
    """As ultralytics does: a label file stands where `images` becomes `labels`; `fillPoly`."""
    data = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    maps = {}
    for image in sorted((Path(data["path"]) / data["train"]).iterdir()):
        width, height = Image.open(image).size
        labels = np.full((height, width), -1, np.int32)
        file = Path("labels".join(str(image).rsplit("images", 1))).with_suffix(".txt")
        for line in file.read_text().splitlines():
            number, *values = line.split()
            assert int(number) in data["names"] and len(values) >= 6 and len(values) % 2 == 0
            points = np.array(values, np.float32).reshape(-1, 2)
            assert points.min() >= 0 and points.max() <= 1
            points = (points * (width, height)).astype(np.int32)
            cv2.fillPoly(labels, [points], int(number))
        maps[image.name] = labels
    return maps


def read_labelme(folder: Path, names: list[str]) -> Maps:
    """As labelme does: the picture is found by its relative path, Pillow fills with the outline."""
    maps = {}
    for file in sorted(folder.glob("*.json")):
        content = json.loads(file.read_text(encoding="utf-8"))
        assert content["version"].split(".")[0] == "5" and content["imageData"] is None
        picture = folder / content["imagePath"]
        size = Image.open(picture).size
        assert size == (content["imageWidth"], content["imageHeight"])
        labels = np.full(size[::-1], -1, np.int32)
        for shape in content["shapes"]:
            assert shape["shape_type"] == "polygon" and len(shape["points"]) > 2
            mask = Image.new("L", size)
            points = [tuple(point) for point in shape["points"]]
            ImageDraw.Draw(mask).polygon(points, outline=1, fill=1)
            labels[np.array(mask, bool)] = names.index(shape["label"])
        maps[picture.name] = labels
    return maps


def read_cvat(folder: Path) -> Maps:
    root = ElementTree.parse(folder / "annotations.xml").getroot()
    assert root.findtext("version") == "1.1"
    names = [label.findtext("name") for label in root.iterfind("meta/task/labels/label")]
    maps = {}
    for image in root.iterfind("image"):
        labels = np.full((int(image.get("height")), int(image.get("width"))), -1, np.int32)
        for mask in image.iterfind("mask"):
            box = {key: int(mask.get(key)) for key in ("left", "top", "width", "height")}
            part = decode_cvat_rle(mask.get("rle"), box["height"], box["width"])
            rows = slice(box["top"], box["top"] + box["height"])
            columns = slice(box["left"], box["left"] + box["width"])
            labels[rows, columns][part] = names.index(mask.get("label"))
        maps[image.get("name")] = labels
    return maps


def decode_cvat_rle(text: str, height: int, width: int) -> np.ndarray:
    """Runs of the box, row by row, outside and inside in turn, outside first."""
    runs = [int(run) for run in text.split(",")]
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(height, width)


def read_label_studio(folder: Path) -> Maps:
    view = ElementTree.parse(folder / "label_config.xml").getroot()
    control, shown = view.find("PolygonLabels"), view.find("Image")
    names = [label.get("value") for label in control.iterfind("Label")]
    key = shown.get("value").removeprefix("$")
    maps = {}
    for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8")):
        [prediction] = task["predictions"]
        labels = None
        for found in prediction["result"]:
            assert (found["from_name"], found["to_name"]) == (control.get("name"), "image")
            assert found["type"] == "polygonlabels" and found["image_rotation"] == 0
            width, height = found["original_width"], found["original_height"]
            labels = np.full((height, width), -1, np.int32) if labels is None else labels
            points = np.array(found["value"]["points"]) / 100 * (width, height)
            [name] = found["value"]["polygonlabels"]
            cv2.fillPoly(labels, [points.astype(np.int32)], names.index(name))
        maps[unquote(task["data"][key]).removeprefix("/data/local-files/?d=")] = labels
    return maps
