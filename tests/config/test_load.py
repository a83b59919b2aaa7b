from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import ovseg
from ovseg.clip_training.config import load_clip_config
from ovseg.config import config_path, load_cfg
from tests.config.key_reads import leaves
from tests.helpers import ROOT


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


# ---------------------------------------------------------------- shipped configs


def test_swin_b_carries_the_published_settings():
    cfg = load_cfg("ovseg_swinB")

    assert cfg.MODEL.META_ARCHITECTURE == "OVSeg"
    assert cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer"
    swin = cfg.MODEL.SWIN
    assert (swin.EMBED_DIM, swin.WINDOW_SIZE, swin.PRETRAIN_IMG_SIZE) == (128, 12, 384)
    assert (swin.DEPTHS, swin.NUM_HEADS) == ([2, 2, 18, 2], [4, 8, 16, 32])
    clip = cfg.MODEL.CLIP_ADAPTER
    assert (clip.CLIP_MODEL_NAME, clip.MASK_THR, clip.CLIP_ENSEMBLE_WEIGHT) == (
        "ViT-L/14",
        0.4,
        0.7,
    )
    assert (clip.MASK_PROMPT_DEPTH, clip.MASK_PROMPT_FWD) == (3, True)
    assert cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM == 768
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.WEIGHT_DECAY, solver.BACKBONE_MULTIPLIER) == (6e-5, 0.01, 1.0)
    assert tuple(range(320, 1281, 64)) == cfg.INPUT.MIN_SIZE_TRAIN
    assert (cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.SIZE_DIVISIBILITY) == (2560, 640)
    assert (cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST) == (640, 2560)
    assert list(cfg.INPUT.CROP.SIZE) == [640, 640]


def test_r101c_carries_the_published_settings_with_the_papers_scales():
    cfg = load_cfg("ovseg_R101c")

    assert cfg.MODEL.BACKBONE.NAME == "build_resnet_deeplab_backbone"
    resnets = cfg.MODEL.RESNETS
    assert (resnets.DEPTH, resnets.STEM_TYPE, resnets.STEM_OUT_CHANNELS) == (101, "deeplab", 128)
    assert (resnets.STRIDE_IN_1X1, resnets.NORM, resnets.RES5_DILATION) == (False, "FrozenBN", 1)
    clip = cfg.MODEL.CLIP_ADAPTER
    assert (clip.CLIP_MODEL_NAME, clip.MASK_THR, clip.CLIP_ENSEMBLE_WEIGHT) == (
        "ViT-B/16",
        0.5,
        0.7,
    )
    assert cfg.MODEL.SEM_SEG_HEAD.EMBEDDING_DIM == 512
    solver = cfg.SOLVER
    assert (solver.BASE_LR, solver.WEIGHT_DECAY, solver.BACKBONE_MULTIPLIER) == (2e-4, 1e-4, 0.1)
    scales = cfg.INPUT.MIN_SIZE_TRAIN
    assert (len(scales), scales[0], scales[5], scales[-1]) == (16, 256, 512, 1024)
    assert (cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.SIZE_DIVISIBILITY) == (2048, 512)


@pytest.mark.parametrize("name", ["ovseg_swinB", "ovseg_R101c"])
def test_full_size_configs_share_the_published_recipe(name):
    cfg = load_cfg(name)

    assert cfg.MODEL.PIXEL_MEAN == [123.675, 116.28, 103.53]
    assert cfg.MODEL.PIXEL_STD == [58.395, 57.12, 57.375]
    assert (cfg.INPUT.FORMAT, cfg.INPUT.COLOR_AUG_SSD) == ("RGB", True)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.MAX_ITER) == (32, 120000)
    assert cfg.SOLVER.LR_SCHEDULER_NAME == "WarmupPolyLR"
    assert (cfg.SOLVER.WARMUP_FACTOR, cfg.SOLVER.WARMUP_ITERS) == (1e-6, 1500)
    clip = cfg.SOLVER.CLIP_GRADIENTS
    assert (clip.ENABLED, clip.CLIP_TYPE, clip.CLIP_VALUE) == (True, "full_model", 0.01)
    assert cfg.DATASETS.TRAIN == ("coco_2017_train_stuff_sem_seg",)
    assert cfg.DATASETS.TEST == ("ade20k_sem_seg_val",)
    assert cfg.TEST.AUG.MIN_SIZES == (256, 384, 512, 640, 768, 896)
    assert (cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES, cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM) == (171, 256)


