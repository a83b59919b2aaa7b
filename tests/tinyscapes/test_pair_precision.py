from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest

from ovseg.tinyscapes import CLASSES, render_scene
from ovseg.tinyscapes.pair_precision import judge_pairs, precision_curve, precision_table
from ovseg.utils.masks import encode_rle


def record(labels, mask, noun, margin):
    return {
        "image_id": "000000000003",
        "height": labels.shape[0],
        "width": labels.shape[1],
        "rle_counts": encode_rle(mask)["counts"],
        "noun": noun,
        "lemma": noun,
        "margin": margin,
    }


@pytest.fixture
def judged():
    labels = render_scene("train", 3).labels
    ids, counts = np.unique(labels[labels < len(CLASSES)], return_counts=True)
    largest, other = ids[counts.argsort()[::-1]][:2]
    whole, rest = labels == largest, labels == other
    synonym = CLASSES[largest].nouns[-1]
    table = pa.Table.from_pylist(
        [
            record(labels, whole, CLASSES[largest].name, 0.4),
            record(labels, whole, synonym, 0.3),
            record(labels, rest, CLASSES[largest].name, 0.1),
            record(labels, whole, "happiness", None),
        ]
    )
    return CLASSES[largest], judge_pairs(table)


def test_a_pair_is_right_if_its_class_has_most_pixels_of_the_region(judged):
    kind, (exact, synonym, wrong, nameless) = judged
    assert exact.right and exact.iou == 1.0 and exact.visible
    assert synonym.right and synonym.class_id == exact.class_id == CLASSES.index(kind)
    assert not wrong.right and wrong.iou == 0.0 and wrong.visible
    assert nameless.class_id == -1 and not nameless.right and math.isnan(nameless.margin)


def test_precision_is_told_by_kind_and_rises_along_the_curve_where_margins_tell(judged):
    kind, pairs = judged
    rows = {name: (count, precision) for name, count, precision, _ in precision_table(pairs)}
    group = f"{'seen' if kind.seen else 'unseen'} {'stuff' if kind.kind == 'stuff' else 'things'}"
    assert rows["all"] == (4, 50.0) and rows["of no class"] == (1, 0.0)
    assert rows["of a class"] == rows[group] == (3, pytest.approx(200 / 3))
    curve = precision_curve(pairs)
    assert curve[0][0] == 1.0 and curve[0][1] == pytest.approx(0.1)
    assert curve[-1][2][group] == 100.0 and curve[-1][0] < 1
