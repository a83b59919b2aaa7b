from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

import ovseg.commands.decompose as command
from ovseg.commands.flags.decompose import make_parser
from ovseg.config import load_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.modeling import build_model
from ovseg.data.catalog import register_sem_seg
from ovseg.decomposition.decompose import decompose
from ovseg.decomposition.report import text_table, write_decomposition
from ovseg.evaluation.evaluate import evaluate
from ovseg.modeling import MaskEncoding
from ovseg.readers.pictures import read_label
from ovseg.tinyscapes import write_split
from ovseg.training.weights import load_for_evaluation
from ovseg.utils.images import write_png
from ovseg.utils.resizing import resize

NAME = "decomposed_pictures"
A, B, C, NOWHERE, X = 0, 1, 2, 3, 255
COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]], np.uint8)
UNIT = 8  # pixels of a side of a field below, at the network's input size


@pytest.fixture(autouse=True)
def _own_catalogues():
    before, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    yield
    for catalogue, old in ((DatasetCatalog, before), (MetadataCatalog, metadata)):
        catalogue.data.clear()
        catalogue.data.update(old)


def write_dataset(root, fields, scale=1):
    """Label maps of square fields, and pictures in which each class has its colour."""
    for index, field in enumerate(fields):
        labels = np.array(field, np.uint8).repeat(UNIT * scale, 0).repeat(UNIT * scale, 1)
        write_png(root / "labels" / f"{index}.png", labels)
        write_png(root / "images" / f"{index}.png", COLOURS[np.where(labels == X, C, labels)])
    register_sem_seg(
        NAME,
        images=root / "images",
        labels=root / "labels",
        image_suffix="png",
        stuff_classes=["a", "b", "c", "nowhere"],
        class_groups={"seen": [A], "unseen": [B, C], "absent": [NOWHERE]},
    )


def config(*options):
    fixed = ("INPUT.MIN_SIZE_TEST", 2 * UNIT, "DATALOADER.NUM_WORKERS", 0)
    return load_cfg("ovseg_tiny", [*fixed, "DATASETS.TEST", (NAME,), *options])


def known_model(monkeypatch, proposals, clip_says=(A, B, C, NOWHERE)):
    """An OVSeg with given proposals.

    Args:
        proposals: of a label map's file and size: masks (Q, h, w) in [0, 1] and Q classes, the
            answers of the mask classifier.
        clip_says: CLIP's answer by the class whose colour most of a region has.
    """
    model = build_model(config()).eval()
    width = model.clip_adapter.clip_model.embed_dim
    rows = torch.eye(len(COLOURS) + 1, width)  # of the classes and "no object"

    def encode(batch):
        for x in batch:
            size = tuple(x["image"].shape[1:])
            masks, classes = proposals(x["sem_seg_file_name"], size)
            logits = torch.tensor(masks).float().logit().clamp(-60, 60)
            output_size = (x["height"], x["width"])
            yield MaskEncoding(logits, rows[classes], size, size, output_size, x["image"].float())

    def encode_crops(crops, **_):
        colours = torch.from_numpy(COLOURS).float().view(-1, 3, 1, 1)
        adapter = model.clip_adapter
        normalised = ((colours - adapter.pixel_mean) / adapter.pixel_std)[..., 0, 0]  # (4, 3)
        candidates = torch.cat((normalised, torch.zeros(1, 3)))  # what surrounds a region is 0
        features = []
        for regions, _prompts in crops:
            pixels = regions.flatten(2).transpose(1, 2)  # (N, S * S, 3)
            nearest = torch.cdist(pixels, candidates).argmin(2)
            for of_region in nearest:
                votes = of_region.bincount(minlength=5)[:4]
                features.append(rows[clip_says[int(votes.argmax())]])
        return torch.stack(features)

    monkeypatch.setattr(model, "encode", encode)
    monkeypatch.setattr(model.clip_adapter, "encode_crops", encode_crops)
    monkeypatch.setattr(model.clip_adapter, "text_features", lambda vocabulary: rows)
    return model