@pytest.mark.parametrize("name", ["ovseg_swinB", "ovseg_R101c", "ovseg_tiny"])
def test_scales_of_the_augmentation_lie_around_the_test_size(name):
    cfg = load_cfg(name)
    scales, side = cfg.TEST.AUG.MIN_SIZES, cfg.INPUT.MIN_SIZE_TEST
    assert min(scales) < side < max(scales) < 2 * side
    assert cfg.TEST.AUG.MAX_SIZE >= cfg.INPUT.MAX_SIZE_TEST


def test_the_demo_config_is_swin_b_in_another_mode():
    demo, full = load_cfg("ovseg_swinB_demo"), load_cfg("ovseg_swinB")

    assert demo.MODEL.META_ARCHITECTURE == "OVSegDEMO"
    assert (demo.MODEL.CLIP_ADAPTER.MASK_THR, demo.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT) == (
        0.35,
        0.0,
    )
    assert demo.MODEL.SWIN == full.MODEL.SWIN


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.stem)
def test_a_shipped_config_loads_and_its_header_tells_source_and_command(path):
    load_clip_config(path) if path.stem.startswith("clip_") else load_cfg(path)
    header = "".join(
        line for line in path.read_text().splitlines(keepends=True) if line.startswith("#")
    )

    assert "python tools/" in header or "python demo/" in header or "make " in header
    assert re.search(r"^# (Paper|Method): +\w+ et al\..+?\b20\d\d\b", header, re.M | re.S)


# ---------------------------------------------------------------- finding


def test_a_config_is_found_by_name_with_or_without_ending_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert config_path("ovseg_swinB") == config_path("ovseg_swinB.yaml")
    assert config_path("configs/ovseg_swinB.yaml") == config_path("ovseg_swinB")
    assert config_path("_base_/maskformer").name == "maskformer.yaml"


@pytest.mark.parametrize(
    ("released", "ours"),
    [
        ("ovseg_swinB_vitL_bs32_120k.yaml", "ovseg_swinB"),
        ("configs/ovseg_swinB_vitL_demo.yaml", "ovseg_swinB_demo"),
        ("ovseg_R101c_vitB_bs32_120k", "ovseg_R101c"),
    ],
)
def test_the_released_names_of_configs_mean_ours_with_the_scales_that_were_released(
    tmp_path, monkeypatch, released, ours
):
    monkeypatch.chdir(tmp_path)
    scales = ["INPUT.MIN_SIZE_TRAIN", (800,), "INPUT.MAX_SIZE_TRAIN", 1333]

    assert load_cfg(released) == load_cfg(ours, scales if "R101c" in released else [])


def test_a_file_wins_over_a_shipped_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "ovseg_swinB.yaml", "SEED: 5\n")

    assert load_cfg("ovseg_swinB.yaml").SEED == 5


def test_the_configs_of_projects_are_found_by_name(tmp_path, monkeypatch):
    _write(tmp_path / "projects" / "some" / "configs" / "some_vitB16.yaml", "SEED: 6\n")
    _write(tmp_path / "configs" / "core.yaml", "SEED: 7\n")
    monkeypatch.setattr(ovseg, "__file__", str(tmp_path / "ovseg" / "__init__.py"))

    assert (load_cfg("some_vitB16").SEED, load_cfg("core").SEED) == (6, 7)


def test_a_missing_config_lists_the_shipped_ones():
    with pytest.raises(FileNotFoundError, match=r"'nothing'.*ovseg_R101c.*ovseg_swinB"):
        config_path("nothing")


# ---------------------------------------------------------------- merging


