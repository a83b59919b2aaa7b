"""The architecture, read from the sources: imports go downward, and house rules hold."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_python

# Layer of each part of the package (docs/design.md); a part may import lower layers.
LAYERS = {
    "d2": 0,
    "utils": 0,
    "readers": 0,
    "vocab": 1,
    "config": 1,
    "weights": 1,
    "visualization": 1,
    "clip": 2,
    "data": 2,
    "proposals": 2,
    "modeling": 3,
    "evaluation": 3,
    "mining": 3,
    "training": 4,
    "clip_training": 4,
    "tuning": 4,
    "decomposition": 4,
    "predictor": 4,
    "miner": 4,
    "benchmark": 4,
    "tinyscapes": 5,
    "projects": 5,
    "commands": 6,
}
# Modules that belong to a part without lying in its folder.
PART_OF = dict.fromkeys(
    (
        "segmentation",
        "regions",
        "batch",
        "detectron2",
        "encoded_picture",
        "toy_world",
        "exports",
        "stored",
        "large",
        "large_segmentation",
    ),
    "predictor",
)
# What a layer below may not be imported by after all, and what may be within one layer.
FORBIDDEN = {("modeling", "data"), ("projects", "tinyscapes")}
WITHIN_A_LAYER = {
    ("utils", "readers"),
    ("d2", "readers"),
    ("utils", "d2"),
    ("config", "d2"),
    ("clip_training", "training"),
    ("benchmark", "predictor"),
    ("decomposition", "clip_training"),
    ("decomposition", "tuning"),
}

MAX_FILE = {"ovseg/modeling/backbone/swin.py": 420}
PACKAGE = sorted((ROOT / "ovseg").rglob("*.py"))
SCRIPTS = sorted(file for folder in ("tools", "demo") for file in (ROOT / folder).glob("*.py"))
PROJECTS = sorted((ROOT / "projects").rglob("*.py"))


def _relative(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def _tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text(encoding="utf-8"), filename=str(file))


def _module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    if parts[0] == "projects":
        parts = ("ovseg", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and full name of each import; `from a import b` gives a.b."""
    package = _module_name(file).split(".")
    if file.name != "__init__.py":
        package = package[:-1]
    for node in ast.walk(_tree(file)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package[: len(package) - node.level + 1]
                base = ".".join([*parents, *filter(None, [base])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def _part(module: str) -> str | None:
    """Name the part that a module of ovseg belongs to; None for the package's own file."""
    names = module.split(".")
    if len(names) < 2 or names[1].startswith("__"):
        return None
    return PART_OF.get(names[1], names[1])


def _may_import(importer: str, imported: str) -> bool:
    if importer == imported or (importer, imported) in WITHIN_A_LAYER:
        return True
    return (importer, imported) not in FORBIDDEN and LAYERS[imported] < LAYERS[importer]


def test_every_part_of_the_package_has_a_layer():
    parts = {_part(_module_name(file)) for file in PACKAGE} - {None}

    assert sorted(parts - LAYERS.keys()) == [], "give new parts a layer, here and in docs/design.md"


def test_imports_go_strictly_downward():
    wrong = []
    for file in [*PACKAGE, *PROJECTS]:
        importer = _part(_module_name(file))
        if importer is None:
            continue
        for line, name in _imports(file):
            if name.split(".")[0] != "ovseg":
                continue
            imported = _part(name)
            if imported is None or imported not in LAYERS:
                continue
            if not _may_import(importer, imported):
                wrong.append(f"{_relative(file)}:{line} {importer} must not import {imported}")

    assert wrong == []


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("modeling", "clip", True),
        ("modeling", "data", False),
        ("evaluation", "data", True),
        ("modeling", "evaluation", False),
        ("clip", "data", False),
        ("data", "vocab", True),
        ("clip_training", "training", True),
        ("training", "clip_training", False),
        ("training", "predictor", False),
        ("predictor", "weights", True),
        ("weights", "clip", False),
        ("projects", "modeling", True),
        ("projects", "training", True),
        ("data", "tinyscapes", False),
        ("d2", "utils", False),
        ("vocab", "config", False),
    ],
)
def test_the_rules_say_what_the_table_says(importer, imported, allowed):
    assert _may_import(importer, imported) is allowed


def test_only_the_predictor_merges_specks_so_no_evaluation_can():
    importers = {
        _relative(file)
        for file in [*PACKAGE, *PROJECTS, *SCRIPTS]
        for _, name in _imports(file)
        if name.startswith("ovseg.utils.specks")
    }
    users = {
        _relative(file)
        for file in [*PACKAGE, *PROJECTS, *SCRIPTS]
        if "min_region_area" in file.read_text(encoding="utf-8")
    }

    assert importers == {"ovseg/encoded_picture.py"}
    assert users == importers | {
        "ovseg/predictor.py",
        "ovseg/batch.py",
        "ovseg/commands/segment.py",
    }


def test_projects_do_not_import_each_other():
    wrong = []
    for file in PROJECTS:
        own = _module_name(file).split(".")[2]
        for line, name in _imports(file):
            names = name.split(".")
            if names[:2] == ["ovseg", "projects"] and names[2:] and names[2] != own:
                wrong.append(f"{_relative(file)}:{line} imports {name}")

    assert wrong == []


def test_only_the_seam_imports_detectron2():
    importers = {
        _relative(file)
        for file in [*PACKAGE, *PROJECTS, *SCRIPTS]
        for _, name in _imports(file)
        if name.split(".")[0] == "detectron2"
    }

    assert importers, "the seam itself imports it"
    assert {name for name in importers if not name.startswith("ovseg/d2/")} == set()


def test_only_the_seam_reaches_into_its_lite_backend():
    importers = [
        f"{_relative(file)}:{line}"
        for file in [*PACKAGE, *PROJECTS, *SCRIPTS]
        if not _relative(file).startswith("ovseg/d2/")
        for line, name in _imports(file)
        if name.startswith("ovseg.d2._lite")
    ]

    assert importers == []


def test_the_library_neither_prints_nor_imports_stars_nor_swallows_errors():
    wrong = []
    for file in PACKAGE:
        speaks = _part(_module_name(file)) == "commands" or file.name == "command_line.py"
        for node in ast.walk(_tree(file)):
            calls_print = (
                not speaks
                and isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "print"
            )
            imports_star = isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
            bare_except = isinstance(node, ast.ExceptHandler) and node.type is None
            if calls_print or imports_star or bare_except:
                wrong.append(f"{_relative(file)}:{node.lineno}")

    assert wrong == []


def test_files_stay_readable_in_length():
    too_long = {
        _relative(file): lines
        for file in [*PACKAGE, *PROJECTS]
        if (lines := len(file.read_text(encoding="utf-8").splitlines()))
        > MAX_FILE.get(_relative(file), 400)
    }

    assert too_long == {}


def test_functions_stay_readable_in_length():
    too_long = []
    for file in [*PACKAGE, *PROJECTS]:
        for node in ast.walk(_tree(file)):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            limit = 40 if node.name == "forward" else 50
            lines = _body_lines(node)
            if lines > limit:
                too_long.append(f"{_relative(file)}:{node.lineno} {node.name}: {lines} lines")

    assert too_long == []


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count from the first statement on: signature and docstring are not what one has to follow."""
    body = node.body[1:] if ast.get_docstring(node) is not None else node.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_tools_only_parse_and_call_the_library():
    too_long = {
        _relative(file): lines
        for file in SCRIPTS
        if file.parent.name == "tools"
        and (lines := len(file.read_text(encoding="utf-8").splitlines())) > 120
    }

    assert too_long == {}


def test_importing_the_package_is_cheap():
    heavy = "['torch', 'numpy', 'cv2', 'detectron2', 'open_clip']"
    run = run_python(
        "-c", f"import sys, ovseg; print([m for m in {heavy} if m in sys.modules], ovseg.load)"
    )

    assert run.stdout.startswith("[] <function load"), run.stderr
