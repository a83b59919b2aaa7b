from __future__ import annotations

import ast
import io
import json
import tokenize
from pathlib import Path

import torch

from ovseg.config import get_default_cfg
from ovseg.config.compatibility import WITHOUT_EFFECT
from ovseg.d2._lite.defaults import DEFAULTS
from ovseg.d2.config import CfgNode, get_cfg
from tests.config.key_reads import leaves
from tests.helpers import ROOT

# Default of each key as the released code documents it (arXiv 2210.04150 and its repository).
UPSTREAM = {
    "INPUT.DATASET_MAPPER_NAME": "mask_former_semantic",
    "INPUT.COLOR_AUG_SSD": False,
    "INPUT.SIZE_DIVISIBILITY": -1,
    "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA": 1.0,
    "SOLVER.TEST_IMS_PER_BATCH": 1,
    "SOLVER.WEIGHT_DECAY_EMBED": 0.0,
    "SOLVER.OPTIMIZER": "ADAMW",
    "SOLVER.BACKBONE_MULTIPLIER": 0.1,
    "SOLVER.POLY_LR_POWER": 0.9,
    "SOLVER.POLY_LR_CONSTANT_ENDING": 0.0,
    "MODEL.MASK_FORMER.DEEP_SUPERVISION": True,
    "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT": 0.1,
    "MODEL.MASK_FORMER.DICE_WEIGHT": 1.0,
    "MODEL.MASK_FORMER.MASK_WEIGHT": 20.0,
    "MODEL.MASK_FORMER.NHEADS": 8,
    "MODEL.MASK_FORMER.DROPOUT": 0.1,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 2048,
    "MODEL.MASK_FORMER.ENC_LAYERS": 0,
    "MODEL.MASK_FORMER.DEC_LAYERS": 6,
    "MODEL.MASK_FORMER.PRE_NORM": False,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 256,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 100,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
    "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": False,
    "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 32,
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": False,
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": 0.0,
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": 0.0,
    "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": False,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 256,
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 0,
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
    "MODEL.SEM_SEG_HEAD.EMBEDDING_DIM": 512,
    "MODEL.SEM_SEG_HEAD.EMBED_HIDDEN_DIM": 1024,
    "MODEL.SEM_SEG_HEAD.EMBED_LAYERS": 2,
    "MODEL.SWIN.PRETRAIN_IMG_SIZE": 224,
    "MODEL.SWIN.PATCH_SIZE": 4,
    "MODEL.SWIN.EMBED_DIM": 96,
    "MODEL.SWIN.DEPTHS": [2, 2, 6, 2],
    "MODEL.SWIN.NUM_HEADS": [3, 6, 12, 24],
    "MODEL.SWIN.WINDOW_SIZE": 7,
    "MODEL.SWIN.MLP_RATIO": 4.0,
    "MODEL.SWIN.QKV_BIAS": True,
    "MODEL.SWIN.QK_SCALE": None,
    "MODEL.SWIN.NORM_INDICES": None,
    "MODEL.SWIN.PROJECTION": False,
    "MODEL.SWIN.PROJECT_DIM": 256,
    "MODEL.SWIN.DROP_RATE": 0.0,
    "MODEL.SWIN.ATTN_DROP_RATE": 0.0,
    "MODEL.SWIN.DROP_PATH_RATE": 0.3,
    "MODEL.SWIN.APE": False,
    "MODEL.SWIN.PATCH_NORM": True,
    "MODEL.SWIN.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.CLIP_ADAPTER.TEXT_TEMPLATES": "vild",
    "MODEL.CLIP_ADAPTER.PREDEFINED_PROMPT_TEMPLATES": ["a photo of a {}."],
    "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": "",
    "MODEL.CLIP_ADAPTER.CLIP_MODEL_NAME": "ViT-B/16",
    "MODEL.CLIP_ADAPTER.MASK_FILL": "mean",
    "MODEL.CLIP_ADAPTER.MASK_EXPAND_RATIO": 1.0,
    "MODEL.CLIP_ADAPTER.MASK_THR": 0.4,
    "MODEL.CLIP_ADAPTER.MASK_MATTING": False,
    "MODEL.CLIP_ADAPTER.REGION_RESIZED": True,
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE": True,
    "MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT": 0.7,
    "MODEL.CLIP_ADAPTER.MASK_PROMPT_DEPTH": 3,
    "MODEL.CLIP_ADAPTER.MASK_PROMPT_FWD": False,
    "TEST.SLIDING_WINDOW": False,
    "TEST.SLIDING_TILE_SIZE": 224,
    "TEST.SLIDING_OVERLAP": 2 / 3,
    "TEST.DENSE_CRF": False,
    "DATASETS.SAMPLE_PER_CLASS": -1,
    "DATASETS.SAMPLE_SEED": 0,
    "WANDB.PROJECT": "open_vocab_seg",
    "WANDB.NAME": None,
    "MODEL.RESNETS.STEM_TYPE": "deeplab",
    "MODEL.RESNETS.RES4_DILATION": 1,
    "MODEL.RESNETS.RES5_MULTI_GRID": [1, 2, 4],
}