def test_bases_are_read_relative_to_the_file_and_later_ones_win(tmp_path):
    _write(tmp_path / "a" / "one.yaml", "SEED: 1\nSOLVER:\n  MAX_ITER: 1\n  BASE_LR: 0.5\n")
    _write(tmp_path / "a" / "two.yaml", "_BASE_: one.yaml\nSOLVER:\n  MAX_ITER: 2\n")
    _write(tmp_path / "b" / "other.yaml", "SOLVER:\n  BASE_LR: 0.25\n")
    path = _write(
        tmp_path / "b" / "three.yaml", "_BASE_: [../a/two.yaml, other.yaml]\nOUTPUT_DIR: out\n"
    )
    cfg = load_cfg(path)

    assert (cfg.SEED, cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (1, 2, 0.25)
    assert cfg.OUTPUT_DIR == "out"


def test_a_circle_of_bases_is_refused(tmp_path):
    _write(tmp_path / "a.yaml", "_BASE_: b.yaml\n")
    _write(tmp_path / "b.yaml", "_BASE_: a.yaml\n")

    with pytest.raises(ValueError, match=r"circle: a.yaml -> b.yaml -> a.yaml"):
        load_cfg(tmp_path / "a.yaml")


def test_a_missing_base_is_named(tmp_path):
    path = _write(tmp_path / "a.yaml", "_BASE_: gone.yaml\n")

    with pytest.raises(FileNotFoundError, match=r"its _BASE_ 'gone.yaml'"):
        load_cfg(path)


def test_options_override_the_file_and_the_result_is_frozen():
    cfg = load_cfg("ovseg_swinB", ["SOLVER.MAX_ITER", "7", "MODEL.WEIGHTS", "w.pth", "SEED", 3])

    assert (cfg.SOLVER.MAX_ITER, cfg.MODEL.WEIGHTS, cfg.SEED) == (7, "w.pth", 3)
    with pytest.raises(AttributeError):
        cfg.SEED = 4


def test_lists_are_overridden_with_literals():
    cfg = load_cfg(
        "ovseg_R101c", ["INPUT.MIN_SIZE_TRAIN", "(800,)", "INPUT.MAX_SIZE_TRAIN", "1333"]
    )

    assert (cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN) == ((800,), 1333)


def test_a_separator_before_the_options_is_skipped():
    assert load_cfg("ovseg_swinB", ["--", "SEED", "3"]).SEED == 3


def test_a_key_without_a_value_is_refused():
    with pytest.raises(ValueError, match="pairs KEY VALUE"):
        load_cfg("ovseg_swinB", ["SEED"])


def test_an_unknown_option_names_the_closest_or_its_neighbours():
    with pytest.raises(KeyError, match=r"SOLVER.BASE_RL.*did you mean 'SOLVER.BASE_LR'"):
        load_cfg("ovseg_swinB", ["SOLVER.BASE_RL", "1"])
    with pytest.raises(KeyError, match=r"WANDB.ENTITY_OF_MINE.*there are: WANDB.NAME"):
        load_cfg("ovseg_swinB", ["WANDB.ENTITY_OF_MINE", "1"])
    with pytest.raises(KeyError, match=r"SEED.DEEPER"):
        load_cfg("ovseg_swinB", ["SEED.DEEPER", "1"])


def test_an_option_of_the_wrong_type_is_refused_with_its_name():
    with pytest.raises(ValueError, match=r"SOLVER.MAX_ITER.*'many'"):
        load_cfg("ovseg_swinB", ["SOLVER.MAX_ITER", "many"])


def test_an_unknown_key_in_a_file_names_the_file(tmp_path):
    path = _write(tmp_path / "typo.yaml", "SOLVER:\n  BASE_RL: 1\n")

    with pytest.raises(KeyError, match=r"typo.yaml.*SOLVER.BASE_RL"):
        load_cfg(path)


def test_detector_sections_of_a_written_out_detectron2_config_are_accepted(tmp_path):
    path = _write(tmp_path / "full.yaml", "MODEL:\n  RPN:\n    HEAD_NAME: X\n  MASK_ON: true\n")

    assert load_cfg(path).MODEL.MASK_ON is True


def test_a_dumped_config_loads_to_the_same_settings(tmp_path):
    cfg = load_cfg("ovseg_swinB")
    path = _write(tmp_path / "config.yaml", cfg.dump())

    assert yaml.safe_load(load_cfg(path).dump()) == yaml.safe_load(cfg.dump())


# ---------------------------------------------------------------- safety


@pytest.mark.parametrize(
    ("line", "literal"),
    [
        (
            '!!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 21)]"]',
            r"MIN_SIZE_TRAIN: \[320, 384, 448, .*, 1280\]",
        ),
        ("!!python/tuple [640, 800]", r"MIN_SIZE_TRAIN: \[640, 800\]"),
        ('!!python/object/apply:os.system ["touch hacked"]', r"MIN_SIZE_TRAIN: \[320, 384"),
    ],
)
def test_python_tags_are_refused_with_the_literal_to_write(tmp_path, monkeypatch, line, literal):
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / "unsafe.yaml", f"INPUT:\n  MIN_SIZE_TRAIN: {line}\n")

    with pytest.raises(ValueError, match=f"unsafe.yaml, line 2: .*{literal}"):
        load_cfg(path)
    assert not (tmp_path / "hacked").exists()


