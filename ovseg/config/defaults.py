"""Default of every setting that this package adds to Detectron2's.

Key names and values follow OVSeg (Liang et al., CVPR 2023, arXiv 2210.04150) and the DeepLab
settings it builds on; keys marked "ours" are this package's own.
"""

from __future__ import annotations

import torch

from ovseg.d2.config import CfgNode, get_cfg

__all__ = ["get_default_cfg"]


def get_default_cfg() -> CfgNode:
    """Return a fresh config with the default of every key, under either backend.

    Returns:
        A mutable config node; `MODEL.DEVICE` is "cuda" where there is a GPU, else "cpu".
    """
    cfg = get_cfg()
    cfg.MODEL.DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
    _add_deeplab(cfg)
    _add_input(cfg)
    _add_solver(cfg)
    _add_mask_former(cfg)
    _add_swin(cfg)
    _add_clip_adapter(cfg)
    _add_test(cfg)
    return cfg


def _add_deeplab(cfg: CfgNode) -> None:
    """Settings of DeepLab that the R-101c backbone and the schedule read."""
    resnets = cfg.MODEL.RESNETS
    resnets.RES4_DILATION = 1
    resnets.RES5_MULTI_GRID = [1, 2, 4]  # dilation of the three blocks of res5
    resnets.STEM_TYPE = "deeplab"  # "basic": one 7x7 convolution; "deeplab": three 3x3

    head = cfg.MODEL.SEM_SEG_HEAD
    # Of DeepLab's own head; accepted in config files, read by nothing here.
    head.LOSS_TYPE = "hard_pixel_mining"
    head.PROJECT_FEATURES = ["res2"]
    head.PROJECT_CHANNELS = [48]
    head.ASPP_CHANNELS = 256
    head.ASPP_DILATIONS = [6, 12, 18]
    head.ASPP_DROPOUT = 0.1
    head.USE_DEPTHWISE_SEPARABLE_CONV = False


def _add_input(cfg: CfgNode) -> None:
    """Settings of what the model sees in training."""
    # Which mapper turns a dataset entry into a training sample.
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    # Random brightness, contrast, saturation and hue as in SSD.
    cfg.INPUT.COLOR_AUG_SSD = False
    # Pad training images to a square of this side; -1 for no padding.
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    # Redraw a crop while one class covers more than this share of it; 1.0 accepts any crop.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    # Accepted for compatibility, unused.
    cfg.DATASETS.SAMPLE_PER_CLASS = -1
    cfg.DATASETS.SAMPLE_SEED = 0


def _add_solver(cfg: CfgNode) -> None:
    """Settings of the optimizer, the schedule and logging."""
    solver = cfg.SOLVER
    solver.OPTIMIZER = "ADAMW"  # or "SGD", or "MUON" (Muon for matrices, AdamW for the rest)
    solver.MUON_MULTIPLIER = 1.0  # on the learning rate of Muon's matrices
    # Learning rate of parameters whose module name contains "backbone", relative to BASE_LR.
    solver.BACKBONE_MULTIPLIER = 0.1
    solver.WEIGHT_DECAY_EMBED = 0.0  # of embeddings
    solver.TEST_IMS_PER_BATCH = 1
    solver.POLY_LR_POWER = 0.9
    # The rate never falls below this share of BASE_LR.
    solver.POLY_LR_CONSTANT_ENDING = 0.0
    # Ours: parts that the images of one step are cut into, one forward and backward each; saves
    # memory, changes no gradient. IMS_PER_BATCH stays the number of images per step.
    solver.ACCUMULATION_STEPS = 1
    # Ours: iterations between two lines of progress and of metrics.json.
    solver.LOG_PERIOD = 20
    # Ours: checkpoints to keep, the newest ones; 0 keeps all.
    solver.CHECKPOINTS_KEPT = 3
    # Ours: "float16" (scaled losses) or "bfloat16", where SOLVER.AMP.ENABLED.
    solver.AMP.DTYPE = "float16"
    # Ours: exponential moving average of the weights, evaluated in their place.
    solver.EMA = CfgNode()
    solver.EMA.ENABLED = False
    solver.EMA.DECAY = 0.9998

    cfg.WANDB = CfgNode()
    cfg.WANDB.PROJECT = "open_vocab_seg"
    cfg.WANDB.NAME = None  # None lets W&B choose


def _add_mask_former(cfg: CfgNode) -> None:
    """Settings of MaskFormer: losses, transformer, pixel decoder, class embedding."""
    # Ours: "semantic", "demo", or "" for what META_ARCHITECTURE implies (OVSegDEMO: "demo").
    cfg.MODEL.INFERENCE_MODE = ""

    mask_former = cfg.MODEL.MASK_FORMER = CfgNode()
    mask_former.DEEP_SUPERVISION = True  # losses on every decoder layer
    mask_former.NO_OBJECT_WEIGHT = 0.1
    # Whether ignored pixels and padding count as negatives of every mask (upstream) or as nothing.
    mask_former.IGNORED_AS_NEGATIVE = True
    mask_former.DICE_WEIGHT = 1.0
    mask_former.MASK_WEIGHT = 20.0
    mask_former.NHEADS = 8
    mask_former.DROPOUT = 0.1
    mask_former.DIM_FEEDFORWARD = 2048
    mask_former.ENC_LAYERS = 0
    mask_former.DEC_LAYERS = 6
    mask_former.PRE_NORM = False
    mask_former.HIDDEN_DIM = 256
    mask_former.NUM_OBJECT_QUERIES = 100
    mask_former.TRANSFORMER_IN_FEATURE = "res5"  # or "transformer_encoder"
    mask_former.ENFORCE_INPUT_PROJ = False
    # Images are padded to multiples of this; negative takes the backbone's need.
    mask_former.SIZE_DIVISIBILITY = 32
    mask_former.TEST = CfgNode()
    # Accepted for compatibility, unused: there is no panoptic inference.
    mask_former.TEST.PANOPTIC_ON = False
    mask_former.TEST.OBJECT_MASK_THRESHOLD = 0.0
    mask_former.TEST.OVERLAP_THRESHOLD = 0.0
    mask_former.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE = False

    head = cfg.MODEL.SEM_SEG_HEAD
    head.MASK_DIM = 256
    head.TRANSFORMER_ENC_LAYERS = 0  # of the transformer pixel decoder
    head.PIXEL_DECODER_NAME = "BasePixelDecoder"  # or "TransformerEncoderPixelDecoder"
    head.EMBEDDING_DIM = 512  # width of CLIP's joint space
    head.EMBED_HIDDEN_DIM = 1024
    head.EMBED_LAYERS = 2


