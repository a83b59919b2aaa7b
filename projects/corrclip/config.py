"""Every config key of CorrCLIP with its default, the released code's where it has one."""

from __future__ import annotations

from ovseg.d2.config import CfgNode
from ovseg.projects.corrclip.bank import add_bank_keys
from ovseg.projects.corrclip.regions import add_region_keys

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Add MODEL.CORRCLIP to a config; CLIP and prompts are those of MODEL.CLIP_ADAPTER.

    Args:
        cfg: changed in place.
    """
    node = cfg.MODEL.CORRCLIP = CfgNode()
    # "window": similarities of each window by itself, on the vision model's grid (v1); "image":
    # features of the whole picture, cut for each window (v2).
    node.CORRELATION = "window"
    node.GRID_SCALE = 2  # "image" only: cells of the similarities per patch of CLIP, either way
    node.TAU = 4.0  # factor of the similarities before the softmax
    node.MERGE = True  # whether regions that look alike are joined (v2: not)
    node.EPS = 0.2  # distance up to which they do
    node.MIN_SAMPLES = 1  # near regions, itself included, that a region needs to be joined
    node.UNCOVERED = "either"  # similar pairs with "either", "both" or "none" cell in no region
    node.NUM_SPATIAL = 0  # blocks that the spatial branch averages; 0: by the tower's depth
    node.SPATIAL_WEIGHT = 1.0
    node.SEMANTIC_WEIGHT = 0.5
    node.POSITION_OFFSET = 0.1  # of CLIP's position embedding, added to the wanted size
    node.PRECISION = "float32"  # or "float16", "bfloat16": of CLIP and the vision model
    node.SEPARATOR = "; "  # between the strings of a class; each is scored, the best one counts

    node.WINDOW = CfgNode()
    node.WINDOW.CROP = 336  # side of a window in the resized picture
    node.WINDOW.STRIDE = 112
    node.WINDOW.PAD_MULTIPLE = 56  # smaller windows are padded to multiples (of 14 and of 8)
    node.WINDOW.PAD_ID = 10000  # region of the padding, if no region has a larger id

    node.LOGIT_SCALE = 40.0  # of the cosines, before the softmax over all strings
    node.PROB_THD = 0.0  # pixels whose best class has less probability go to the background
    # Label of the background; -1: the vocabulary's background class, and where it has none, such
    # pixels stay blank.
    node.BACKGROUND_ID = -1
    node.MAP_CORRECTION = True  # all pixels of a region get its most frequent label

    dense = node.DENSE = CfgNode()
    dense.NAME = "timm_vit"  # or "clip" (the CLIP itself), "maskformer", "random"
    dense.MODEL = "vit_base_patch8_224.dino"  # timm's name, or a MaskFormer's config
    dense.WEIGHTS = "pretrained"  # timm's, "random", or a file; of a MaskFormer: a name
    dense.FEATURE = "qk"  # of the last attention, queries plus keys; or "q", "k", "v", "last"
    dense.POSITIONS = "dino"  # how positions are resized: as by DINO's code, or by "timm"
    dense.STRIDE = 0  # "clip": pixels between patches, 0 for the patch size
    dense.CELL = 8  # "random" and "maskformer": side of a cell, pixels
    dense.CHANNELS = 64  # "random": number of features
    add_region_keys(node)
    add_bank_keys(node)
