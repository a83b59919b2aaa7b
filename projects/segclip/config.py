"""The settings of SegCLIP; the defaults are those of the released code."""

from __future__ import annotations

from ovseg.d2.config import CfgNode
from ovseg.weights.find import find_clip_weights


def add_config(cfg: CfgNode) -> None:
    """Adds MODEL.SEGCLIP, SOLVER.LR_NEW and SOLVER.LR_CLIP.

    Args:
        cfg: the package's defaults.
    """
    method = cfg.MODEL.SEGCLIP = CfgNode()
    method.FIRST_STAGE_LAYERS = 10  # of CLIP's blocks, on patches; the rest run on the groups
    method.NUM_CENTERS = 8  # learned centres, so groups of every crop
    method.CROSS_LAYERS = 2  # of the grouping module: centres look at patches and each other
    method.GUMBEL_TAU = 0.9  # temperature of the noisy assignment of patches, in training
    # In training the keys of the grouping module are mixed over the batch, as the released code
    # does with torch 1.8.
    method.COMPAT_BATCH_MIX = False
    method.IMAGE_SIZE = 0  # side of the crops in training; 0: that of CLIP
    # Weights lack the embedding of CLIP's tokens, never trained: evaluations take CLIP_WEIGHTS'.
    method.TOKENS_OF_CLIP = False
    method.CONTEXT_LENGTH = 32  # tokens of a caption, both ends included
    method.STORED_SHORT_SIDE = 224  # larger pictures are shrunk to it before anything else; 0: not
    method.CROP_SCALE = [0.5, 1.0]  # share of the picture that a crop covers
    method.CROP_RATIO = [0.75, 4 / 3]  # width over height of a crop

    mae = method.MAE = CfgNode()
    mae.ENABLED = True  # reconstruct masked patches
    mae.WEIGHT = 1.0  # of that loss
    mae.MASK_RATIO = 0.75  # share of the tokens that are taken away
    mae.ENCODER_LAYERS = 2  # blocks on the patches that were rebuilt from the groups
    mae.DEC_DIM = 384
    mae.DEC_DEPTH = 3
    mae.DEC_HEADS = 8

    kl = method.KL = CfgNode()
    kl.ENABLED = True  # patches of one superpixel are to have the same group
    kl.WEIGHT = 1.0  # of that loss
    kl.SUPERPIXELS = ""  # folder that make_superpixels.py has written
    # Superpixel of a patch: "mean_trunc" (the mean of the ids of its pixels, cut to an integer, as
    # the released code) or "mode" (the most frequent id).
    kl.PATCH_ID_MODE = "mean_trunc"

    felzenszwalb = method.FELZENSZWALB = CfgNode()
    felzenszwalb.SCALE = 224.0
    felzenszwalb.SIGMA = 0.9
    felzenszwalb.MIN_SIZE = 224

    test = method.TEST = CfgNode()
    test.CROP = 224  # side of a window
    test.STRIDE = 224  # step between windows
    test.TOPK = 5  # classes of a window, by its image feature
    # A group whose best class stays below it is background, where the vocabulary has one.
    test.BG_THRESH = 0.95

    # What is asked for in place of names of a dataset's class list, as "name=word".
    test.WORDS = []

    cfg.SOLVER.LR_NEW = 4e-3  # of what CLIP does not bring, and of its last blocks and projection
    cfg.SOLVER.LR_CLIP = 4e-6  # of the rest of CLIP, as far as it is trained


def settle_config(cfg: CfgNode, *, evaluating: bool) -> None:
    """Finds the file of CLIP's weights and refuses what cannot be trained.

    Args:
        cfg: full configuration, not frozen; MODEL.CLIP_ADAPTER.CLIP_WEIGHTS is set.
        evaluating: whether a checkpoint will be loaded, which holds CLIP's weights, but for what
            MODEL.SEGCLIP.TOKENS_OF_CLIP says.

    Raises:
        ValueError: gradient accumulation, or the superpixel loss without superpixels.
    """
    adapter = cfg.MODEL.CLIP_ADAPTER
    complete = evaluating and not cfg.MODEL.SEGCLIP.TOKENS_OF_CLIP
    adapter.CLIP_WEIGHTS = "" if complete else find_clip_weights(adapter)
    if evaluating:
        return
    if cfg.SOLVER.ACCUMULATION_STEPS != 1:
        raise ValueError(
            "SOLVER.ACCUMULATION_STEPS: expected 1, got "
            f"{cfg.SOLVER.ACCUMULATION_STEPS}; the contrastive loss compares all pairs of a batch "
            "and is not the mean over its parts. Use more processes, or a smaller batch"
        )
    kl = cfg.MODEL.SEGCLIP.KL
    if kl.ENABLED and not kl.SUPERPIXELS:
        raise ValueError(
            "MODEL.SEGCLIP.KL.SUPERPIXELS: expected a folder of superpixels, got ''; make it once "
            "with `python -m ovseg.projects.segclip.make_superpixels --config-file CONFIG --output "
            "FOLDER` and set the key to FOLDER, or train without them: MODEL.SEGCLIP.KL.ENABLED "
            "False"
        )
