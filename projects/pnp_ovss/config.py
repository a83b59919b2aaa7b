"""Default and meaning of every setting of PnP-OVSS; the values are the released code's."""

from __future__ import annotations

from ovseg.d2.config import CfgNode
from ovseg.modeling.views.dense_crf import CRFSettings

from .captions import Wording
from .dropout import DropSettings
from .labels import LabelRules

__all__ = ["add_config", "drop_of", "rules_of", "wording_of"]


def add_config(cfg: CfgNode) -> None:
    """Add MODEL.PNP_OVSS with its defaults.

    Args:
        cfg: a config that does not have it yet; changed in place.
    """
    pnp = cfg.MODEL.PNP_OVSS = CfgNode()
    _add_asking(pnp)
    _add_reading(pnp)
    _add_filter(pnp)
    _add_training(pnp)


def _add_asking(pnp: CfgNode) -> None:
    """The matcher, the caption, and how often a picture is asked."""
    itm = pnp.ITM = CfgNode()
    # The matcher: a folder in Hugging Face's form or a name of their hub; "" takes the one that
    # MODEL.WEIGHTS holds, a safetensors file with its config and vocabulary in the header.
    itm.NAME = ""
    itm.IMAGE_SIZE = 336  # side of the square that a picture is resized to; 0: the matcher's own
    itm.INTERPOLATION = "bicubic"  # of that: "bicubic" or "bilinear"
    itm.RAW_INPUT = False  # colours from 0 to 1 as they are, without CLIP's mean and deviation
    itm.LAYER = 8  # of the text encoder, counted from 1; whose cross-attention is read
    itm.HEAD = 9  # of that layer, counted from 0
    itm.MAX_TOKENS = 500  # of a caption; the matcher's own limit holds, too

    prompt = pnp.PROMPT = CfgNode()
    prompt.PREFIX = "A picture of"  # what captions begin with, before the class names
    # Names of several words: "mean" of the maps of all words, the "last" word's map, or "join"
    # them, as the released code does ("traffic light" -> "trafficlight").
    prompt.WORDS = "mean"
    prompt.SEPARATOR = ""  # a class's name ends where this begins; "" takes the whole name
    prompt.RENAME = []  # pairs of a name and the one to ask for in its place

    drop = pnp.DROP = CfgNode()  # salience dropout
    drop.ITERS = 4  # rounds; 1 is a single pass
    # Patches that a round blanks: "topk", "halving" (a half, a quarter, ... of all; the code as
    # first published), or "threshold" (all above a share of the largest).
    drop.MODE = "topk"
    drop.TOPK = 10
    drop.THRESHOLD = 0.05
    drop.FIRST_ITER_WEIGHT = 2.0  # of the first round's maps in the sum


def _add_reading(pnp: CfgNode) -> None:
    """How maps become labels."""
    maps = pnp.MAP = CfgNode()
    maps.THRESHOLD = 0.15  # of a map scaled from 0 to 1; cells below it are no part of the class
    maps.SCALE_01 = False  # scale each map from 0 to 1 after upsampling, where there are several

    background = pnp.BACKGROUND = CfgNode()
    # A channel for the pixels that no class has: "always", "if_few" classes, or "never".
    background.POLICY = "always"
    background.MAX_CLASSES = 3  # "if_few": fewer classes than this

    post = pnp.POST = CfgNode()
    post.MODE = "blur+crf"  # or "blur", "crf", "none"
    post.BLUR = 0.05  # standard deviation over the picture's longer side
    crf = post.CRF = CfgNode()
    crf.ITERS = 10
    crf.POS_W, crf.POS_XY = 7.0, 3.0  # smoothness: weight, standard deviation in pixels
    crf.BI_W, crf.BI_XY, crf.BI_RGB = 10.0, 50.0, 5.0  # colour: weight, deviations


