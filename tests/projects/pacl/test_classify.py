"""Naming whole pictures, with the bundled weights on scenes whose labels are known."""

from __future__ import annotations

import numpy as np
import pytest

import ovseg
from ovseg.projects.pacl.classify import classify, main, make_parser
from ovseg.tinyscapes import render_scene
from ovseg.vocab import class_list
from tests.helpers import ROOT


@pytest.fixture(scope="module")
def predictor():
    return ovseg.load("pacl_tiny", device="cpu")


def test_classes_that_a_scene_shows_score_above_those_that_it_does_not(predictor):
    vocabulary = predictor.benchmark("tinyscapes")
    count = len(class_list("tinyscapes").names)
    shares = []
    for index in range(24):
        scene = render_scene("val", index)
        scores = classify(predictor.model, scene.image, vocabulary)
        shown = np.isin(np.arange(count), scene.labels)
        # Chance that a class that is there scores above one that is not: 1/2 for a guess.
        above = scores[shown][:, None] > scores[~shown][None]
        shares.append(above.mean())
    assert np.mean(shares) > 0.8


def test_probabilities_are_of_the_classes_asked_for(predictor):
    picture = render_scene("val", 0).image
    scores = classify(predictor.model, picture, predictor.vocabulary(["sky", "a fish"]))
    assert scores.shape == (2,) and scores.sum() == pytest.approx(1.0)
    assert (scores > 0).all()


def test_the_command_names_the_best_classes_of_each_picture(capsys):
    file = ROOT / "demo" / "samples" / "scene_0041.jpg"
    words = ["--input", str(file), "--class-names", "sky", "sea", "house", "--top", "2"]
    main(make_parser().parse_args(words))
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith(f"{file}: ") and line.count(",") == 1
    numbers = [float(part.split()[-1]) for part in line.removeprefix(f"{file}: ").split(",")]
    assert numbers[0] >= numbers[1] > 0


def test_a_config_of_another_method_is_refused():
    words = ["--config-file", "ovseg_tiny", "--input", "x.png", "--class-names", "sky"]
    with pytest.raises(ValueError, match="expected a config of PACL"):
        main(make_parser().parse_args(words))