# Two rows of four fields: class 0 has four of them, class 1 two, class 2 one, one is ignored.
FIELDS = [[A, A, B, B], [A, A, C, X]]
MASKS = [
    [[1, 1, 0, 0], [1, 1, 0, 0]],  # exactly class 0
    [[0, 0, 0.6, 0.6], [0, 0, 0.6, 0]],  # two fields of class 1, one of class 2
    [[0, 0, 0, 0], [0, 0, 0, 1]],  # ignored
    [[0, 0.9, 0.9, 0], [0, 0.9, 0, 0]],  # two fields of class 0, one of class 1
    [[0, 0, 0, 0], [0, 0, 0.7, 0.7]],  # exactly class 2, and the ignored field
    [[0, 0, 0, 0], [0, 0, 0, 0]],
]
MASK_CLASSIFIER = [A, C, A, B, B, A]


def test_every_row_has_the_values_worked_out_by_hand(tmp_path, monkeypatch):
    write_dataset(tmp_path, [FIELDS])
    masks = np.array(MASKS).repeat(UNIT, 1).repeat(UNIT, 2)
    model = known_model(
        monkeypatch, lambda file, size: (masks, MASK_CLASSIFIER), clip_says=(A, B, B, NOWHERE)
    )

    found = decompose(config(), model, NAME)

    def row(a, b, c):
        shares = {"all": (a + b + c) / 3, "seen": a, "unseen": (b + c) / 2, "absent": math.nan}
        percent = {group: 100 * value for group, value in shares.items()}
        return pytest.approx(percent, nan_ok=True, abs=0.01)  # accuracies are rounded

    # Fields of the upper row from the left, then of the lower: A A B C, A A B.
    assert found["mIoU/mask_classifier"] == row(1, 1 / 3, 0)
    # A A A B, A A B: in doubt the ensemble goes with CLIP, whose weight is above a half.
    assert found["mIoU/clip"] == row(4 / 5, 1 / 3, 0)
    assert found["mIoU/system"] == row(4 / 5, 1 / 3, 0)
    # A A A B, A A C: the fourth proposal is mostly class 0 and outvotes the second.
    assert found["mIoU/majority"] == row(4 / 5, 1 / 2, 1)
    assert found["mIoU/best"] == row(1, 1, 1)
    assert found["mIoU/true_masks"] == row(1, 2 / 3, 0)
    assert found["best_iou"] == row(1, 2 / 3, 1)
    assert found["recall/0.5"] == row(1, 1, 1)
    assert found["recall/0.75"] == row(1, 0, 1)
    assert found["accuracy/true_masks"] == row(1, 1, 0)
    assert found["accuracy/proposals"] == row(1, 1, 0)
    assert (found.images, found.proposals) == (1, 5)


def test_perfect_proposals_and_a_perfect_clip_score_100_everywhere(tmp_path, monkeypatch):
    write_dataset(tmp_path, [FIELDS, [[B, B, B], [B, X, X]], [[C], [A]]], scale=2)

    def truth(file, size):
        labels = resize(read_label(file), size)
        classes = [k for k in (A, B, C) if (labels == k).any()]
        return np.stack([labels == k for k in classes]), classes

    found = decompose(config(), known_model(monkeypatch, truth), NAME)

    for row in found.rows:
        assert math.isnan(row.values["absent"]), row.name
        assert [row.values[group] for group in ("all", "seen", "unseen")] == [100.0] * 3, row.name
    assert found.rows[0].intervals["all"] == (100.0, 100.0)
    assert found.images == 3 and found.proposals == pytest.approx(2.0)


