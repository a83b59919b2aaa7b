"""Captioned pictures of which most are broken, each in another way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

CAPTION = "a cat under a tree on the grass"

# What is to become of each: "pairs", "nothing" (no pair, though nothing is wrong), or the kind of
# fault for which it is set aside.
EXPECTED = {
    "good": "pairs",
    "truncated_jpeg": "picture",
    "truncated_png": "picture",
    "zero_bytes": "picture",
    "png_named_jpg": "pairs",
    "text_named_jpg": "picture",
    "missing_file": "picture",
    "folder_named_jpg": "picture",
    "no_address": "picture",
    "null_byte_in_address": "picture",
    "web_address": "picture",
    "half_a_character_in_address": "picture",
    "too_many_pixels": "picture",
    "floating_point_tiff": "picture",
    "noise": "picture",
    "grey_16_bit": "pairs",
    "transparent": "pairs",
    "palette_gif": "pairs",
    "cmyk_jpeg": "pairs",
    "one_pixel": "pairs",
    "very_wide": "pairs",
    "null_caption": "caption",
    "no_caption": "caption",
    "empty_caption": "caption",
    "blank_caption": "caption",
    "number_as_caption": "caption",
    "ten_thousand_words": "caption",
    "half_a_character_in_caption": "caption",
    "emoji_only": "nothing",
    "no_nouns": "nothing",
    "emoji_and_noun": "pairs",
}
MAX_PIXELS = 5000


def write_broken_world(folder: Path) -> Path:
    """Write the pictures and their COCO captions; returns the captions' file."""
    pictures = folder / "train"
    pictures.mkdir(parents=True)
    addresses = {name: _write_picture(pictures, name) for name in EXPECTED}
    captions: dict[str, object] = {
        "null_caption": None,
        "empty_caption": "",
        "blank_caption": " \n\t ",
        "number_as_caption": 17,
        "ten_thousand_words": "cat " * 10_000,
        "half_a_character_in_caption": "a cat \ud83d",
        "emoji_only": "😀🎉🐈",
        "no_nouns": "and then it was quite slowly over",
        "emoji_and_noun": "😀 a cat 🐈",
    }
    images = [
        {"id": name, "file_name": address, "height": 40, "width": 60}
        for name, address in addresses.items()
    ]
    annotations = [
        {"image_id": name, "caption": captions.get(name, CAPTION)}
        for name in EXPECTED
        if name != "no_caption"
    ]
    path = folder / "annotations" / "captions_train.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": annotations}))
    return path


def _write_picture(folder: Path, name: str) -> str:
    """Write one picture and return its address."""
    rng = np.random.default_rng(len(name))
    image = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize((60, 40))
    path = folder / f"{name}.jpg"
    elsewhere = {
        "no_address": "",
        "null_byte_in_address": "a\0b.jpg",
        "web_address": "https://example.com/a.jpg",
        "half_a_character_in_address": "\ud83d.jpg",
        "missing_file": "missing_file.jpg",
    }
    if name in elsewhere:
        return elsewhere[name]
    if name == "folder_named_jpg":
        path.mkdir()
    elif name == "zero_bytes":
        path.touch()
    elif name == "text_named_jpg":
        path.write_text("<html>404</html>")
    elif name == "noise":
        path.write_bytes(b"\xff\xd8\xff\xe0" + rng.bytes(500))
    elif name in _OTHER_PICTURES:
        path = folder / f"{name}{_OTHER_PICTURES[name][0]}"
        _OTHER_PICTURES[name][1](image).save(path)
    elif name == "png_named_jpg":
        image.save(path, format="PNG")
    else:
        image.save(path)
    if name.startswith("truncated"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path.name


_OTHER_PICTURES = {
    "truncated_png": (".png", lambda image: image),
    "too_many_pixels": (".png", lambda image: image.resize((100, 60))),
    "floating_point_tiff": (".tif", lambda image: image.convert("F")),
    "grey_16_bit": (".png", lambda image: image.convert("I;16")),
    "transparent": (".png", lambda image: image.convert("RGBA")),
    "palette_gif": (".gif", lambda image: image.convert("P")),
    "cmyk_jpeg": (".jpg", lambda image: image.convert("CMYK")),
    "one_pixel": (".png", lambda image: image.resize((1, 1))),
    "very_wide": (".png", lambda image: image.resize((2000, 1))),
}
