"""Text, JSON, YAML and tables as text, of bounded size and depth; every error names the file."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.composer import Composer, ComposerError
from yaml.constructor import ConstructorError, SafeConstructor
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import Resolver
from yaml.scanner import Scanner

from ovseg.readers.files import read_bytes
from ovseg.readers.limits import LimitError, limits, require_within

__all__ = [
    "DocumentError",
    "parse_csv",
    "parse_json",
    "parse_text",
    "parse_yaml",
    "read_csv",
    "read_json",
    "read_json_lines",
    "read_text",
    "read_yaml",
]

# What PyYAML lets through of dates and numbers that are none.
_SCALAR_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_MERGE = "tag:yaml.org,2002:merge"
StrPath = str | os.PathLike[str]


class DocumentError(ValueError):
    """A document that is not what it should be; the text names the file and the reason.

    Attributes:
        reason: the text without the file.
        tag_line: of YAML with a tag that is not plain data, the line of the tag, from 0.
    """

    def __init__(self, name: StrPath, reason: str, *, tag_line: int | None = None) -> None:
        super().__init__(f"{name}: {reason}")
        self.name, self.reason, self.tag_line = os.fspath(name), reason, tag_line

    def __reduce__(self) -> tuple[Any, ...]:
        return _document_error, (self.name, self.reason, self.tag_line)


def _document_error(name: str, reason: str, tag_line: int | None) -> DocumentError:
    return DocumentError(name, reason, tag_line=tag_line)


def read_text(path: StrPath, *, limit: str = "document_bytes") -> str:
    """Read a text file that a user gave, with or without a byte order mark.

    Args:
        path: the file.
        limit: which field of `Limits` bounds its size.

    Returns:
        Its text.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not in UTF-8, or too large.
    """
    return parse_text(read_bytes(path, limit=limit), path).replace("\r\n", "\n").replace("\r", "\n")


def parse_text(content: bytes, name: StrPath) -> str:
    """Decode text.

    Args:
        content: in UTF-8, with or without a byte order mark.
        name: what to call it in an error.

    Returns:
        The text.

    Raises:
        DocumentError: it is not in UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DocumentError(
            name,
            f"expected text in UTF-8, got the byte {content[error.start]:#04x} in line {line}; "
            "save the file as UTF-8, e.g. by iconv -f latin1 -t utf-8",
        ) from error


def read_json(path: StrPath) -> Any:
    """Read a JSON file.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        OSError: it cannot be read.
        DocumentError: it is not JSON in UTF-8.
        LimitError: it is too large.
    """
    return parse_json(read_bytes(path), path)


def parse_json(data: bytes | str, name: StrPath) -> Any:
    """Parse JSON.

    Args:
        data: text, or bytes in UTF-8.
        name: what to call it in an error.

    Returns:
        Its content.

    Raises:
        DocumentError: it is not JSON in UTF-8, or nested too deeply.
    """
    try:
        return json.loads(parse_text(data, name) if isinstance(data, bytes) else data)
    except DocumentError:
        raise
    except RecursionError as error:
        raise DocumentError(name, "not usable JSON: lists or objects nested too deeply") from error
    except ValueError as error:
        raise DocumentError(name, f"not valid JSON: {error}") from error


