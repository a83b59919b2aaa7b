"""Class names from a file: text, JSON, YAML or a table."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ovseg.readers.documents import parse_csv, parse_json, parse_yaml, read_text
from ovseg.vocab.vocabulary import plain_name

__all__ = ["read_class_file"]

# Where the names lie in a mapping: our dataset files, YOLO's data.yaml, COCO's JSON.
_KEYS = ("classes", "names", "categories")
_COLUMNS = ("name", "class", "label", "class_name")


def read_class_file(path: str | os.PathLike[str]) -> list[str]:
    """Read class names from a file; its ending says what it holds.

    Args:
        path: a ``.json`` or ``.yaml`` file with a list of names or of objects with a "name", or
            such a list under `classes`, `names` (also by number, as YOLO has it) or `categories`;
            a ``.csv`` or ``.tsv`` file with a column `name`, `class` or `label`, or with one column
            only; any other is text with one name per line (empty lines and lines that begin with
            "#" are skipped).

    Returns:
        The names, in the file's order.

    Raises:
        ValueError: the file holds no names, has another form, or is not in UTF-8.
        OSError: it cannot be read.
    """
    text = read_text(path)
    ending = Path(path).suffix.lower()
    if ending in (".json", ".yaml", ".yml"):
        parse = parse_json if ending == ".json" else parse_yaml
        names = _listed(path, parse(text, path))
    elif ending in (".csv", ".tsv"):
        names = _column(path, text, "\t" if ending == ".tsv" else ",")
    else:
        lines = (line.strip() for line in text.split("\n"))  # splitlines() knows eight more ends
        names = [line for line in lines if line and not line.startswith("#")]
    names = [plain_name(name) for name in names]
    if not names:
        raise ValueError(f"{path}: expected class names, one per line, got none")
    return names


def _listed(path: str | os.PathLike[str], content: Any) -> list[str]:
    if isinstance(content, Mapping):
        content = next((content[key] for key in _KEYS if key in content), None)
    if isinstance(content, Mapping):
        content = [content[key] for key in sorted(content)]
    entries = content if isinstance(content, list) else []
    names = [entry.get("name") if isinstance(entry, Mapping) else entry for entry in entries]
    if not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise ValueError(
            f'{path}: expected a list of names or of objects with a "name", alone or under '
            f"{', '.join(_KEYS)}; got {str(content)[:60]!r}"
        )
    return [str(name).strip() for name in names]


def _column(path: str | os.PathLike[str], text: str, delimiter: str) -> list[str]:
    rows = [row for row in parse_csv(text, path, delimiter=delimiter) if any(row)]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    if column is not None:
        rows = rows[1:]
    elif len(header) > 1:
        raise ValueError(
            f"{path}: expected one column, or one with the heading {' or '.join(_COLUMNS[:3])}, "
            f"got the columns {rows[0]}"
        )
    cells = [row[column or 0].strip() if len(row) > (column or 0) else "" for row in rows]
    return [cell for cell in cells if cell]
