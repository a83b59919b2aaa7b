from __future__ import annotations

import math

import pytest
import torch

from ovseg.benchmark.growth import (
    fit_exponent,
    made_up_names,
    measure_growth,
    parse_growth,
    repeat_masks,
)
from ovseg.vocab import Vocabulary
from tests.benchmark.ready import ready_ways, subject


def test_the_exponent_of_a_quadratic_is_two_and_noise_is_evened_out():
    sizes = [10, 30, 100, 300]
    assert fit_exponent(sizes, [7 * size**2 for size in sizes]) == pytest.approx(2)
    # A least-squares slope, computed by hand: points (0, 0), (1, 1), (2, 0) in decades.
    assert fit_exponent([1, 10, 100], [1, 10, 1]) == pytest.approx(0, abs=1e-12)
    assert math.isnan(fit_exponent([5], [1])) and math.isnan(fit_exponent([1, 2], [0, 1]))


def test_sizes_are_usual_or_given_and_anything_else_is_told():
    assert parse_growth(["names=200,20", "pixels=0.5"]) == {"names": (20, 200), "pixels": (0.5,)}
    assert parse_growth(["proposals"]) == {"proposals": (10, 30, 100, 300)}
    for wrong in ("shapes", "shapes=1", "names=0", "names=1.5", "names=", "pixels=nan", "batch=x"):
        with pytest.raises(ValueError, match="--grow: expected names, pixels"):
            parse_growth([wrong])


def test_twenty_thousand_names_differ_and_the_first_stay_the_same():
    names = made_up_names(20_000)
    assert len({*names}) == 20_000 and made_up_names(50) == names[:50]
    assert len(Vocabulary.make(names[-100:])) == 100


@torch.no_grad()
def test_repeated_masks_differ_are_as_many_as_asked_and_have_no_features():
    model = ready_ways()[0].model
    [encoding] = model.encode([{"image": torch.rand(3, 64, 64) * 255}])
    valid = model.region_features(encoding).valid
    more = repeat_masks(encoding, 20, valid)
    assert len(more.mask_logits) == len(more.class_embeddings) == 20 and not more.regions
    assert len({tuple(mask.flatten().tolist()) for mask in more.mask_logits}) == 20
    fewer = repeat_masks(encoding, 2, valid)
    torch.testing.assert_close(fewer.mask_logits, encoding.mask_logits[valid][:2])
    with pytest.raises(ValueError, match="a mask to repeat"):
        repeat_masks(encoding, 2, valid & False)


@pytest.mark.parametrize(
    ("kind", "sizes", "parts"),
    [
        ("names", (3, 30), ["texts", "answer"]),
        ("pixels", (0.01, 0.02), ["resizing", "answer"]),
        ("proposals", (2, 9), ["CLIP", "answer"]),
        ("batch", (1, 3), ["batch"]),
    ],
)
def test_what_grows_is_what_was_asked_for(kind, sizes, parts):
    ways = ready_ways()
    seen = watch(ways[1].model)
    found = measure_growth(ways[1:], kind, sizes, subject(), repeats=2)
    assert found["sizes"] == list(sizes) and list(found["ways"]) == ["exact"]
    assert list(found["ways"]["exact"]["seconds"]) == parts
    for part in parts:
        pairs = found["ways"]["exact"]["spread"][part]
        medians = found["ways"]["exact"]["seconds"][part]
        assert all(
            0 < low <= median <= high for median, (low, high) in zip(medians, pairs, strict=True)
        )
    # The first run of the first size does not count.
    runs = {
        "names": [3, 3, 3, 30, 30],
        "pixels": [(87, 115), (87, 115), (87, 115), (122, 163), (122, 163)],
        "proposals": [2, 2, 2, 9, 9],
        "batch": [1, 1, 1, 3, 3],
    }
    assert seen[kind][-len(runs[kind]) :] == runs[kind]


def watch(model) -> dict[str, list]:
    """What a model is asked for from now on."""
    seen: dict[str, list] = {"names": [], "pixels": [], "proposals": [], "batch": []}
    encode, decode = model.encode, model.decode

    def encoding(inputs):
        seen["batch"].append(len(inputs))
        return encode(inputs)

    def decoding(known, vocabulary):
        seen["names"].append(len(vocabulary))
        seen["pixels"].append(known.output_size)
        seen["proposals"].append(len(known.mask_logits))
        return decode(known, vocabulary)

    model.encode, model.decode = encoding, decoding
    return seen
