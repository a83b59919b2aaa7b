"""What once broke a reader, made by code where that is shorter than a file in `corpus/`."""

from __future__ import annotations

import json
import struct
import tarfile
import zipfile
from io import BytesIO

from tests.fuzz.doors import _STORED, POLYGON
from tests.readers.test_pickles import array_of, dtype_with_state, text
from tests.readers.test_pictures import gif_bomb, png_bomb, tiff_bomb, webp_bomb
from tests.readers.test_torch_files import program, tensor

__all__ = ["KNOWN"]

_IMAGE = {"id": 1, "file_name": "picture.png", "height": 12, "width": 16}
# A type of objects that denies it: bytes became addresses.
_OBJECTS = dtype_with_state("O8", b"(I3\n" + text("|") + b"NNNI8\nI8\nI0\nt")


def _region(segmentation: object) -> bytes:
    entry = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": segmentation}
    categories = [{"id": 1, "name": "cat"}]
    content = {"images": [_IMAGE], "annotations": [entry], "categories": categories}
    return json.dumps(content).encode()


def _rle(counts: object) -> bytes:
    return _region({"size": [12, 16], "counts": counts})


def _alias_bomb(key: str) -> bytes:
    lines = [f"a0: &a0 [{', '.join(['x'] * 9)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    return ("\n".join(lines) + f"\n{key}: *a9\n").encode()


def _negative_tar() -> bytes:
    info = tarfile.TarInfo("a.jpg")
    info.size = -512
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    return bytes(head) + bytes(1024)


def _npz(header: str) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        archive.writestr("masks.npy", content)
    return stream.getvalue()


def _torch(content: object, data: bytes = b"\0" * 8, *, script: bool = False) -> bytes:
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", program(content))
        archive.writestr("a/data/0", data)
        if script:
            archive.writestr("a/constants.pkl", program(()))
    return stream.getvalue()


_WITHOUT = {key: value for key, value in _STORED.items() if key != "background"}
_SHAPE = "{'descr': '|u1', 'fortran_order': False, 'shape': (%d, 2, 2), }\n"
KNOWN = [
    ("pickle", "objects.pkl", array_of(_OBJECTS, b"(I1\nt", text("AAAAAAAA"))),
    ("index", "objects.pkl", array_of(_OBJECTS, b"(I1\nt", text("AAAAAAAA"))),
    ("pickle", "memo.pkl", b"(lr\xff\xff\xff\xff."),
    ("png", "bomb.png", png_bomb(60_000, 60_000)),
    *(("webp", f"{kind[3:].decode()}.webp", webp_bomb(kind)) for kind in (b"VP8X", b"VP8L")),
    ("gif", "bomb.gif", gif_bomb()),
    ("tiff", "tile.tif", tiff_bomb()),
    ("jpeg", "program.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n"),
    *((door, "aliases.yaml", _alias_bomb("name")) for door in ("dataset_yaml", "config")),
    ("json_lines", "deep.jsonl", b"[" * 100_000 + b"]" * 100_000),
    ("captions_json", "deep.json", b"[" * 100_000),
    ("pairs_tar", "negative.tar", _negative_tar()),
    ("captions_tar", "negative.tar", _negative_tar()),
    ("instances", "nan.json", _region([[*POLYGON[:-1], float("nan")]])),
    ("instances", "far.json", _region([[*POLYGON[:-1], 1e8]])),
    ("instances", "short.json", _rle([1, 1])),
    ("coco_labels", "short.json", _rle("0" * 7)),
    ("regions_json", "short.json", json.dumps([{"size": [12, 16], "counts": [1]}]).encode()),
    ("npz_regions", "huge.npz", _npz(_SHAPE % 10**12)),
    ("npz_regions", "program.npz", _npz("{'descr': (\n")),
    ("torch", "huge.pth", _torch({"a": tensor(2**31)})),
    ("torch", "zeros.pth", _torch({"a": tensor(2**26)}, bytes(2**28))),
    ("torchscript", "views.pt", _torch({"a": tensor(2, size=(2**33,), stride=(0,))}, script=True)),
    ("metrics", "score.json", b'{"dataset": "a", "sem_seg": {"mIoU": 1e999}}'),
    ("metrics", "intervals.json", b'{"dataset": "a", "sem_seg": {"mIoU": 1}, "intervals": "a"}'),
    ("stored", "incomplete.json", b'{"format_version": 1, "blank_value": 255}'),
    ("stored", "background.json", json.dumps(_WITHOUT).encode()),
    ("config", "section.yaml", b"MODEL:\n  CLIP_ADAPTER: 5\n"),
    ("config", "base.yaml", b"_BASE_: 5\n"),
    ("classes_txt", "latin1.txt", "Stra\u00dfe".encode("latin1")),
    ("npy", "objects.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 60)
     + b"{'descr': '|O', 'fortran_order': False, 'shape': (3,), }".ljust(60)),
]  # fmt: skip
