from __future__ import annotations

import gc
import weakref
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from ovseg.modeling import DensePrediction, MaskPrediction
from ovseg.modeling import prediction as prediction_module
from ovseg.modeling.mosaic import BLANK, Mosaic

K = 5


def scores_of(window, *, size=None) -> Tensor:
    """Scores (K, h, w) that differ from tile to tile."""
    rows, columns = window
    generator = torch.Generator().manual_seed(rows.start * 1000 + columns.start)
    size = size or (rows.stop - rows.start, columns.stop - columns.start)
    return torch.rand(K, *size, generator=generator)


def side(part: slice) -> int:
    return part.stop - part.start


def assembled(mosaic: Mosaic, size, encode, decode) -> Tensor:
    labels = torch.full(size, -7)
    for cell in mosaic.cells(encode, decode):
        assert (labels[cell.window] == -7).all(), "cells part the picture"
        labels[cell.window] = cell.labels
    return labels


def reference(mosaic: Mosaic, size, decode) -> Tensor:
    """The blended scores (K, H, W), all at once."""
    total, weights = torch.zeros(K, *size), torch.zeros(size)
    for rows, columns in product(mosaic.rows, mosaic.columns):
        weight = torch.zeros(side(rows), side(columns))
        for y, x in product(range(side(rows)), range(side(columns))):
            weight[y, x] = min(y + 0.5, side(rows) - y - 0.5) * min(
                x + 0.5, side(columns) - x - 0.5
            )
        total[:, rows, columns] += weight * decode((rows, columns)).sem_seg()
        weights[rows, columns] += weight
    return total / weights


def dense(window) -> DensePrediction:
    return DensePrediction(scores_of(window), (side(window[0]), side(window[1])))


def masks(window) -> MaskPrediction:
    """At another resolution than the tile's."""
    class_scores = scores_of(window, size=(6, 1))[..., 0].T.contiguous()
    class_scores[:, 2] *= 0.01  # it cannot win, and is left out of the merge
    values = torch.stack([scores_of(window, size=(7, 9))[0].roll(q, 1) for q in range(6)])
    return MaskPrediction(
        masks=values,
        class_scores=class_scores,
        proposal_scores=class_scores,
        clip_scores=None,
        valid=torch.ones(6, dtype=torch.bool),
        output_size=(side(window[0]), side(window[1])),
    )


@pytest.mark.parametrize("decode", [dense, masks])
@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [
        ((30, 45), 16, 0.25),
        ((30, 45), 16, 0.5),
        ((33, 17), 16, 0.5),  # the last tiles overlap three deep
        ((20, 61), 20, 0.3),
        ((9, 40), 16, 0.0),
    ],
)
def test_labels_are_those_of_the_blended_scores(monkeypatch, size, tile, overlap, decode):
    monkeypatch.setattr(prediction_module, "BAND_BYTES", 4 * (K + 6) * 16 * 3)  # some rows
    mosaic = Mosaic(size, tile=tile, overlap=overlap)
    labels = assembled(mosaic, size, lambda window: window, decode)
    expected = reference(mosaic, size, decode)
    first, second = expected.topk(2, dim=0).values
    clear = first - second > 1e-5
    assert clear.float().mean() > 0.99
    assert torch.equal(labels[clear], expected.argmax(0)[clear])
    assert len(labels.unique()) > 2 and len(mosaic) == len(mosaic.rows) * len(mosaic.columns)


def test_one_tile_fades_into_the_next_linearly():
    mosaic = Mosaic((4, 14), tile=8, overlap=0.25)  # columns 6 and 7 are in both tiles
    # The first tile says class 0 with score 1, the other class 1 with a score that rises.
    found = []
    for score in (0.2, 0.5, 2.0, 5.0):

        def decode(window, score=score):
            scores = torch.zeros(2, 4, 8)
            scores[0 if window[1].start == 0 else 1] = 1.0 if window[1].start == 0 else score
            return DensePrediction(scores, (4, 8))

        found.append(assembled(mosaic, (4, 14), lambda window: window, decode)[0, 5:9].tolist())
    # Shares of the first tile there: 1, 3/4, 1/4, 0.
    assert found == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]


def test_one_tile_is_the_plain_prediction_bit_for_bit():
    plain = masks((slice(0, 90), slice(0, 70)))
    mosaic = Mosaic((90, 70), tile=128, overlap=0.25)
    [cell] = mosaic.cells(lambda window: window, masks)
    labels = plain.labels(blank=BLANK)
    assert torch.equal(cell.labels, labels) and len(labels.unique()) > 1
    expected = plain.region_scores(labels.numpy())
    np.testing.assert_array_equal(cell.region_scores(cell.labels.numpy()), expected)


def test_pixels_are_blank_where_tiles_of_more_than_half_of_the_weight_abstain():
    mosaic = Mosaic((2, 28), tile=16, overlap=0.25)  # columns 12 to 15 are in both tiles

    def decode(window):
        blank = torch.full((2, 16), window[1].start > 0)
        return DensePrediction(torch.ones(2, 2, 16), (2, 16), blank)

    labels = assembled(mosaic, (2, 28), lambda window: window, decode)
    # The second tile's shares there: 1/8, 3/8, 5/8, 7/8.
    assert labels[0].tolist() == [0] * 14 + [BLANK] * 14


def test_tiles_that_are_left_out_leave_blanks_and_no_share():
    mosaic = Mosaic((4, 14), tile=8, overlap=0.25)
    labels = assembled(
        mosaic, (4, 14), lambda window: window if window[1].start == 0 else None, dense
    )
    assert torch.equal(labels[:, :8], dense((slice(0, 4), slice(0, 8))).labels())
    assert (labels[:, 8:] == BLANK).all()
    last = list(mosaic.cells(lambda _: None, dense))[-1]
    assert (last.labels == BLANK).all()
    with pytest.raises(ValueError, match="left out"):
        last.region_scores(last.labels.numpy())


class Counted:
    """Counts how many of its kind there are at a time, and how often they are made."""

    def __init__(self) -> None:
        self.alive = self.most = self.made = 0

    def watch(self, thing):
        self.made += 1
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(thing, self.drop)
        return thing

    def drop(self) -> None:
        self.alive -= 1


class Encoded:
    def __init__(self, window) -> None:
        self.window = window


def counts(size) -> tuple[Counted, Counted, int]:
    encodings, predictions = Counted(), Counted()
    mosaic = Mosaic(size, tile=8, overlap=0.25)
    for cell in mosaic.cells(
        lambda window: encodings.watch(Encoded(window)),
        lambda encoded: predictions.watch(dense(encoded.window)),
    ):
        del cell
    gc.collect()
    assert encodings.alive == predictions.alive == 0
    return encodings, predictions, len(mosaic)


def test_what_is_alive_does_not_grow_with_the_height():
    low_encodings, low_predictions, _ = counts((20, 44))
    encodings, predictions, tiles = counts((200, 44))
    assert tiles == 33 * 7 and encodings.made == tiles
    assert encodings.most == low_encodings.most == 7 + 2  # a row of tiles, and those that follow
    assert predictions.most == low_predictions.most == 4
    assert predictions.made == 7 * (2 * 33 - 1)  # for two rows of cells each, the first for one


def test_wrong_tiles_are_refused():
    with pytest.raises(ValueError, match="tile: expected at least 1 pixel, got 0"):
        Mosaic((4, 4), tile=0, overlap=0.25)
    for overlap in (-0.1, 0.6, float("nan")):
        with pytest.raises(ValueError, match=r"share of the tile in \[0, 0.5\]"):
            Mosaic((4, 4), tile=2, overlap=overlap)