def _add_filter(pnp: CfgNode) -> None:
    """Which classes are asked for."""
    chosen = pnp.FILTER = CfgNode()
    # Which of the classes go into the caption: "all", "cached_json", "clip", "itm", "oracle",
    # "user_list", or a name that was registered in CLASS_FILTER_REGISTRY.
    chosen.NAME = "all"
    chosen.PATH = ""  # cached_json: the answers, by image id
    chosen.MIN_PROB = 70.0  # cached_json: percentages must exceed this
    chosen.IDS = "position"  # cached_json: "position" in the vocabulary from 1, or "coco" ids
    chosen.RATIO = 0.2  # clip, itm: least probability, as a share of the largest
    chosen.TOP = 25  # clip, itm: most classes
    chosen.NAMES = []  # user_list: class names


def _add_training(pnp: CfgNode) -> None:
    """The matcher in miniature."""
    train = pnp.TRAIN = CfgNode()  # of a matcher that is trained here, on captions
    train.VOCABULARY = 1000  # most word pieces, which are found in the captions
    train.IMAGE_SIZE = 96  # side of the squares that pictures are resized to
    train.PATCH_SIZE = 8
    train.WIDTH, train.MLP_WIDTH = 96, 384  # of both encoders
    train.VISION_LAYERS, train.VISION_HEADS = 4, 4
    train.TEXT_LAYERS, train.TEXT_HEADS = 3, 4
    train.EMBEDDING = 64  # width in which pictures and texts are compared
    train.MAX_TOKENS = 64  # of a caption
    train.CONTRASTIVE_WEIGHT = 1.0  # beside the matching loss
    train.TEMPERATURE = 0.07  # of the contrastive loss
    train.SHARPNESS = 10.0  # of the patches that it compares a word with
    train.MASKED_WEIGHT = 1.0  # of telling hidden words from the picture
    train.MASKED_SHARE = 0.3  # of the word pieces that are hidden
    train.LIST_SHARE = 0.5  # of the texts: lists of nouns instead of captions
    train.MOST_NOUNS = 6  # of such a list


def wording_of(cfg: CfgNode) -> Wording:
    """Read how classes become a caption.

    Args:
        cfg: a full config.

    Returns:
        The settings of PROMPT and of ITM.MAX_TOKENS.
    """
    node = cfg.MODEL.PNP_OVSS
    return Wording(
        prefix=node.PROMPT.PREFIX,
        rule=node.PROMPT.WORDS,
        separator=node.PROMPT.SEPARATOR,
        rename=tuple((old, new) for old, new in node.PROMPT.RENAME),
        max_tokens=node.ITM.MAX_TOKENS,
    )


def drop_of(cfg: CfgNode) -> DropSettings:
    """Read the settings of salience dropout.

    Args:
        cfg: a full config.

    Returns:
        The settings of DROP.
    """
    drop = cfg.MODEL.PNP_OVSS.DROP
    return DropSettings(
        rounds=drop.ITERS,
        mode=drop.MODE,
        top_k=drop.TOPK,
        threshold=drop.THRESHOLD,
        first_weight=drop.FIRST_ITER_WEIGHT,
    )


def rules_of(cfg: CfgNode) -> LabelRules:
    """Read how maps become labels.

    Args:
        cfg: a full config.

    Returns:
        The settings of MAP, BACKGROUND and POST.
    """
    node = cfg.MODEL.PNP_OVSS
    crf = node.POST.CRF
    return LabelRules(
        threshold=node.MAP.THRESHOLD,
        scale_01=node.MAP.SCALE_01,
        background=node.BACKGROUND.POLICY,
        few=node.BACKGROUND.MAX_CLASSES,
        post=node.POST.MODE,
        blur=node.POST.BLUR,
        crf=CRFSettings(
            iterations=crf.ITERS,
            smooth_xy=crf.POS_XY,
            smooth_weight=crf.POS_W,
            colour_xy=crf.BI_XY,
            colour_rgb=crf.BI_RGB,
            colour_weight=crf.BI_W,
        ),
    )
