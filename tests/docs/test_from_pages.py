"""The tables of docs/from_detectron2.md and docs/from_ov-seg.md: what they call ours exists."""

from __future__ import annotations

import importlib
import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from ovseg.clip_training.config import ClipTrainConfig, load_clip_config
from ovseg.config import config_path, get_default_cfg, known_methods, load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.catalog import BENCHMARKS
from ovseg.evaluation.confusion import scores
from ovseg.vocab import class_list_names
from ovseg.weights import catalogue
from tests.helpers import ROOT

PAGES = {name: ROOT / "docs" / name for name in ("from_detectron2.md", "from_ov-seg.md")}
KEY = re.compile(r"[A-Z][A-Z0-9]*(\.[A-Z][A-Z0-9_]*)+|OUTPUT_DIR|SEED")
RECIPE = {field.name for field in fields(ClipTrainConfig)}
PLACEHOLDER = re.compile(r"[A-Z]{1,6}")


def rows(page: Path) -> list[list[str]]:
    """The cells of every row of every table, without the heads."""
    lines = page.read_text(encoding="utf-8").splitlines()
    tables = [line for line in lines if line.startswith("|")]
    heads = {tables[i - 1] for i, line in enumerate(tables) if line.startswith("|---")}
    body = [line for line in tables if line not in heads and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in body]


@cache
def source() -> str:
    folders = ("ovseg", "tools", "demo", "datasets")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    return "\n".join(file.read_text(encoding="utf-8") for file in files)


@cache
def names() -> frozenset[str]:
    """What has a name of its own in the package: datasets, weights, classes, methods, scores."""
    sets = {"seen": [0]}
    metrics = scores(np.eye(3, dtype=int), ["a", "b"], sets, {})
    datasets = {folders.name for folders in BENCHMARKS}
    listed = {*class_list_names(), *catalogue.entries(), *known_methods(), "_BASE_"}
    return frozenset({*datasets, *metrics, *listed})


def is_ours(word: str) -> bool:
    if word.startswith("--"):
        return f'"{word}"' in source()
    if word.startswith("OUTPUT_DIR/"):
        return f'{Path(word).name}"' in source()
    if word.startswith("ovseg."):
        return found(word)
    if word.startswith("cfg."):
        return hasattr(CfgNode, word.removeprefix("cfg."))
    if "/" in word or word.endswith(".py"):
        return any(ROOT.glob(word))
    if word in names() or (word.isupper() and "_" in word and f'"{word}"' in source()):
        return True
    try:
        return config_path(word).is_file()
    except FileNotFoundError:
        return False


def found(dotted: str) -> bool:
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            value = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[length:]:
            value = getattr(value, attribute, None)
        return value is not None
    return False


def wrong_words(span: str) -> list[str]:
    """The words of a piece of code that are not ours; values are held against their keys."""
    words, wrong = shlex.split(span), []
    command, flag, before = words[0] == "python", "", ""
    for word, after in zip(words, [*words[1:], None], strict=True):
        flag = word if word.startswith("--") else flag
        if KEY.fullmatch(before) or PLACEHOLDER.fullmatch(word):
            pass  # a value
        elif KEY.fullmatch(word):
            wrong += [] if is_setting(word, after) else [word]
        elif word in RECIPE and after is not None:
            load_clip_config("clip_tiny_ft", [word, after])
        elif before in RECIPE or (flag and flag != word and flag != "--config-file"):
            pass  # a value
        elif command and flag != "--config-file" and not word.startswith("--"):
            wrong += [word] if word.endswith(".py") and not is_ours(word) else []
        elif not is_ours(word):
            wrong.append(word)
        before = word
    return wrong


def is_setting(key: str, value: str | None) -> bool:
    if value is None:
        node = get_default_cfg()
        *sections, name = key.split(".")
        for section in sections:
            node = node.get(section, CfgNode())
        return name in node
    try:
        return load_cfg("ovseg_tiny", [key, value]) is not None
    except (KeyError, ValueError):
        return False


@pytest.mark.parametrize("page", PAGES)
def test_every_name_in_the_column_of_ours_exists(page):
    wrong, spans = [], 0
    for row in rows(PAGES[page]):
        assert len(row) == 3 and (row[0] or row[2]), row
        code = re.findall(r"`([^`]+)`", row[1])
        spans += len(code)
        assert re.sub(r"`[^`]+`", "", row[1]).strip() in (("",) if code else ("no",)), row
        wrong += [(word, row[0]) for span in code for word in wrong_words(span)]
    assert wrong == []
    assert spans > 60


@pytest.mark.parametrize(
    "span",
    [
        "MODEL.CLIP_ADAPTER.MASK_THRESHOLD",
        "SOLVER.MAX_ITER many",
        "ovseg.detectron2.Nothing",
        "python tools/nothing.py --config-file ovseg_swinB",
        "python tools/train_net.py --config-file nothing",
        "--no-such-flag",
        "OUTPUT_DIR/inference/<dataset>/nothing.json",
        "nothing_sem_seg_val",
        "cfg.merge_from_nothing",
        "OVSEG_NOTHING",
    ],
)
def test_a_name_that_does_not_exist_is_noticed(span):
    assert len(wrong_words(span)) == 1


def test_the_example_for_detectron2_runs(monkeypatch):
    text = PAGES["from_detectron2.md"].read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(ROOT)
    before = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    try:
        importlib.import_module("ovseg.data.catalog").register_builtin()
        values: dict[str, object] = {}
        exec(compile(code, "docs/from_detectron2.md", "exec"), values)
    finally:
        for catalog, data in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
            catalog.data.clear()
            catalog.data.update(data)
    assert tuple(values["scores"].shape) == (3, *values["picture"].shape[:2])
    assert values["labels"].max() <= 2
