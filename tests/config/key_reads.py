"""Which config keys the sources read, told from their syntax."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from ovseg.d2.config import CfgNode
from tests.helpers import ROOT

FOLDERS = ("ovseg", "projects", "tools", "demo", "datasets")
# Where keys are made, not read.
DEFAULTS = (
    "ovseg/config/defaults.py",
    "ovseg/config/compatibility.py",
    "ovseg/d2/_lite/defaults.py",
)

Key = tuple[str, ...]


def leaves(cfg: CfgNode, above: Key = ()) -> Iterator[Key]:
    """Yield the full name of every key that is not a section."""
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from leaves(value, (*above, name))
        else:
            yield (*above, name)


def keys_read() -> set[Key]:
    """Collect what the package, projects and scripts read, as `cfg.A.B` or `x = cfg.A; x.B`."""
    found: set[Key] = set()
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*.py"):
            if file.relative_to(ROOT).as_posix() not in DEFAULTS:
                found |= reads_of(file.read_text(encoding="utf-8"))
    return found


def reads_of(source: str) -> set[Key]:
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found: set[Key] = set()
    for scope in (tree, *functions):
        sections: dict[str, Key] = {}  # names of variables that hold a section
        for target, value in _assignments(scope):
            if isinstance(target, ast.Name) and (key := _key(value, sections)):
                sections[target.id] = key
        found |= {
            _key(node, sections)
            for node in ast.walk(scope)
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
        }
    return found


def _assignments(scope: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    for node in ast.walk(scope):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                    yield from zip(target.elts, node.value.elts, strict=False)
                else:
                    yield target, node.value


def _key(node: ast.AST, sections: dict[str, Key]) -> Key:
    """The trailing capitals of an attribute, after those of the section that it starts from."""
    names: list[str] = []
    while isinstance(node, ast.Attribute) and node.attr.isupper():
        names.insert(0, node.attr)
        node = node.value
    start = sections.get(node.id, ()) if isinstance(node, ast.Name) and node.id != "cfg" else ()
    return (*start, *names)