def read_json_lines(path: StrPath) -> Iterator[Any]:
    """Read a file with a JSON document a line; empty lines are passed over.

    Args:
        path: the file.

    Yields:
        The documents.

    Raises:
        OSError: it cannot be read.
        DocumentError: a line is not JSON; the text names it.
        LimitError: it is too large.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if line.strip():
            yield parse_json(line, f"{path}, line {number}")


def read_yaml(path: StrPath) -> Any:
    """Read a YAML file of plain data.

    Args:
        path: the file.

    Returns:
        Its content.

    Raises:
        OSError: it cannot be read.
        DocumentError: see `parse_yaml`.
        LimitError: it is too large, or one of its references stands for too much.
    """
    return parse_yaml(read_text(path, limit="yaml_bytes"), path)


def parse_yaml(text: str, name: StrPath) -> Any:
    """Parse YAML of plain data.

    Args:
        text: the document.
        name: what to call it in an error.

    Returns:
        Its content.

    Raises:
        DocumentError: it is not YAML, has tags of programs, names a key twice, or refers to itself.
        LimitError: it is nested too deeply, or its references stand for too much.
    """
    require_within("yaml_bytes", len(text), of=os.fspath(name))
    loader: _PlainLoader | None = None
    try:
        loader = _PlainLoader(text, os.fspath(name))
        return loader.get_single_data()
    except LimitError:
        raise
    except ConstructorError as error:
        tagged = "for the tag" in str(error.problem) and error.problem_mark is not None
        line = error.problem_mark.line if tagged and error.problem_mark else None
        raise DocumentError(name, f"not plain YAML: {error}", tag_line=line) from error
    except RecursionError as error:
        raise DocumentError(name, "not usable YAML: nested too deeply") from error
    except (yaml.YAMLError, *_SCALAR_ERRORS) as error:
        raise DocumentError(name, f"not plain YAML: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()


def read_csv(path: StrPath, *, delimiter: str = ",") -> list[list[str]]:
    """Read a table as text.

    Args:
        path: the file.
        delimiter: between cells.

    Returns:
        The cells of each row.

    Raises:
        OSError: it cannot be read.
        DocumentError: see `parse_csv`.
        LimitError: it is too large.
    """
    return parse_csv(parse_text(read_bytes(path), path), path, delimiter=delimiter)


def parse_csv(text: str, name: StrPath, *, delimiter: str = ",") -> list[list[str]]:
    """Parse a table as text.

    Args:
        text: the table.
        name: what to call it in an error.
        delimiter: between cells.

    Returns:
        The cells of each row.

    Raises:
        DocumentError: its quotes make no sense, or a cell is longer than Python's limit.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return list(reader)
    except csv.Error as error:
        raise DocumentError(name, f"not a table: {error} (line {reader.line_num})") from error


class _PythonParser(Reader, Scanner, Parser):
    """What libyaml does, at a quarter of its speed: events of a text."""

    def __init__(self, stream: str) -> None:
        Reader.__init__(self, stream)
        Scanner.__init__(self)
        Parser.__init__(self)


_Parser: Any = yaml.cyaml.CParser if yaml.__with_libyaml__ else _PythonParser


class _PlainLoader(Composer, _Parser, SafeConstructor, Resolver):
    """PyYAML's safe loader with bounds, which takes no key twice."""

    def __init__(self, stream: str, name: str) -> None:
        _Parser.__init__(self, stream)
        for part in (Composer, SafeConstructor, Resolver):
            part.__init__(self)
        self._file = name
        self._limits = limits()
        self._depth = 0
        self._aliases = 0
        # Nodes so far, and how many each stands for, once references are followed.
        self._nodes = 0
        self._weights: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Count depth, nodes and references."""
        if self.check_event(AliasEvent):
            self._aliases += 1
            self._require("yaml_aliases", self._aliases)
            found = super().compose_node(parent, index)
            if id(found) not in self._weights:
                raise ComposerError(None, None, "a reference to what it lies in")
            self._count(self._weights[id(found)])
            return found
        before = self._nodes
        self._count(1)
        self._depth += 1
        self._require("document_depth", self._depth)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._weights[id(node)] = self._nodes - before
        return node

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        self._require("yaml_nodes", self._nodes)

    def _require(self, limit: str, wanted: int) -> None:
        require_within(limit, wanted, of=self._file, most=getattr(self._limits, limit))

    def compose_mapping_node(self, anchor: str | None) -> MappingNode:
        """Refuse a key that is there already: which of the values was meant?"""
        node: MappingNode = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == _MERGE:
                continue
            if (key.tag, key.value) in seen:
                raise ComposerError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add((key.tag, key.value))
        return node
