"""Every bundled model loads by its name alone and knows tinyscapes."""

from __future__ import annotations

import numpy as np
import pytest

import ovseg
from ovseg.config import load_cfg
from ovseg.tinyscapes import ALL_NAMES, render_scene
from ovseg.weights import catalogue

SCENES = 8
# Pixels of the first scenes of val that are named right, of those each scene shows; a fifth by
# chance.
RIGHT = {"ovseg_tiny": 0.8, "pacl_tiny": 0.6, "segclip_tiny": 0.5, "pnp_ovss_tiny": 0.3}


def test_all_of_them_are_looked_at():
    assert set(catalogue.BUNDLED) == set(RIGHT)
    sizes = [catalogue.entries()[name].bundled_path.stat().st_size for name in RIGHT]
    assert sum(sizes) < 21_000_000


def require_its_packages(name):
    if name == "pnp_ovss_tiny":
        pytest.importorskip("transformers")


@pytest.mark.parametrize("name", RIGHT)
def test_it_names_most_of_what_scenes_show(name):
    require_its_packages(name)
    assert load_cfg(name).MODEL.WEIGHTS in ("", name)
    ask_for_all = ["MODEL.PNP_OVSS.FILTER.NAME", "all"] if name == "pnp_ovss_tiny" else []
    predictor = ovseg.load(name, device="cpu", opts=ask_for_all)
    assert predictor.provenance["weights"]["name"] == name
    right = []
    for number in range(SCENES):
        scene = render_scene("val", number)
        shown = np.unique(scene.labels)
        found = predictor.segment(scene.image, [ALL_NAMES[label] for label in shown]).labels
        right.append((shown[found.clip(0)] == scene.labels).mean())
    assert np.mean(right) > RIGHT[name]


@pytest.mark.parametrize("name", [*RIGHT, "corrclip_tiny"])
def test_a_model_that_moves_forgets_the_texts_of_where_it_was(name):
    require_its_packages(name)
    predictor = ovseg.load(config=name, device="cpu")
    scene = predictor.set_image(render_scene("val", 0).image)
    before = scene.segment(["sky", "grass"]).labels
    banks = predictor.model.text_banks()
    assert [len(bank) for bank in banks] == [2]
    predictor.model.to("cpu")
    assert len(banks[0]) == 0
    assert np.array_equal(scene.segment(["sky", "grass"]).labels, before)
