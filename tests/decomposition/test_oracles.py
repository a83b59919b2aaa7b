from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ovseg.decomposition.oracles import find_overlap, merge_labels
from ovseg.modeling import MaskEncoding, MaskPrediction

IGNORED = 255
LABELS = np.array([[4, 4, 1, 1], [4, 4, 7, IGNORED]])


def prediction(masks, output_size=(2, 4), classes=9):
    masks = torch.tensor(masks, dtype=torch.float32)
    scores = torch.zeros(len(masks), classes)
    valid = torch.ones(len(masks), dtype=torch.bool)
    return MaskPrediction(masks, scores, scores, None, valid, output_size)


PROPOSALS = prediction(
    [
        [[1, 1, 0, 0], [1, 1, 0, 0]],  # class 4 exactly
        [[0, 0, 0.6, 0.6], [0, 0, 0.6, 0]],  # class 1 and class 7
        [[0, 0, 0, 0], [0, 0, 0, 1]],  # an ignored pixel
        [[0, 0.5, 0.5, 0], [0, 0, 0.3, 0]],  # as much of 4 as of 1; 0.3 is below the threshold
        [[0.3, 0.3, 0.3, 0.3], [0.3, 0.3, 0.3, 0.3]],  # empty
    ]
)


def test_overlaps_leave_ignored_pixels_out():
    overlap = find_overlap(PROPOSALS, LABELS, IGNORED)

    assert overlap.classes.tolist() == [1, 4, 7]
    assert overlap.intersections.tolist() == [[0, 2, 0, 1, 0], [4, 0, 0, 1, 0], [0, 1, 0, 0, 0]]
    expected = [[0, 2 / 3, 0, 1 / 3, 0], [1, 0, 0, 1 / 5, 0], [0, 1 / 3, 0, 0, 0]]
    torch.testing.assert_close(overlap.ious, torch.tensor(expected))


def test_the_majority_names_a_proposal_and_nothing_names_one_without_a_labelled_pixel():
    named = find_overlap(PROPOSALS, LABELS, IGNORED).majority()

    assert named.nonzero().tolist() == [[0, 1], [0, 3], [1, 0]]  # of equals the lower class


def test_a_proposal_that_is_the_best_of_two_classes_goes_to_the_one_it_fits_better():
    named = find_overlap(PROPOSALS, LABELS, IGNORED).best()

    assert named.nonzero().tolist() == [[0, 1], [1, 0]]  # class 7 goes without


def test_a_class_that_no_proposal_meets_gets_none():
    only_first = replace(PROPOSALS, masks=PROPOSALS.masks[:1])

    assert find_overlap(only_first, LABELS, IGNORED).best().nonzero().tolist() == [[1, 0]]


def test_labels_are_resized_to_the_masks_and_a_class_lost_thereby_has_no_overlap():
    labels = LABELS.repeat(4, 0).repeat(4, 1)
    labels[0, 0] = 3

    overlap = find_overlap(PROPOSALS, labels, IGNORED)

    assert overlap.classes.tolist() == [1, 3, 4, 7]
    assert not overlap.regions[1].any() and not overlap.ious[1].any()
    assert overlap.ious[2, 0] == 1


@pytest.mark.parametrize("size", [(2, 4), (7, 9)])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("quality", [None, torch.tensor([0.2, 0.9, 0.4, 0.8, 0.1])])
def test_merging_few_classes_gives_what_merging_all_of_them_gives(size, binary, quality):
    chosen = replace(PROPOSALS, output_size=size, binary=binary)
    encoding = MaskEncoding(PROPOSALS.masks, torch.zeros(5, 1), (2, 4), (2, 4), size)
    encoding.quality = quality
    overlap = find_overlap(chosen, LABELS, IGNORED)
    for named in (overlap.majority(), overlap.best()):
        scores = torch.zeros(5, 9)
        for place, proposal in named.nonzero().tolist():
            scores[proposal, overlap.classes[place]] = 1.0

        merged = merge_labels(chosen, encoding, named, overlap.classes)

        scores = scores if quality is None else scores * quality[:, None]
        np.testing.assert_array_equal(merged, replace(chosen, class_scores=scores).labels())
        assert merged[0, 0] == 4 and merged[-1, -1] in (0, 1)  # 0 where no mask reaches