def test_pictures_that_cannot_be_used_are_named_and_take_no_part(tmp_path, monkeypatch):
    write_dataset(tmp_path, [FIELDS, FIELDS, [[X, X], [X, X]], FIELDS])
    (tmp_path / "images" / "1.png").write_bytes(b"no picture")
    (tmp_path / "labels" / "3.png").write_bytes(b"no label map")
    masks = np.array(MASKS).repeat(UNIT, 1).repeat(UNIT, 2)
    model = known_model(monkeypatch, lambda file, size: (masks, MASK_CLASSIFIER))

    found = decompose(config(), model, NAME)

    assert found.images == 1 and found.rows[0].intervals == {}
    reasons = {file.rsplit("/", 1)[1]: reason for file, reason in found.skipped.items()}
    assert set(reasons) == {"1.png", "2.png", "3.png"}
    assert reasons["2.png"].endswith("no pixel has a class")
    assert "1 images of decomposed_pictures, 3 left out; 5.0 proposals" in text_table(found)
    with pytest.raises(ValueError, match="none of 1 could be used"):
        (tmp_path / "images" / "0.png").write_bytes(b"no picture")
        decompose(config(), model, NAME, images=1)


def test_other_methods_and_views_are_refused(tmp_path):
    model = build_model(config())

    with pytest.raises(ValueError, match=r"TEST\.DENSE_CRF: expected False"):
        decompose(config("TEST.DENSE_CRF", True), model, NAME)
    with pytest.raises(ValueError, match="expected an OVSeg in semantic mode, got Linear"):
        decompose(config(), torch.nn.Linear(1, 1), NAME)


def test_the_tool_prints_and_writes_what_evaluation_finds_too(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_split(tmp_path, "val", 2, workers=0)
    options = ["DATALOADER.NUM_WORKERS", "0", "OUTPUT_DIR", str(tmp_path / "out")]

    # The tool would log to a stream that ends with this test.
    monkeypatch.setattr(command, "setup_logger", lambda **_: None)
    [found] = command.main(make_parser("decompose").parse_args(["--limit", "2", *options])).values()

    cfg = load_cfg("ovseg_tiny", options)
    model = build_model(cfg).eval()
    load_for_evaluation(model, cfg.MODEL.WEIGHTS)
    expected = evaluate(cfg, model)[found.dataset]["sem_seg"]
    for group, value in found["mIoU/system"].items():
        key = "mIoU" if group == "all" else f"mIoU-{group}"
        assert value == pytest.approx(expected[key], nan_ok=True, abs=0), group
    assert {"all", "seen", "unseen", "unseen_things"} <= set(found["best_iou"])
    printed = capsys.readouterr().out
    folder = tmp_path / "out" / "decomposition" / found.dataset
    page = (folder / "decomposition.md").read_text()
    for text in (printed, page):
        assert "2 images of tinyscapes_val_sem_seg; " in text and "unseen things" in text
        assert f"{found['mIoU/best']['all']:.1f}" in text
    record = json.loads((folder / "decomposition.json").read_text())
    assert len(record["rows"]) == len(found.rows) == 11
    assert record["rows"][0]["values"]["all"] == expected["mIoU"]
    assert record["manifest"]["weights"]["name"] == "ovseg_tiny" and record["split"] == "validation"


def test_a_value_that_is_undefined_is_a_dash_on_the_page_and_null_in_the_record(
    tmp_path, monkeypatch
):
    write_dataset(tmp_path, [[[A, A], [A, A]]])
    model = known_model(monkeypatch, lambda file, size: (np.ones((1, *size)), [A]))

    page = write_decomposition(tmp_path, decompose(config(), model, NAME), {})

    assert "| mIoU: CLIP alone | 100.0 | 100.0 | - | - |  |\n" in page.read_text()
    record = json.loads((tmp_path / "decomposition.json").read_text())
    values = {row["name"]: row["values"] for row in record["rows"]}
    assert values["accuracy/proposals"]["unseen"] is values["best_iou"]["absent"] is None
