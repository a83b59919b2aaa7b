"""What a user of Detectron2 writes: a config, a predictor, names out of the catalogues."""

from __future__ import annotations

from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ovseg
from ovseg.config import config_path, load_cfg
from ovseg.d2 import backend
from ovseg.d2.config import CfgNode, get_cfg
from ovseg.d2.data import DatasetCatalog, MetadataCatalog
from ovseg.d2.evaluation import inference_on_dataset
from ovseg.d2.modeling import build_backbone
from ovseg.data.catalog import register_builtin, register_sem_seg
from ovseg.evaluation.evaluator import SemSegEvaluator
from ovseg.tinyscapes import render_scene
from ovseg.vocab import class_list
from ovseg.weights.catalogue import resolve
from ovseg.weights.load import WeightsError
from tests.helpers import ROOT, run_python

SCENE = ROOT / "demo" / "samples" / "scene_0041.jpg"
NAMES = ["castle", "gravel", "house"]
REAL = [
    pytest.mark.real_d2,
    pytest.mark.skipif(backend() != "real", reason="this process runs on the subset"),
]


@pytest.fixture
def d2() -> ModuleType:
    """The module, and the catalogues as its import leaves them; afterwards as they were."""
    before = dict(DatasetCatalog.data), dict(MetadataCatalog.data)
    import ovseg.detectron2

    register_builtin()
    yield ovseg.detectron2
    for catalogue, data in zip((DatasetCatalog, MetadataCatalog), before, strict=True):
        catalogue.data.clear()
        catalogue.data.update(data)


@pytest.fixture
def cfg(d2: ModuleType) -> CfgNode:
    cfg = get_cfg()
    d2.add_ovseg_config(cfg)
    cfg.merge_from_file(str(config_path("ovseg_tiny")))
    return cfg


@pytest.fixture
def bgr() -> np.ndarray:
    return cv2.imread(str(SCENE))


@pytest.fixture
def pth(tmp_path) -> str:
    """A checkpoint as Detectron2 writes them."""
    torch.save({"model": load_file(resolve("ovseg_tiny"))}, tmp_path / "model_final.pth")
    return str(tmp_path / "model_final.pth")


# ---------------------------------------------------------------- config and names


def test_importing_the_module_registers_names_and_importing_the_package_none():
    run = run_python(
        "-c",
        "import ovseg.predictor, ovseg.data.catalog\n"
        "from ovseg.d2.data import DatasetCatalog as D, MetadataCatalog as M\n"
        "from ovseg.d2.modeling import META_ARCH_REGISTRY as R\n"
        "name = 'pascalvoc20_sem_seg_val'\n"
        "print(name in D.list(), 'OVSeg' in R)\n"
        "import ovseg.detectron2\n"
        "print(name in D.list(), len(M.get(name).stuff_classes), M.get(name).image_root)\n"
        "print([n in R for n in ('OVSeg', 'OVSegDEMO', 'MaskFormer')])",
        DETECTRON2_DATASETS="somewhere",
    )
    assert run.stdout.splitlines() == [
        "False False",
        "True 20 somewhere/VOCdevkit/VOC2012/JPEGImages",
        "[True, True, True]",
    ], run.stderr


@pytest.mark.parametrize(
    "name",
    ["ovseg_tiny", "ovseg_swinB_vitL_bs32_120k", "ovseg_swinB_vitL_demo.yaml", "ovseg_R101c"],
)
def test_merging_a_shipped_file_gives_what_the_tools_read(d2, name):
    cfg = get_cfg()
    d2.add_ovseg_config(cfg)
    cfg.merge_from_file(str(config_path(name)))
    assert cfg.TEST.OUTPUT == "sem_seg"
    cfg.TEST.OUTPUT = "labels"
    assert cfg.dump() == load_cfg(name).dump()