def test_broken_yaml_and_non_mappings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="not valid YAML"):
        load_cfg(_write(tmp_path / "broken.yaml", "a: [1"))
    with pytest.raises(ValueError, match="must hold KEY: VALUE"):
        load_cfg(_write(tmp_path / "list.yaml", "- 1\n"))


# The settings that the released file of Swin-B is described by; its scales are an expression.
_RELEASED = """
MODEL:
  META_ARCHITECTURE: OVSeg
  WEIGHTS: swin_base_patch4_window12_384_22k.pkl
  PIXEL_MEAN: [123.675, 116.28, 103.53]
  PIXEL_STD: [58.395, 57.12, 57.375]
  BACKBONE: {{NAME: D2SwinTransformer}}
  SWIN: {{EMBED_DIM: 128, DEPTHS: [2, 2, 18, 2], NUM_HEADS: [4, 8, 16, 32], WINDOW_SIZE: 12,
    PRETRAIN_IMG_SIZE: 384, MLP_RATIO: 4, APE: false, DROP_PATH_RATE: 0.3, PATCH_NORM: true}}
  SEM_SEG_HEAD: {{NAME: OpenVocabMaskFormerHead, IN_FEATURES: [res2, res3, res4, res5],
    IGNORE_VALUE: 255, NUM_CLASSES: 171, EMBEDDING_DIM: 768, COMMON_STRIDE: 4, LOSS_WEIGHT: 1.0,
    CONVS_DIM: 256, MASK_DIM: 256, NORM: GN}}
  MASK_FORMER: {{DICE_WEIGHT: 1.0, MASK_WEIGHT: 20.0, HIDDEN_DIM: 256, NUM_OBJECT_QUERIES: 100,
    TEST: {{PANOPTIC_ON: false, OVERLAP_THRESHOLD: 0.0, OBJECT_MASK_THRESHOLD: 0.0}}}}
  CLIP_ADAPTER: {{TEXT_TEMPLATES: vild, CLIP_MODEL_NAME: ViT-L/14, MASK_FILL: mean,
    MASK_EXPAND_RATIO: 1.0, MASK_THR: 0.4, MASK_MATTING: false, MASK_PROMPT_DEPTH: 3,
    MASK_PROMPT_FWD: true, REGION_RESIZED: true, CLIP_ENSEMBLE: true, CLIP_ENSEMBLE_WEIGHT: 0.7}}
DATASETS:
  TRAIN: ("coco_2017_train_stuff_sem_seg",)
  TEST: ("ade20k_sem_seg_val",)
SOLVER: {{BASE_LR: 6.0e-5, BACKBONE_MULTIPLIER: 1.0, WEIGHT_DECAY: 0.01, IMS_PER_BATCH: 32,
  MAX_ITER: 120000, OPTIMIZER: ADAMW, LR_SCHEDULER_NAME: WarmupPolyLR, WARMUP_FACTOR: 1.0e-6,
  WARMUP_ITERS: 1500, WEIGHT_DECAY_NORM: 0.0, WEIGHT_DECAY_EMBED: 0.0, TEST_IMS_PER_BATCH: 1,
  CLIP_GRADIENTS: {{ENABLED: true, CLIP_TYPE: full_model, CLIP_VALUE: 0.01, NORM_TYPE: 2.0}}}}
INPUT:
  MIN_SIZE_TRAIN: {scales}
  MIN_SIZE_TRAIN_SAMPLING: choice
  MAX_SIZE_TRAIN: 2560
  MIN_SIZE_TEST: 640
  MAX_SIZE_TEST: 2560
  CROP: {{ENABLED: true, TYPE: absolute, SIZE: [640, 640], SINGLE_CATEGORY_MAX_AREA: 1.0}}
  COLOR_AUG_SSD: true
  SIZE_DIVISIBILITY: 640
  FORMAT: RGB
  DATASET_MAPPER_NAME: mask_former_semantic
TEST:
  EVAL_PERIOD: 5000
  AUG: {{ENABLED: false, MIN_SIZES: [256, 384, 512, 640, 768, 896], MAX_SIZE: 3584, FLIP: true}}
DATALOADER: {{FILTER_EMPTY_ANNOTATIONS: true, NUM_WORKERS: 4}}
VERSION: 2
"""


