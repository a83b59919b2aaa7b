"""Nothing outside of `ovseg/readers` decodes what comes from outside: pictures to YAML."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import ROOT

# Calls by the end of their dotted name.
READERS = {
    "Image.open",
    "cv2.imread",
    "cv2.imdecode",
    "np.load",
    "np.fromfile",
    "scipy.io.loadmat",
    "loadmat",
    "json.load",
    "json.loads",
    "yaml.load",
    "yaml.safe_load",
    "yaml.full_load",
    "yaml.unsafe_load",
    "tarfile.open",
    "pq.ParquetFile",
    "pq.read_table",
    "pq.read_schema",
    "pq.read_metadata",
    "csv.reader",
    "csv.DictReader",
    "rasterio.open",
    "coco_mask.decode",
    "coco_mask.frPyObjects",
    "coco_mask.merge",
}
# What is read there, and why it may be. The list only gets shorter.
EXCEPTIONS = {
    ("ovseg/clip/build.py", "json.loads"): "the package's own files",
    ("ovseg/vocab/classes/__init__.py", "json.loads"): "the package's own files",
    ("ovseg/utils/run_record.py", "json.loads"): "what was written in the same line",
    ("ovseg/mining/exports.py", "tarfile.open"): "writes",
    ("ovseg/utils/rasters.py", "rasterio.open"): "writes",
    ("ovseg/data/captions/tables.py", "csv.reader"): "single lines, which are bounded there",
    ("projects/pnp_ovss/loading.py", "json.loads"): "of a weight file",
}


def _calls(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            yield from (known for known in READERS if f".{name}".endswith(f".{known}"))


def test_only_the_readers_decode_what_comes_from_outside():
    files = [
        file
        for folder in ("ovseg", "projects", "tools", "demo", "datasets")
        for file in sorted((ROOT / folder).rglob("*.py"))
    ]
    found = {(file.relative_to(ROOT).as_posix(), call) for file in files for call in _calls(file)}
    own = {pair for pair in found if pair[0].startswith("ovseg/readers/")}

    weights = {pair for pair in found if pair[0].startswith("ovseg/weights/")}
    assert own, "the readers themselves do"
    assert found - own - weights - EXCEPTIONS.keys() == set()
    assert EXCEPTIONS.keys() - found == set(), "no longer needed: take it off the list"
