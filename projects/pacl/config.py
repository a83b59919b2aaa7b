"""The config keys of PACL; what the paper leaves open is one of them, see the project's README."""

from __future__ import annotations

from ovseg.d2.config import CfgNode

__all__ = ["add_config"]


def add_config(cfg: CfgNode) -> None:
    """Adds MODEL.PACL and INPUT.PACL with their defaults.

    Args:
        cfg: the config to add to.
    """
    pacl = cfg.MODEL.PACL = CfgNode()
    pacl.IMAGE_ENCODER = "clip"  # "clip": CLIP's own image tower; "dino": a ViT of timm
    pacl.DINO_MODEL = "vit_base_patch16_224.dino"  # as timm.create_model takes it
    # "pretrained": timm downloads them; "random"; or a file in timm's naming.
    pacl.DINO_WEIGHTS = "pretrained"
    pacl.HIDDEN_DIM = -1  # width inside the embedder; -1: that of the texts
    pacl.ACT = "relu"  # of the embedder; or "gelu"
    pacl.PATCH_TEMP = 1.0  # of the softmax over patches
    pacl.POOL_NORMALIZED = True  # whether unit patches are summed, or patches as they are
    pacl.RENORM = True  # whether the sum is brought to unit length before it meets the text
    pacl.PAIRWISE = True  # pool anew for every text; False: pool by a picture's own texts only
    pacl.TEXT_CHUNK = 256  # texts at a time; bounds memory, changes no result
    pacl.LOGIT_SCALE_INIT = 100.0  # inverse temperature of the loss at the start, at most 100
    pacl.LEARN_SCALE = True
    # What texts of one noun are to pictures whose captions name it, too: "negative" or "ignored".
    pacl.SAME_NOUN = "negative"

    test = pacl.TEST = CfgNode()
    test.INPUT_SIZE = 224  # a picture (or tile) becomes a square of this side; 0 keeps its size
    test.PATCH_STRIDE = 4  # step between patches in pixels; 0: that of the encoder
    test.EXACT_PLACEMENT = False  # put patches where they were, instead of stretching their grid
    # "ignore": every pixel gets a class; "entropy": pixels that no class stands out at do not.
    test.BACKGROUND = "ignore"
    test.ENTROPY_THR = 1.5  # nats, of the softmax over classes
    test.LOGIT_SCALE = 100.0  # on cosines before that softmax; 0 takes the trained one

    data = cfg.INPUT.PACL = CfgNode()
    data.SIZE = 224  # side of the square that training pictures become
    data.SCALE = [0.9, 1.0]  # share of a picture's area that a random crop keeps
    data.RATIO = [0.75, 1.3333333333333333]  # width to height of the crop
    data.NOUN_PROMPTS = 1  # texts made of nouns, beside each caption
    data.CAPTION = True  # whether the caption itself is a text; False: nouns only
    data.TEMPLATES = "pacl7"  # what nouns are put into
    data.TAGGER = "auto"  # finds the nouns, see ovseg.mining.nouns
    data.LEMMA = False  # whether a noun's last word is made singular