def test_a_released_file_gives_our_settings_once_its_expression_is_replaced_as_asked(
    tmp_path, caplog
):
    expression = '!!python/object/apply:eval ["[int(x * 0.1 * 640) for x in range(5, 21)]"]'
    path = _write(tmp_path / "own.yaml", _RELEASED.format(scales=expression))
    with pytest.raises(ValueError, match="refused") as refused:
        load_cfg(path)
    scales = str(refused.value).rpartition("write the value itself: MIN_SIZE_TRAIN: ")[2]
    theirs = load_cfg(_write(path, _RELEASED.format(scales=scales)))

    ours = load_cfg("ovseg_swinB_vitL_bs32_120k.yaml")
    weights = {"MODEL.WEIGHTS", "MODEL.TRAINED_WEIGHTS"}
    assert {".".join(key) for key in leaves(ours) if _at(ours, key) != _at(theirs, key)} == {
        *weights,
        "MODEL.CLIP_ADAPTER.TRAINED_NAMES",
    }
    assert "no effect" not in caplog.text


def _at(cfg, key):
    for name in key:
        cfg = cfg[name]
    return cfg


def test_an_empty_file_gives_the_defaults(tmp_path):
    assert load_cfg(_write(tmp_path / "empty.yaml", "")).SOLVER.OPTIMIZER == "ADAMW"


def test_flags_behind_the_settings_are_told_from_settings():
    for opts in (["SEED", "1", "--eval-only"], ["SEED", "1", "--num-gpus", "2"]):
        with pytest.raises(ValueError, match=rf"{opts[2]}: expected flags before the settings"):
            load_cfg("ovseg_tiny", opts)
    with pytest.raises(ValueError, match="odd number"):
        load_cfg("ovseg_tiny", ["SEED"])
    assert load_cfg("ovseg_tiny", ["--", "SEED", "-1"]).SEED == -1


@pytest.mark.parametrize("value", [5, "5", "+5"])
def test_a_whole_number_is_taken_where_a_float_is_meant(tmp_path, value):
    key = "SOLVER.BASE_LR"
    given = load_cfg("ovseg_tiny", [key, value]).SOLVER.BASE_LR
    (tmp_path / "own.yaml").write_text(f"SOLVER: {{BASE_LR: {value}}}\n")
    read = load_cfg(tmp_path / "own.yaml").SOLVER.BASE_LR
    assert (given, type(given), read, type(read)) == (5.0, float, 5.0, float)


def test_no_other_type_is_taken_for_a_float():
    with pytest.raises(ValueError, match=r"SOLVER.BASE_LR.*cannot be 'True'"):
        load_cfg("ovseg_tiny", ["SOLVER.BASE_LR", "True"])
    with pytest.raises(ValueError, match=r"SOLVER.MAX_ITER.*cannot be '5.0'"):
        load_cfg("ovseg_tiny", ["SOLVER.MAX_ITER", "5.0"])


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("garden.yaml", ("garden.yaml",)),
        ("a.yaml, ade20k_sem_seg_val", ("a.yaml", "ade20k_sem_seg_val")),
        ("('garden.yaml')", ("garden.yaml",)),
        ("('a', 'b')", ("a", "b")),
        ("()", ()),
    ],
)
def test_datasets_are_named_with_or_without_the_literal_of_a_tuple(given, read, tmp_path):
    assert read == load_cfg("ovseg_tiny", ["DATASETS.TRAIN", given]).DATASETS.TRAIN
    path = tmp_path / "own.yaml"
    path.write_text(f"DATASETS:\n  TEST: {given}\n")
    assert tuple(load_cfg(path).DATASETS.TEST) == read
