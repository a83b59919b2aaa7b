from __future__ import annotations

import json
import logging

import pytest
from torch import nn

from ovseg.config import get_default_cfg, load_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.data.benchmarks import BENCHMARKS
from ovseg.data.catalog import register_builtin
from ovseg.evaluation.evaluate import evaluate
from ovseg.evaluation.protocol import check_protocol, report_protocol
from ovseg.weights import catalogue
from tests.helpers import ROOT

CONFIGS = sorted((ROOT / "configs" / "eval").glob("*.yaml"))
# Row: dataset, classes, background rule, ignore value.
ROWS = {
    "A-150": ("ade20k_sem_seg_val", "none", 255),
    "A-847": ("ade20k_full_sem_seg_val", "none", 65535),
    "PC-59": ("pascal_context_59_sem_seg_val", "none", 255),
    "PC-459": ("pascal_context_459_sem_seg_val", "none", 65535),
    "PAS-20": ("pascalvoc20_sem_seg_val", "none", 255),
    "PAS-21": ("pascalvoc21_sem_seg_val", "class", 255),
    "PC-60": ("pascal_context_60_sem_seg_val", "class", 255),
    "COCO-Stuff": ("coco_2017_val_stuff_all_sem_seg", "none", 255),
    "COCO-Object": ("coco_object_81_sem_seg_val", "class", 255),
    "Cityscapes": ("cityscapes_fine_sem_seg_val", "none", 255),
    "LoveDA": ("loveda_sem_seg_val", "class", 255),
    "Vaihingen": ("vaihingen_sem_seg_val", "none", 255),
}
# Ensemble weight and mIoU of the two released models (arXiv 2210.04150, tables 1 and A.3).
PUBLISHED = {
    "swinB": {
        "A-847": (0.7, 9.0),
        "PC-459": (0.6, 12.4),
        "A-150": (0.7, 29.6),
        "PC-59": (0.6, 55.7),
        "PAS-20": (0.6, 94.5),
    },
    "R101c": {
        "A-847": (0.7, 7.1),
        "PC-459": (0.6, 11.0),
        "A-150": (0.7, 24.8),
        "PC-59": (0.6, 53.3),
        "PAS-20": (0.6, 92.6),
    },
}
SIDES = {"swinB": (640, 2560, 0.4), "R101c": (512, 2048, 0.5)}


@pytest.fixture
def registered(tmp_path):
    before, metadata = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    register_builtin(tmp_path)
    yield
    for catalog, old in ((DatasetCatalog, before), (MetadataCatalog, metadata)):
        catalog.data.clear()
        catalog.data.update(old)


def test_every_published_row_has_a_config_and_every_validation_set_one_of_the_swin_model():
    rows = {}
    for path in CONFIGS:
        cfg = load_cfg(path)
        model = path.stem.split("_")[1]
        assert rows.setdefault((model, cfg.TEST.PROTOCOL.ROW), path) == path
    assert {row for model, row in rows if model == "swinB"} == set(ROWS)
    assert {row for model, row in rows if model == "R101c"} == set(PUBLISHED["R101c"])
    shown = {ROWS[row][0] for _, row in rows}
    published = [f for f in BENCHMARKS if f.classes != "tinyscapes"]
    assert shown == {f.name for f in published if "val" in f.name.split("_")}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_says_all_that_its_row_depends_on(path, registered):
    cfg = load_cfg(f"eval/{path.stem}")
    model, row = path.stem.split("_")[1], cfg.TEST.PROTOCOL.ROW
    dataset, background, ignore = ROWS[row]
    protocol, clip = cfg.TEST.PROTOCOL, cfg.MODEL.CLIP_ADAPTER
    assert (dataset,) == cfg.DATASETS.TEST
    assert (background, ignore) == (protocol.BACKGROUND, protocol.IGNORE_VALUE)
    check_protocol(cfg, dataset)
    sides = (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST, clip.MASK_THR)
    assert sides == SIDES[model]
    assert (clip.TEXT_TEMPLATES, clip.SYNONYMS, clip.CLIP_ENSEMBLE) == ("vild", "list", True)
    assert clip.MASK_PROMPT_FWD and not cfg.TEST.AUG.ENABLED and not cfg.TEST.SLIDING_WINDOW
    assert not cfg.TEST.DENSE_CRF and cfg.SOLVER.TEST_IMS_PER_BATCH == 1
    weight, reported = PUBLISHED[model].get(row, (0.7, None))
    assert (weight, reported) == (clip.CLIP_ENSEMBLE_WEIGHT, protocol.REPORTED)
    assert ("" if reported is None else "ovseg") == protocol.CONVENTION
    # What it is says the file itself, not only the one it is based on.
    text = path.read_text()
    for key in ("MIN_SIZE_TEST", "MAX_SIZE_TEST", "TEXT_TEMPLATES", "SYNONYMS", "BACKGROUND"):
        assert f"  {key}: " in text
    for key in ("IGNORE_VALUE", "CLIP_ENSEMBLE_WEIGHT", "MASK_THR", "ROW"):
        assert f"  {key}: " in text


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_header_names_paper_score_and_a_command_with_released_weights(path):
    cfg = load_cfg(path)
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = " ".join(line.lstrip("# ") for line in header)
    reported = cfg.TEST.PROTOCOL.REPORTED
    assert "CVPR 2023, arXiv 2210.04150" in text
    wanted = "none published" if reported is None else f"mIoU {reported} (ovseg convention)"
    assert f"Expected: {wanted}" in text
    assert f"--config-file configs/eval/{path.name}" in text and "--eval-only" in text
    filenames = {entry.filename for entry in catalogue.entries().values()}
    assert any(f"MODEL.WEIGHTS {name}" in text for name in filenames if name.startswith("ovseg_"))


