from __future__ import annotations

import importlib.util
import pickle
import time

import pytest
import yaml

from ovseg.config import config_path, load_cfg
from ovseg.data.dataset_yaml import DatasetYaml
from ovseg.readers import documents
from ovseg.readers.documents import (
    DocumentError,
    parse_csv,
    parse_json,
    parse_yaml,
    read_csv,
    read_json,
    read_json_lines,
    read_text,
    read_yaml,
)
from ovseg.readers.limits import LimitError, limited
from ovseg.vocab.class_files import read_class_file


@pytest.mark.parametrize("read", [read_text, read_json, read_yaml, read_csv, read_class_file])
def test_another_encoding_names_the_file_and_the_line(tmp_path, read):
    path = tmp_path / "a.csv"
    path.write_bytes("a\nWüste\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"a\.csv: expected text in UTF-8.*0xfc in line 2"):
        read(path)


@pytest.mark.parametrize("read", [read_text, read_json, read_yaml, read_csv, read_class_file])
def test_a_device_is_no_document(read):
    with pytest.raises(OSError, match="expected a regular file"):
        read("/dev/zero")


def test_aliases_that_multiply_are_refused_before_anybody_follows_them(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    for level in range(1, 9):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]")
    began = time.monotonic()
    with pytest.raises(LimitError, match="yaml nodes"):
        parse_yaml("\n".join(lines), "bomb")
    with pytest.raises(LimitError, match="yaml aliases, got 101"):
        parse_yaml("a: &a x\nb: [" + "*a, " * 101 + "]", "bomb")
    path = tmp_path / "set.yaml"
    path.write_text("\n".join(lines))
    for read in (read_yaml, load_cfg, DatasetYaml.read, read_class_file):
        with pytest.raises(LimitError):
            read(path)
    assert time.monotonic() - began < 10


def test_aliases_and_merges_within_the_bounds_are_followed():
    text = "base: &b {x: 1, y: [2]}\nother:\n  <<: *b\n  x: 3\nsame: *b\n"
    found = parse_yaml(text, "a")
    assert found["other"] == {"x": 3, "y": [2]}
    assert found["same"] == {"x": 1, "y": [2]}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: 1\na: 2", "the key 'a' is there twice"),
        ("a: {b: 1, 'b': 2}", "the key 'b' is there twice"),
        ("a: &a [*a]", "a reference to what it lies in"),
        ("a: 2024-99-99", "month must be in"),
        ("[a]: 1\n? {b: c}\n: 1", "unhashable"),
        ("a: !!timestamp [1]", "expected a scalar node"),
        ("a: !!timestamp x", "NoneType"),
        ("a: !!int x", "invalid literal"),
        ("a: [", "expected"),
        ("a: !!python/name:os.system x", "could not determine a constructor"),
        (f"a: {'9' * 5000}", "limit"),
        ("a: \x07", "unacceptable character"),
    ],
)
def test_yaml_that_is_no_plain_data_names_the_file(text, reason):
    with pytest.raises(DocumentError, match=rf"set\.yaml: not plain YAML: [\s\S]*{reason}"):
        parse_yaml(text, "set.yaml")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 5000, "- " * 5000, "[" * 201 + "]" * 201])
def test_yaml_nested_too_deeply_is_refused(text):
    with pytest.raises(LimitError, match="200 document depth"):
        parse_yaml(text, "deep")


def test_only_a_tag_is_said_to_be_one():
    with pytest.raises(DocumentError) as raised:
        parse_yaml("a: 1\nb: !!python/name:x y", "a")
    assert raised.value.tag_line == 1
    copy = pickle.loads(pickle.dumps(raised.value))
    assert (str(copy), copy.tag_line) == (str(raised.value), 1)
    with pytest.raises(DocumentError) as raised:
        parse_yaml("{[a]: 1, {b: c}: 2}", "a")
    assert raised.value.tag_line is None


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[" * 200_000, b'{"a": ' * 200_000, b"\xff", b"9" * 5000, b"{'a': 1}"]
)
def test_json_that_is_none_names_the_file(tmp_path, data):
    path = tmp_path / "a.json"
    path.write_bytes(data)
    with pytest.raises(DocumentError, match=r"a\.json: "):
        read_json(path)
    with pytest.raises(DocumentError, match="member: "):
        parse_json(data, "member")


def test_a_line_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n{"a"\n')
    with pytest.raises(DocumentError, match=r"a\.jsonl, line 3: not valid JSON"):
        list(read_json_lines(path))


def test_tables_keep_their_cells_and_errors_name_the_file(tmp_path):
    assert parse_csv('a,"b\nc"\r\n\nd,', "t") == [["a", "b\nc"], [], ["d", ""]]
    with pytest.raises(DocumentError, match=r"t\.csv: not a table: field larger"):
        parse_csv("a" * 200_000, "t.csv")


def test_documents_beyond_the_limit_are_not_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[1, 2, 3]")
    with limited(document_bytes=8), pytest.raises(LimitError, match="8 document bytes, got 9"):
        read_json(path)
    with limited(yaml_bytes=8), pytest.raises(LimitError, match="8 yaml bytes, got 9"):
        read_yaml(path)


def test_yaml_of_too_many_nodes_is_given_up_before_its_end_is_read():
    text = "- [1]\n" * 100 + "- [" * 5
    with limited(yaml_nodes=200), pytest.raises(LimitError, match="200 yaml nodes, got 201"):
        parse_yaml(text, "a")
    with limited(yaml_nodes=300), pytest.raises(DocumentError, match="not plain YAML"):
        parse_yaml(text, "a")


def test_yaml_is_the_same_without_libyaml(monkeypatch):
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    spec = importlib.util.spec_from_file_location("documents_in_python", documents.__file__)
    in_python = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(in_python)
    assert in_python._PlainLoader.__mro__[2].__name__ == "_PythonParser"
    files = sorted(config_path("ovseg_tiny").parent.glob("*.yaml"))
    assert len(files) > 10
    for file in files:
        assert in_python.read_yaml(file) == read_yaml(file)
    with pytest.raises(LimitError, match="document depth"):
        in_python.parse_yaml("[" * 300, "a")
