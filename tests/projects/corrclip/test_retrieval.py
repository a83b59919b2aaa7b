from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ovseg.projects.corrclip.model import Decision, Support
from ovseg.projects.corrclip.pooling import region_means
from ovseg.projects.corrclip.retrieval import retrieve, support_scores
from ovseg.vocab import Vocabulary
from tests.projects.corrclip.tiny import picture, tiny_clip, tiny_model


class ArrayBank:
    """A memory bank of two arrays."""

    name = "arrays"

    def __init__(self, keys: torch.Tensor, **values: torch.Tensor) -> None:
        self.keys, self._values = F.normalize(keys, dim=1).numpy(), values

    def search(self, queries: np.ndarray, k: int) -> np.ndarray:
        found = np.argsort(-queries @ self.keys.T, axis=1, kind="stable")[:, :k]
        return np.pad(found, ((0, 0), (0, k - found.shape[1])), constant_values=-1)

    def values(self, encoder: str) -> np.ndarray:
        return self._values[encoder].half().numpy()


def rows(number: int, channels: int, seed: int) -> torch.Tensor:
    return torch.randn(number, channels, generator=torch.Generator().manual_seed(seed))


def test_support_is_the_mean_of_what_is_found_and_nothing_found_is_zero():
    keys, values = rows(4, 6, 0), rows(4, 5, 1)
    bank = ArrayBank(keys, b=values)
    [own] = retrieve(bank, 3 * keys, ["b"], k=1)
    torch.testing.assert_close(own, F.normalize(values, dim=1), rtol=1e-2, atol=1e-3)
    [all_of_them] = retrieve(bank, keys[:1], ["b"], k=9)  # five of nine are -1
    wanted = F.normalize(values.mean(0, keepdim=True), dim=1)
    torch.testing.assert_close(all_of_them, wanted, rtol=1e-2, atol=1e-3)
    empty = ArrayBank(keys, b=values)
    empty.search = lambda queries, k: np.full((len(queries), k), -1)
    assert retrieve(empty, keys, ["b"], k=3)[0].eq(0).all()


def test_scores_of_several_clips_are_averaged_each_with_its_own_texts():
    supports = [F.normalize(rows(3, 5, 2), dim=1), F.normalize(rows(3, 7, 3), dim=1)]
    texts = [F.normalize(rows(4, 5, 4), dim=1), F.normalize(rows(4, 7, 5), dim=1)]
    where = torch.tensor([[0, 2], [1, 1]])
    scores = support_scores(supports, texts, where)
    wanted = (texts[0] @ supports[0].T + texts[1] @ supports[1].T) / 2
    torch.testing.assert_close(scores, wanted[:, where])


@pytest.mark.parametrize("unit", [False, True])
def test_means_of_regions_are_those_of_resized_features(unit):
    features = torch.randn(5, 7, 9, generator=torch.Generator().manual_seed(6))
    ids = torch.zeros(30, 41, dtype=torch.int32)
    ids[4:20, 5:33], ids[20:] = 8, 3
    resized = F.interpolate(features[None], size=(30, 41), mode="bilinear")[0]
    resized = F.normalize(resized, dim=0) if unit else resized
    found, means = region_means(features, ids, unit=unit)
    assert found.tolist() == [0, 3, 8]
    for region, mean in zip(found, means, strict=True):
        torch.testing.assert_close(mean, resized[:, ids == region].mean(1), rtol=1e-4, atol=1e-5)


def inputs() -> dict[str, object]:
    return {"image": picture(), "height": 40, "width": 56}


@torch.no_grad()
def test_a_picture_finds_its_own_regions_in_a_bank_made_of_it():
    plain = tiny_model(whole_image=True)
    pixels = inputs()["image"].round().byte().permute(1, 2, 0).numpy()
    ids = torch.from_numpy(plain.regions(pixels, ""))
    _, keys = region_means(plain.vision_features(pixels), ids, unit=True)
    _, values = region_means(plain.clip_features(inputs()["image"], ids), ids)
    texts = rows(2, 24, 7)
    bank = ArrayBank(torch.cat([rows(5, 12, 8), keys]), own=torch.cat([rows(5, 24, 9), values]))
    support = Support(bank, ["own"], k=1, weight=1.0)
    model = tiny_model(whole_image=True, support=support, decision=Decision(correct=False))
    [encoding] = model.encode([inputs()])
    torch.testing.assert_close(
        encoding.supports[0], F.normalize(values, dim=1), rtol=1e-2, atol=2e-3
    )
    vocabulary = Vocabulary.make(["a", "b"], templates="predefined")
    model.texts.remember(vocabulary, F.normalize(texts, dim=1))
    scores = model.decode(encoding, vocabulary).scores
    wanted = F.normalize(texts, dim=1) @ encoding.supports[0].T
    torch.testing.assert_close(scores, wanted[:, ids.unique(return_inverse=True)[1]])
    assert "arrays: own" in model.protocol()["memory_bank"]


@torch.no_grad()
def test_own_and_found_scores_are_mixed_and_further_clips_bring_their_texts():
    bank = ArrayBank(rows(6, 12, 1), own=rows(6, 24, 2), other=rows(6, 24, 3))
    other = tiny_clip(layers=5)
    vocabulary = Vocabulary.make(["sky", "a tree"], templates="predefined")
    of = {}
    for weight in (0.0, 0.5, 1.0):
        support = Support(bank, ["own", "other"], [other], k=2, weight=weight)
        model = tiny_model(support=support)
        [encoding] = model.encode([inputs()])
        of[weight] = model.decode(encoding, vocabulary).scores
    torch.testing.assert_close(of[0.5], (of[0.0] + of[1.0]) / 2)
    [without] = tiny_model().predict([inputs()], vocabulary)
    torch.testing.assert_close(of[0.0], without.scores)
    assert len(encoding.supports) == 2
    stored = type(encoding).from_tensors(encoding.tensors())
    torch.testing.assert_close(model.decode(stored, vocabulary).scores, of[1.0])


def test_a_further_encoder_without_its_clip_is_refused():
    with pytest.raises(ValueError, match=r"AUX: expected a CLIP .* for each of \['other'\], got 0"):
        Support(ArrayBank(rows(1, 2, 0)), ["own", "other"])
    with pytest.raises(ValueError, match=r"ALPHA in \[0, 1\] and K of at least 1, got 2"):
        Support(ArrayBank(rows(1, 2, 0)), ["own"], weight=2)