def test_the_configs_and_the_leaderboard_report_the_same():
    entries = json.loads((ROOT / "docs" / "results" / "reported_ovseg.json").read_text())["rows"]
    names = {"swinB": "OVSeg, Swin-B + ViT-L/14", "R101c": "OVSeg, R-101c + ViT-B/16"}
    for path in CONFIGS:
        cfg = load_cfg(path)
        reported = cfg.TEST.PROTOCOL.REPORTED
        listed = {
            entry["scores"]["ovseg"]["value"]
            for entry in entries
            if entry["method"] == names[path.stem.split("_")[1]]
            and entry["dataset"] == cfg.DATASETS.TEST[0]
            and entry["setting"] == "MaskFormer trained on COCO-Stuff-171"
        }
        assert listed == (set() if reported is None else {reported}), path.name


def with_protocol(**values):
    cfg = get_default_cfg()
    cfg.TEST.PROTOCOL.merge_from_list([word for pair in values.items() for word in pair])
    return cfg


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"IGNORE_VALUE": 65535}, "IGNORE_VALUE 65535, got 255"),
        ({"BACKGROUND": "none"}, "BACKGROUND 'none', got 'class'"),
        ({"BACKGROUND": "no"}, r"expected one of \('none', 'class'\)"),
        ({"CONVENTION": "mmseg"}, r"expected one of \('ovseg', 'detectron2'\)"),
    ],
)
def test_a_row_is_not_evaluated_on_a_data_set_of_another_protocol(registered, values, message):
    with pytest.raises(ValueError, match=message):
        check_protocol(with_protocol(**values), "pascalvoc21_sem_seg_val")
    check_protocol(get_default_cfg(), "pascalvoc21_sem_seg_val")
    fitting = with_protocol(BACKGROUND="class", IGNORE_VALUE=255, CONVENTION="ovseg")
    check_protocol(fitting, "pascalvoc21_sem_seg_val")


def test_evaluate_refuses_before_it_runs_anything(registered, tmp_path):
    cfg = load_cfg("eval/ovseg_swinB_ade20k_847", ["OUTPUT_DIR", str(tmp_path)]).clone()
    cfg.defrost()
    cfg.DATASETS.TEST = ("ade20k_sem_seg_val",)
    with pytest.raises(ValueError, match=r"the protocol of A-847 with IGNORE_VALUE 65535, got 255"):
        evaluate(cfg, nn.Identity())


def test_the_measured_score_is_that_of_the_reported_convention(caplog):
    scores = {"mIoU": 12.5, "mIoU-gt": 16.25}
    caplog.set_level(logging.INFO, logger="ovseg")
    reported = {"ROW": "PC-459", "REPORTED": 15.7}
    line = report_protocol(with_protocol(CONVENTION="detectron2", **reported), scores)
    assert line == "PC-459: mIoU 16.25 measured, 15.7 reported (convention detectron2)"
    assert line in caplog.text
    line = report_protocol(with_protocol(CONVENTION="ovseg", **reported), scores)
    assert line is not None and "12.50 measured" in line
    assert report_protocol(get_default_cfg(), scores) is None
    assert report_protocol(with_protocol(CONVENTION="ovseg", **reported), {}) is None
