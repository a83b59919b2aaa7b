"""What the present version of the miniature world draws and writes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2

from ovseg.tinyscapes import CLASSES, SPLITS, VERSION, render_pair, render_scene, write_split
from ovseg.tinyscapes.textures import texture_tile
from ovseg.tinyscapes.things import thing_outline
from ovseg.tinyscapes.writer import JPEG_QUALITY

# As drawn with OpenCV 5.0 and numpy 2.4.
DRAWN = {"1": "78b31c0080d17c1b46c60377dfb4af188f17f65b1d0b983e38bad133c33c5d97"}
CHANGED = (
    "tinyscapes draws or writes something else than before. If that was meant, raise VERSION and "
    "empty SAME_CONTENT in ovseg/tinyscapes/version.py, so that every dataset is drawn again, and "
    "put {found!r} under the new version into DRAWN. If no code was changed, another OpenCV or "
    "numpy than DRAWN was made with draws differently."
)


def _digest(root: Path) -> str:
    digest = hashlib.sha256(f"JPEG quality {JPEG_QUALITY}".encode())
    for split in SPLITS:
        for index in (0, 1, 2, 499):
            scene = render_scene(split, index)
            digest.update(scene.image.tobytes() + scene.labels.tobytes())
            for class_id, mask in scene.instances:
                digest.update(bytes([class_id]) + mask.tobytes())
            digest.update(json.dumps(scene.captions).encode())
        for index in range(12):
            image, caption = render_pair(index, split=split)
            digest.update(image.tobytes() + caption.encode())
        for thing in CLASSES:
            if thing.kind == "thing":
                outline = thing_outline(split, thing.name, 0)
                digest.update(outline.points.tobytes() + str(outline.roles).encode())
            else:
                digest.update(texture_tile(split, thing.name, 0).tobytes())
        folder = write_split(root, split, 3, workers=0)
        for path in sorted((folder / "stuffthingmaps" / f"{split}2017").iterdir()):
            digest.update(path.name.encode() + cv2.imread(str(path), -1).tobytes())
        for path in sorted((folder / "annotations").glob(f"*_{split}2017.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            del content["info"]["version"]
            digest.update(path.name.encode() + json.dumps(content).encode())
    return digest.hexdigest()


def test_a_change_of_what_is_drawn_raises_the_version(tmp_path: Path) -> None:
    found = _digest(tmp_path)
    assert DRAWN.get(VERSION) == found, CHANGED.format(found=found)