def _add_swin(cfg: CfgNode) -> None:
    """Settings of the Swin backbone; the defaults are Swin-T's."""
    swin = cfg.MODEL.SWIN = CfgNode()
    swin.PRETRAIN_IMG_SIZE = 224  # sizes the absolute position embedding, where APE
    swin.PATCH_SIZE = 4
    swin.EMBED_DIM = 96
    swin.DEPTHS = [2, 2, 6, 2]
    swin.NUM_HEADS = [3, 6, 12, 24]
    swin.WINDOW_SIZE = 7
    swin.MLP_RATIO = 4.0
    swin.QKV_BIAS = True
    swin.QK_SCALE = None  # None: one over the square root of the head width
    swin.DROP_RATE = 0.0
    swin.ATTN_DROP_RATE = 0.0
    swin.DROP_PATH_RATE = 0.3
    swin.APE = False
    swin.PATCH_NORM = True
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # Accepted for compatibility, unused.
    swin.NORM_INDICES = None
    swin.PROJECTION = False
    swin.PROJECT_DIM = 256


def _add_clip_adapter(cfg: CfgNode) -> None:
    """Settings of the CLIP branch: prompts, regions, mask prompt, ensemble."""
    clip = cfg.MODEL.CLIP_ADAPTER = CfgNode()
    clip.TEXT_TEMPLATES = "vild"  # "vild" (14), "imagenet" (80) or "predefined"
    clip.PREDEFINED_PROMPT_TEMPLATES = ["a photo of a {}."]
    # Ours: what stands for a class in the templates. "list": the strings that its class list gives
    # it (some give the background several), else its name as it is, commas included, as the paper
    # does; "none": always the name; a separator such as ",": the parts of the name, averaged.
    clip.SYNONYMS = "list"
    clip.PROMPT_CHECKPOINT = ""  # accepted for compatibility, unused
    # An OpenAI name ("ViT-L/14"), an open_clip name, a shipped name ("ovseg-tiny") or an
    # open_clip model config (.json).
    clip.CLIP_MODEL_NAME = "ViT-B/16"
    # Ours: file that CLIP starts from; a full checkpoint brings its own. In training also a name of
    # the catalogue, "" for OpenAI's weights of CLIP_MODEL_NAME, "random" for none.
    clip.CLIP_WEIGHTS = ""
    # Ours: crops per forward of the image tower; bounds memory, changes no result.
    clip.CHUNK_SIZE = 32
    clip.MASK_FILL = "mean"  # background of a region: CLIP's "mean" colour, or "zero"
    clip.MASK_EXPAND_RATIO = 1.0  # of a region's box; 1.0 is tight
    clip.MASK_THR = 0.4  # a pixel belongs to a region above this mask probability
    clip.MASK_MATTING = False  # soft masks instead of binary ones
    clip.REGION_RESIZED = True
    clip.CLIP_ENSEMBLE = True  # False: the mask classifier alone
    clip.CLIP_ENSEMBLE_WEIGHT = 0.7  # share of CLIP; 0 means CLIP alone (as upstream)
    clip.MASK_PROMPT_DEPTH = 3
    clip.MASK_PROMPT_FWD = False  # whether masked patches are replaced by the learned prompt


def _add_test(cfg: CfgNode) -> None:
    """Settings of evaluation."""
    test = cfg.TEST
    # Ours: "labels" (a label map made in bands, little memory) or "sem_seg" (all K score maps).
    test.OUTPUT = "labels"
    test.SLIDING_WINDOW = False
    test.SLIDING_TILE_SIZE = 224
    test.SLIDING_OVERLAP = 2 / 3
    test.DENSE_CRF = False
    # Ours: how the ensemble's settings were chosen, in words; stays with every result. What
    # tools/tune_ensemble.py prints.
    test.TUNED_ON = ""
    # Ours: the published row that an evaluation is held against, and what its protocol says. An
    # evaluation on a data set with another background rule or ignore value is refused.
    protocol = test.PROTOCOL = CfgNode()
    protocol.ROW = ""  # such as "A-150"
    # "none": every pixel that counts is of a named class; "class": one class is the background.
    protocol.BACKGROUND = ""
    protocol.IGNORE_VALUE = -1  # of the label maps
    protocol.CONVENTION = ""  # of the reported mIoU: "ovseg" or "detectron2"
    protocol.REPORTED = None  # mIoU in percent, where the row is published
