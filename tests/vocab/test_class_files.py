from __future__ import annotations

import json
from pathlib import Path

import pytest

from ovseg.vocab.class_files import read_class_file


def test_class_file_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_text("\ufeff# things\nsky\n\n building, edifice \nárbol\n", encoding="utf-8")
    assert read_class_file(path) == ["sky", "building, edifice", "árbol"]


@pytest.mark.parametrize(
    "content",
    [
        ["sky", "tree"],
        [{"id": 4, "name": "sky"}, {"name": "tree"}],
        {"categories": [{"id": 1, "name": "sky"}, {"id": 2, "name": "tree"}]},
    ],
)
def test_class_file_of_json(tmp_path: Path, content: object) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps(content))
    assert read_class_file(path) == ["sky", "tree"]


@pytest.mark.parametrize(
    "text",
    [
        "- sky\n- tree\n",
        "name: garden\nimages: pictures\nclasses: [sky, tree]\n",
        "names:\n  1: tree\n  0: sky\n",
    ],
    ids=["list", "dataset", "yolo"],
)
def test_class_file_of_yaml(tmp_path: Path, text: str) -> None:
    path = tmp_path / "names.yaml"
    path.write_text(text)
    assert read_class_file(path) == ["sky", "tree"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "Idx,Ratio,Name\n1,0.2,sky\n2,0.1,tree\n"),
        ("a.csv", "sky\ntree\n"),
        ("a.csv", "class\nsky\n\ntree\n"),
        ("a.tsv", "label\tcolour\nsky\tblue\ntree\tgreen\n"),
    ],
)
def test_class_file_of_a_table(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_class_file(path) == ["sky", "tree"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "{", "not valid JSON"),
        ("a.json", '{"names": 3}', "expected a list of names"),
        ("a.json", "[1, 2]", "expected a list of names"),
        ("a.yaml", "names: [on]", "expected a list of names"),
        ("a.yaml", "names: !!python/name:os.system", "not plain YAML"),
        ("a.csv", "1,sky\n2,tree\n", r"with the heading name or class or label"),
        ("a.txt", "\n# nothing\n", "expected class names, one per line"),
    ],
)
def test_class_file_of_another_form(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_class_file(path)


def test_a_file_that_is_not_utf8_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "namen.txt"
    path.write_bytes("Himmel\nBäume\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"namen\.txt: expected text in UTF-8.*0xe4 in line 2"):
        read_class_file(path)
