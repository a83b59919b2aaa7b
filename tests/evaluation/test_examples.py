from __future__ import annotations

import math

import numpy as np
import pytest

from ovseg.evaluation.examples import (
    ExampleKeeper,
    choose_examples,
    example_path,
    remove_other_examples,
)
from ovseg.readers.pictures import read_label


def labels(value: int) -> np.ndarray:
    return np.full((2, 3), value)


@pytest.mark.parametrize("seed", range(5))
def test_the_examples_of_the_whole_are_kept_however_it_is_divided(tmp_path, seed) -> None:
    rng = np.random.default_rng(seed)
    scores = {f"{i}.jpg": float(rng.integers(0, 6)) for i in range(30)}  # many ties
    scores["30.jpg"] = math.nan
    keepers = [ExampleKeeper(tmp_path, 3) for _ in range(4)]
    for index, file in enumerate(rng.permutation(list(scores))):
        keepers[rng.integers(4)].offer(str(file), scores[str(file)], labels(index))
    chosen = choose_examples(scores, 3)
    known = sorted(score for score in scores.values() if not math.isnan(score))
    assert [scores[f] for f in chosen["worst"]] == known[:3]
    assert [scores[f] for f in chosen["best"]] == known[:-4:-1]
    assert len({*chosen["worst"], *chosen["best"]}) == 6
    for file in (*chosen["worst"], *chosen["best"]):
        assert example_path(tmp_path, file).is_file()
    assert not example_path(tmp_path, "30.jpg").exists()
    assert len(list(tmp_path.iterdir())) <= 4 * 2 * 3
    remove_other_examples(tmp_path, [*chosen["worst"], *chosen["best"]])
    assert len(list(tmp_path.iterdir())) == 6


def test_predictions_of_many_classes_keep_their_values(tmp_path) -> None:
    ExampleKeeper(tmp_path, 1).offer("a/b.jpg", 5.0, labels(846))
    assert read_label(example_path(tmp_path, "a/b.jpg")).tolist() == labels(846).tolist()


def test_few_images_are_not_shown_twice() -> None:
    assert choose_examples({"a": 1.0}, 3) == {"worst": ["a"], "best": []}
    assert choose_examples({"a": 1.0, "b": 1.0, "c": 0.0}, 3) == {
        "worst": ["c", "a"],
        "best": ["b"],
    }
    assert choose_examples({"a": math.nan}, 3) == {"worst": [], "best": []}


def test_nothing_is_written_where_no_examples_are_wanted(tmp_path) -> None:
    ExampleKeeper(tmp_path / "none", 0).offer("a", 1.0, labels(0))
    assert not (tmp_path / "none").exists()