def _get(cfg: CfgNode, key: str) -> object:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg


def test_every_upstream_key_keeps_its_default():
    cfg = get_default_cfg()
    changed = {
        key: _get(cfg, key)
        for key, value in UPSTREAM.items()
        if _get(cfg, key) != value or type(_get(cfg, key)) is not type(value)
    }

    assert changed == {}


def test_two_default_configs_share_nothing():
    get_default_cfg().MODEL.SWIN.DEPTHS.append(9)

    assert get_default_cfg().MODEL.SWIN.DEPTHS == [2, 2, 6, 2]


def test_the_device_is_one_that_exists():
    assert ("cuda" if torch.cuda.is_available() else "cpu") == get_default_cfg().MODEL.DEVICE


def test_a_key_that_users_may_set_to_a_number_accepts_integers_and_floats(tmp_path: Path):
    cfg = get_default_cfg()
    cfg.merge_from_list(["MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT", "0.0"])

    assert cfg.MODEL.CLIP_ADAPTER.CLIP_ENSEMBLE_WEIGHT == 0.0


def test_the_config_can_be_written_as_json():
    assert "MASK_FORMER" in json.dumps(get_default_cfg())


DEFAULT_FILES = ("ovseg/config/defaults.py", "ovseg/d2/_lite/defaults.py")


def _definitions(source: str) -> dict[str, list[range]]:
    """Lines that give each key its default, as `cfg.A.KEY = value` or in a dict; no sections."""
    found: dict[str, list[range]] = {}
    for node in ast.walk(ast.parse(source)):
        pairs: list[tuple[str, ast.expr, int]] = []
        if isinstance(node, ast.Dict):
            pairs = [
                (key.value, value, key.lineno)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and not isinstance(value, ast.Dict | ast.Name)
            ]
        elif isinstance(node, ast.Assign) and not _is_section(node.value):
            target = node.targets[-1]
            if isinstance(target, ast.Attribute):
                pairs = [(target.attr, node.value, node.lineno)]
        for name, value, line in pairs:
            found.setdefault(name, []).append(range(line, (value.end_lineno or line) + 1))
    return found


def _is_section(value: ast.expr) -> bool:
    return isinstance(value, ast.Call) and getattr(value.func, "id", "") == "CfgNode"


def _unexplained(source: str) -> list[str]:
    """Keys without a comment of their own: on their lines, or on the lines right above."""
    beside, alone = set(), set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            (alone if token.line.lstrip().startswith("#") else beside).add(token.start[0])
    return sorted(
        name
        for name, places in _definitions(source).items()
        for lines in places
        if not beside.intersection(lines) and lines.start - 1 not in alone
    )


def test_every_key_is_explained_beside_its_default():
    for file in DEFAULT_FILES:
        assert _unexplained((ROOT / file).read_text(encoding="utf-8")) == []


def test_the_explained_keys_are_all_keys_with_effect():
    explained = [
        name
        for file in DEFAULT_FILES
        for name, places in _definitions((ROOT / file).read_text(encoding="utf-8")).items()
        for _ in places
    ]
    ours = {*leaves(get_default_cfg())} - {*leaves(get_cfg())}
    keys = {*leaves(CfgNode(DEFAULTS)), *ours} - {tuple(key.split(".")) for key in WITHOUT_EFFECT}
    again = ["DEVICE", "FORMAT", "META_ARCHITECTURE"]  # Detectron2's, with another default here

    assert sorted(explained) == sorted([*(key[-1] for key in keys), *again])


def test_a_key_without_a_comment_of_its_own_is_found():
    source = "\n".join(
        (
            "# of A",
            "cfg.A = 1",
            "cfg.B = 2",
            "cfg.S = CfgNode()",
            "cfg.S.C = [",
            "    3,  # of C",
            "]",
            'D = {"E": 4, "F": {"G": 5}}  # of E and G',
            'D = {"H": 6}',
        )
    )

    assert _unexplained(source) == ["B", "H"]
