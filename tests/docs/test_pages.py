"""The Markdown of the repository: links lead somewhere, code names what exists, examples run."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import textwrap
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.helpers import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(
    [
        ROOT / "README.md",
        ROOT / "CHANGELOG.md",
        *DOCS.rglob("*.md"),
        *(ROOT / name / "README.md" for name in ("demo", "datasets", "projects")),
        *(ROOT / "projects").glob("*/README.md"),
    ]
)
_FENCE = re.compile(r"^ *```([\w{}-]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for kind, text in found if kind == language]


def anchors(page: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page):
    text = re.sub(r"`[^`]*`", "`", _FENCE.sub("", page.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), f"{target}: no such file"
        assert file.is_relative_to(ROOT), f"{target}: outside of the repository"
        assert not anchor or anchor in anchors(file), f"{target}: no such heading"


def listed(page: Path) -> list[Path]:
    """The pages that the tables of contents on a page list."""
    lines = [line for block in blocks(page, "{toctree}") for line in block.splitlines() if line]
    entries = [re.sub(r".* <(.+)>", r"\1", line) for line in lines if line[0] != ":"]
    paths = [str((page.parent / f"{entry}.md").resolve()) for entry in entries]
    return [found for path in paths for found in PAGES if fnmatch(str(found), path)]


def test_every_page_is_listed_once_in_the_contents_of_the_site():
    index = DOCS / "index.md"
    assert sorted([index, *listed(index), *listed(DOCS / "api" / "index.md")]) == PAGES


def imported(tree: ast.Module) -> list[tuple[str, str | None]]:
    names: list[tuple[str, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [(node.module or "", alias.name) for alias in node.names]
    return [(module, name) for module, name in names if module.split(".")[0] == "ovseg"]


def exists(module: str, name: str | None) -> bool:
    found = importlib.import_module(module)
    if name is None or hasattr(found, name):
        return True
    return importlib.util.find_spec(f"{module}.{name}") is not None


def test_what_examples_import_exists():
    for page in PAGES:
        for code in blocks(page, "python"):
            for module, name in imported(ast.parse(textwrap.dedent(code))):
                assert exists(module, name), f"{named(page)}: {module} {name or ''}"


def test_what_the_api_pages_document_exists():
    count = 0
    for page in (DOCS / "api").glob("*.md"):
        for block in blocks(page, "{eval-rst}"):
            for module, members in re.findall(r"automodule:: (\S+)\n   :members:(.*)", block):
                count += 1
                assert exists(module, None), f"{named(page)}: {module}"
                for member in filter(None, map(str.strip, members.split(","))):
                    assert exists(module, member), f"{named(page)}: {module}.{member}"
            for name in re.findall(r"autoexception:: (\S+)", block):
                assert exists(*name.rsplit(".", 1)), f"{named(page)}: {name}"
    assert count > 30


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "start.md"], ids=named)
def test_the_first_example_of_a_page_runs_and_labels_every_pixel(
    page, tmp_path, monkeypatch, capsys
):
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    monkeypatch.chdir(tmp_path)
    space: dict = {}

    exec(compile(blocks(page, "python")[0], named(page), "exec"), space)

    areas, table = space["result"].areas(), capsys.readouterr().out
    assert len(areas) > 1 and all(f"\n{area.name} " in table for area in areas)
    assert sum(area.pixels for area in areas) == 128 * 160
    assert {path.suffix for path in (tmp_path / "out").iterdir()} == {".png", ".json", ".jpg"}


def test_readme_shows_a_picture_on_its_first_screen():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    [picture] = [number for number, line in enumerate(lines) if line.startswith("![")]
    assert picture < 40
