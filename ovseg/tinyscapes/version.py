"""The world's version: a hash of the code that draws it."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from importlib import resources

# Everything that decides what a picture, a label or a caption looks like.
_SOURCES = (
    "world.py", "textures.py", "shapes.py", "things.py", "things_seen.py",
    "things_unseen.py", "canvas.py", "captions.py", "scenes.py", "pairs.py",
)  # fmt: skip
# Raise when the written files change though the drawing code does not.
FILE_FORMAT = 1


@lru_cache(maxsize=1)
def world_version() -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the drawing code and the file format."""
    digest = hashlib.sha256(f"tinyscapes files {FILE_FORMAT}\n".encode())
    package = resources.files(__package__)
    for name in _SOURCES:
        source = package.joinpath(name).read_text(encoding="utf-8")  # newlines are normalised
        digest.update(f"{name}\n{source}".encode())
    return digest.hexdigest()[:16]