def test_adding_the_keys_leaves_a_chosen_device_alone(d2, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    devices = {}
    for device in ("cuda", "cuda:1", "cpu"):
        cfg = get_cfg()
        cfg.MODEL.DEVICE = device
        d2.add_ovseg_config(cfg)
        devices[device] = cfg.MODEL.DEVICE
    assert devices == {"cuda": "cpu", "cuda:1": "cuda:1", "cpu": "cpu"}


# ---------------------------------------------------------------- predictor


def test_it_answers_as_the_package_does_on_a_picture_of_opencv(d2, cfg, bgr):
    predictor = d2.OVSegPredictor(cfg)
    found = predictor(bgr, NAMES)
    assert list(found) == ["sem_seg"]
    assert found["sem_seg"].dtype == torch.float32
    expected = ovseg.load("ovseg_tiny").segment(SCENE, NAMES).labels
    assert found["sem_seg"].shape == (3, *expected.shape)
    np.testing.assert_array_equal(found["sem_seg"].argmax(0).numpy(), expected)


def test_without_names_the_classes_are_those_of_the_test_set(d2, cfg, bgr):
    predictor = d2.OVSegPredictor(cfg)
    assert predictor.metadata.stuff_classes == list(class_list("tinyscapes").names)
    found = predictor(bgr)["sem_seg"]
    assert torch.equal(found, predictor(bgr, "tinyscapes")["sem_seg"])
    cfg.TEST.OUTPUT = "labels"
    assert torch.equal(d2.OVSegPredictor(cfg)(bgr)["labels"], found.argmax(0))


def test_without_names_and_test_set_it_says_what_to_do(d2, cfg, bgr):
    cfg.DATASETS.TEST = ()
    predictor = d2.OVSegPredictor(cfg)
    assert predictor(bgr, NAMES)["sem_seg"].shape[0] == 3
    with pytest.raises(ValueError, match=r"class_names: expected names.*or set DATASETS\.TEST"):
        predictor(bgr)


def test_usual_slips_are_answered_with_what_to_do(d2, cfg):
    with pytest.raises(ValueError, match=r"add_ovseg_config\(cfg\) before files are merged"):
        d2.OVSegPredictor(get_cfg())
    predictor = d2.OVSegPredictor(cfg)
    with pytest.raises(ValueError, match=r"got a NoneType; cv2\.imread gives None"):
        predictor(cv2.imread("no/such/file.jpg"), NAMES)
    with pytest.raises(ValueError, match=r"write \['castle'\] for one class"):
        predictor(np.zeros((8, 8, 3), np.uint8), "castle")


def test_a_test_set_may_be_a_yaml_file(d2, cfg, bgr, tmp_path):
    path = tmp_path / "garden.yaml"
    path.write_text("name: d2_garden\nimages: i\nlabels: l\nclasses: [lawn, path]\n")
    cfg.DATASETS.TEST = (str(path),)
    predictor = d2.OVSegPredictor(cfg)
    assert predictor.metadata.stuff_classes == ["lawn", "path"]
    assert predictor(bgr)["sem_seg"].shape[0] == 2


def test_weights_that_are_set_win_over_the_trained_ones_of_the_file(d2, cfg, tmp_path, pth):
    torch.save({"model": {"nothing": torch.zeros(1)}}, tmp_path / "other.pth")
    cfg.MODEL.TRAINED_WEIGHTS = str(tmp_path / "other.pth")
    cfg.MODEL.WEIGHTS = pth
    d2.OVSegPredictor(cfg)
    cfg.MODEL.WEIGHTS, cfg.MODEL.TRAINED_WEIGHTS = cfg.MODEL.TRAINED_WEIGHTS, pth
    with pytest.raises(WeightsError, match="nothing"):
        d2.OVSegPredictor(cfg)


@pytest.mark.parametrize(
    "start", ["detectron2://DeepLab/R-103.pkl", "swin_base_patch4_window12_384_22k"]
)
def test_the_backbone_that_training_starts_from_is_no_model(d2, cfg, bgr, pth, start):
    cfg.MODEL.WEIGHTS, cfg.MODEL.TRAINED_WEIGHTS = start, pth
    assert d2.OVSegPredictor(cfg)(bgr, NAMES)["sem_seg"].shape[0] == 3


def test_the_front_door_takes_the_config_too_and_leaves_it_alone(d2, cfg, pth):
    cfg.MODEL.WEIGHTS, cfg.MODEL.TRAINED_WEIGHTS = pth, "ovseg_swinB"
    cfg.freeze()
    before = cfg.dump()
    predictor = ovseg.load(config=cfg, opts=["MODEL.CLIP_ADAPTER.MASK_THR", "0.3"])
    assert (predictor.provenance["weights"]["name"], predictor.provenance["device"]) == (pth, "cpu")
    assert predictor.model.ensemble.mask_threshold == 0.3
    assert cfg.dump() == before


# ---------------------------------------------------------------- Detectron2's own


class TestWithTheRealOne:
    pytestmark = REAL

    def test_the_keys_of_its_deeplab_project_may_be_added_before_or_after(self, d2, cfg):
        from detectron2.projects.deeplab import add_deeplab_config

        for order in ((add_deeplab_config, d2.add_ovseg_config), (d2.add_ovseg_config,)):
            both = get_cfg()
            for add in (*order, add_deeplab_config):
                add(both)
            both.merge_from_file(str(config_path("ovseg_tiny")))
            assert both.dump() == cfg.dump()

    def test_our_models_have_our_backbone_although_deeplab_registers_its_name(self, d2):
        import detectron2.projects.deeplab  # noqa: F401  after ours

        cfg = load_cfg("ovseg_R101c", ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.DEPTH", "50"])
        backbone = build_backbone(cfg)
        assert type(backbone).__module__ == "ovseg.modeling.backbone.resnet"
        assert cfg.MODEL.BACKBONE.NAME == "build_resnet_deeplab_backbone"

    def test_default_predictor_gives_the_same(self, d2, cfg, bgr, pth):
        from detectron2.engine import DefaultPredictor

        cfg.MODEL.WEIGHTS = pth
        expected = d2.OVSegPredictor(cfg)(bgr)["sem_seg"]
        assert torch.equal(DefaultPredictor(cfg)(bgr)["sem_seg"], expected)

    def test_its_visualiser_draws_the_result(self, d2, cfg, bgr):
        from detectron2.utils.visualizer import Visualizer

        predictor = d2.OVSegPredictor(cfg)
        labels = predictor(bgr)["sem_seg"].argmax(0)
        drawn = Visualizer(bgr[:, :, ::-1], predictor.metadata).draw_sem_seg(labels).get_image()
        assert drawn.shape == bgr.shape
        assert (drawn != bgr[:, :, ::-1]).any()

    def test_its_loader_and_evaluator_give_our_score(self, d2, cfg, tmp_path, monkeypatch):
        from detectron2.data import build_detection_test_loader
        from detectron2.evaluation import SemSegEvaluator as Theirs

        monkeypatch.chdir(tmp_path)
        for index in range(2):
            scene = render_scene("val", index)
            cv2.imwrite(f"{index}.jpg", scene.image[:, :, ::-1])
            cv2.imwrite(f"{index}.png", scene.labels)
        names = class_list("tinyscapes").names
        register_sem_seg("d2_pair", images=tmp_path, labels=tmp_path, stuff_classes=names)
        cfg.DATASETS.TEST, cfg.DATALOADER.NUM_WORKERS = ("d2_pair",), 0
        model = d2.OVSegPredictor(cfg).model
        results = [
            inference_on_dataset(
                model, build_detection_test_loader(cfg, "d2_pair"), evaluator("d2_pair")
            )["sem_seg"]
            for evaluator in (SemSegEvaluator, Theirs)
        ]
        assert results[0]["mIoU-gt"] == pytest.approx(results[1]["mIoU"])
        assert results[0]["pACC"] == pytest.approx(results[1]["pACC"])
        assert results[0]["mIoU-gt"] > 20
