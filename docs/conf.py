"""The site: Sphinx reads the Markdown of the repository and the docstrings of the package.

The repository is the source folder (`sphinx-build -c docs . output/site`), so that a link from one
file to another is the same on the site and in a browser of the repository. `make docs` builds it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import ovseg

ROOT = Path(__file__).resolve().parent.parent
PAGE_FOLDERS = ("docs", "demo", "datasets", "projects")


def folders_to_skip() -> list[str]:
    """List the folders without pages, so that data sets and results are not walked through."""
    skipped = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in PAGE_FOLDERS]
    skipped += [path for path in (ROOT / "datasets").iterdir() if path.is_dir()]
    return [path.relative_to(ROOT).as_posix() for path in skipped]


project = "ovseg"
author = "the authors of ovseg"
release = ovseg.__version__
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/*.md",
    "docs/api/*.md",
    "demo/README.md",
    "datasets/README.md",
    "projects/README.md",
    "projects/*/README.md",
]
exclude_patterns = folders_to_skip()

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_heading_anchors = 4

default_role = "code"  # one backtick in a docstring is a name, as in Markdown
smartquotes = False  # names in quotes are to be copied
highlight_language = "none"
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_type_aliases = {name: name for name in ("ImageLike", "Inputs", "Names")}
maximum_signature_line_length = 88
nitpicky = True
# Signatures and Raises name classes of other packages and of inner rooms, which have no page here.
nitpick_ignore_regex = [("py:(class|exc)", ".*")]

html_theme = "furo"
html_title = f"ovseg {release}"
templates_path = ["_templates"]
html_additional_pages = {"index": "redirect.html"}
html_show_copyright = False
html_copy_source = False


def keep_returns_whole(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Keep napoleon from taking the words before a colon under "Returns:" for a type.

    Types stand in the signatures; what is returned is told in prose.
    """
    for place, line in enumerate(lines[:-1]):
        if line.strip() == "Returns:":
            text = lines[place + 1].lstrip()
            indent = lines[place + 1][: -len(text)]
            lines[place + 1] = f"{indent}: {text}"


def setup(app: Sphinx) -> None:
    """Put the hook before napoleon's, whose priority is 500."""
    app.connect("autodoc-process-docstring", keep_returns_whole, priority=400)
