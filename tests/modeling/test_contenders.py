from __future__ import annotations

import pytest
import torch

from ovseg.modeling.contenders import contenders
from ovseg.modeling.prediction import MaskPrediction, Prediction


def make_prediction(scores: torch.Tensor, **options) -> MaskPrediction:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(len(scores), 6, 8, generator=generator)
    return MaskPrediction(
        masks=(4 * logits - 4).sigmoid(),
        class_scores=scores,
        proposal_scores=scores,
        clip_scores=None,
        valid=torch.ones(len(scores), dtype=torch.bool),
        output_size=(50, 70),
        **options,
    )


def test_a_class_below_the_mean_of_the_leaders_in_every_mask_cannot_win():
    scores = torch.tensor(
        [
            # leaders in the columns 1 and 4; means 0.5, 0.4
            [0.1, 0.9, 0.49, 0.51, 0.1, 0.5],
            [0.1, 0.1, 0.39, 0.30, 0.7, 0.4],
        ]
    )
    assert contenders(scores).tolist() == [0, 1, 3, 4, 5]  # 5 has the means themselves
    # Column 2 could not win either way: no weights of the two masks make it the best.
    for share in torch.linspace(0, 1, 101):
        mixed = share * scores[0] + (1 - share) * scores[1]
        assert int(mixed.argmax()) in (1, 4)


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("hidden", [False, True])
def test_labels_are_those_of_all_classes(binary, hidden):
    generator = torch.Generator().manual_seed(2)
    scores = torch.randn(9, 3000, generator=generator).mul(3).softmax(-1)
    scores[4] = 0.0
    options = {"binary": binary, "hidden_scores": 0.9 * scores.amax(1) if hidden else None}
    prediction = make_prediction(scores, **options)
    assert 2 < len(contenders(scores)) < 300
    assert torch.equal(prediction.labels(), Prediction.labels(prediction))
    assert torch.equal(prediction.labels(blank=-1), Prediction.labels(prediction, blank=-1))
    assert len(prediction.labels().unique()) > 3
    assert bool((prediction.labels(blank=-7) == -7).any()) == (binary or hidden)


def test_without_any_score_the_first_class_has_all_pixels():
    prediction = make_prediction(torch.zeros(2, 5))
    assert contenders(prediction.class_scores).tolist() == [0]
    assert prediction.labels().unique().tolist() == [0]
