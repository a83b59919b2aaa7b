"""Weights, pickles and addresses from outside are read in `ovseg/readers/` and nowhere else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import ROOT

FORBIDDEN = (
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load", "torch.jit.load"),
    *("safetensors.safe_open", "safetensors.torch.load", "safetensors.torch.load_file"),
    *("zipfile.ZipFile", "zipfile.is_zipfile", "urllib.request", "http.client", "requests"),
    *("torch.hub", "dill", "joblib", "cloudpickle", "shelve", "marshal"),
)
# What still reads elsewhere, and why; this list only shrinks.
EXCEPTIONS: dict[str, set[str]] = {}

FILES = sorted(
    file
    for folder in ("ovseg", "projects", "tools", "demo", "datasets")
    for file in (ROOT / folder).rglob("*.py")
    if not file.is_relative_to(ROOT / "ovseg" / "readers")
)


def names_in(tree: ast.Module) -> Iterator[str]:
    """Yield the full name of everything that is imported, or reached through an import."""
    imported: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.split(".")[0]
                imported[alias.asname or root] = alias.name if alias.asname else root
                yield alias.name
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                imported[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            parts, inner = [node.attr], node.value
            while isinstance(inner, ast.Attribute):
                parts.append(inner.attr)
                inner = inner.value
            if isinstance(inner, ast.Name) and inner.id in imported:
                yield ".".join([imported[inner.id], *reversed(parts)])


def readers_in(source: str) -> set[str]:
    return {
        wanted
        for name in names_in(ast.parse(source))
        for wanted in FORBIDDEN
        if name == wanted or name.startswith(f"{wanted}.")
    }


def test_nothing_outside_the_room_reads_weights_pickles_or_addresses():
    found = {}
    for file in FILES:
        name = file.relative_to(ROOT).as_posix()
        wrong = readers_in(file.read_text(encoding="utf-8")) - EXCEPTIONS.get(name, set())
        if wrong:
            found[name] = sorted(wrong)
    assert found == {}


def test_exceptions_are_still_needed():
    idle = {
        name: names - readers_in(Path(ROOT / name).read_text(encoding="utf-8"))
        for name, names in EXCEPTIONS.items()
    }
    assert {name: names for name, names in idle.items() if names} == {}


def test_the_rule_sees_through_every_form_of_import():
    for source in (
        "import torch\ntorch.load(x)",
        "import torch as t\nt.jit.load(x)",
        "from torch import load",
        "from safetensors.torch import load_file as f",
        "import safetensors.torch\nsafetensors.torch.load_file(x)",
        "import urllib.request as r\nr.urlopen(x)",
        "from urllib.request import urlopen",
        "def f():\n    import zipfile\n    return zipfile.ZipFile(x)",
    ):
        assert readers_in(source), source
    assert not readers_in("import pickle, zipfile\npickle.dumps(1)\nzipfile.BadZipFile")
