"""Default and meaning of every setting that this package adds to Detectron2's.

Key names and values follow OVSeg (Liang et al., CVPR 2023, arXiv 2210.04150) and the DeepLab
settings it builds on; keys marked "ours" are this package's own. Those of Detectron2 are explained
in `ovseg/d2/_lite/defaults.py`, those without effect are listed in `ovseg/config/compatibility.py`;
a method outside this package's core adds its own (see `ovseg.config.load`).
"""

from __future__ import annotations

import torch

from ovseg.config.compatibility import add_keys_without_effect
from ovseg.d2.config import CfgNode, get_cfg

__all__ = ["add_keys", "get_default_cfg"]


def get_default_cfg() -> CfgNode:
    """Return a fresh config with the default of every key, under either backend.

    Returns:
        A mutable config node; `MODEL.DEVICE` is "cuda" where there is a GPU, else "cpu".
    """
    cfg = get_cfg()
    add_keys(cfg)
    return cfg


def add_keys(cfg: CfgNode) -> None:
    """Add every key of this package with its default to a config of Detectron2's.

    Args:
        cfg: changed in place; `MODEL.DEVICE` "cuda", the default, becomes "cpu" without a GPU.
    """
    if cfg.MODEL.DEVICE == "cuda" and not torch.cuda.is_available():
        cfg.MODEL.DEVICE = "cpu"  # a GPU where there is one
    # Which method; `ovseg.d2.methods` knows where each lives.
    cfg.MODEL.META_ARCHITECTURE = "OVSeg"
    # Ours: what evaluation and prediction load where MODEL.WEIGHTS says what training starts from.
    # Whoever sets MODEL.WEIGHTS, in a file or on the command line, means that and drops this.
    cfg.MODEL.TRAINED_WEIGHTS = ""
    _add_deeplab(cfg)
    _add_input(cfg)
    _add_solver(cfg)
    _add_mask_former(cfg)
    _add_swin(cfg)
    _add_timm(cfg)
    _add_clip_adapter(cfg)
    _add_test(cfg)
    add_keys_without_effect(cfg)


def _add_deeplab(cfg: CfgNode) -> None:
    """Settings of DeepLab that the R-101c backbone reads."""
    resnets = cfg.MODEL.RESNETS
    resnets.RES4_DILATION = 1  # 2: res4 has the stride of res3 and is dilated instead
    resnets.RES5_MULTI_GRID = [1, 2, 4]  # dilation of the three blocks of res5
    resnets.STEM_TYPE = "deeplab"  # "basic": one 7x7 convolution; "deeplab": three 3x3


def _add_input(cfg: CfgNode) -> None:
    """Settings of what the model sees in training."""
    # Images are RGB everywhere in this package; Detectron2's default, "BGR", is refused.
    cfg.INPUT.FORMAT = "RGB"
    # What turns a dataset entry into a training sample: a name in the registry of
    # `ovseg.data.mappers`, which a method's module may add to.
    cfg.INPUT.DATASET_MAPPER_NAME = "mask_former_semantic"
    # Random brightness, contrast, saturation and hue as in SSD.
    cfg.INPUT.COLOR_AUG_SSD = False
    # Pad training images to a square of this side; -1 for no padding.
    cfg.INPUT.SIZE_DIVISIBILITY = -1
    # Ours: segments that look like no class, with a mask and no label (queries from points only).
    cfg.INPUT.SEGMENT_AUG = CfgNode()
    cfg.INPUT.SEGMENT_AUG.ENABLED = False  # whether to make any
    cfg.INPUT.SEGMENT_AUG.CHANGED = 0.3  # chance of a segment to get other colours or a texture
    cfg.INPUT.SEGMENT_AUG.PASTED = 2  # random shapes that are pasted at most
    # Redraw a crop while one class covers more than this share of it; 1.0 accepts any crop.
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0


def _add_solver(cfg: CfgNode) -> None:
    """Settings of the optimizer, the schedule and logging."""
    solver = cfg.SOLVER
    solver.OPTIMIZER = "ADAMW"  # or "SGD", or "MUON" (Muon for matrices, AdamW for the rest)
    solver.ADAM_BETAS = [0.9, 0.999]  # ours: decay rates of AdamW's first and second moment
    solver.ADAM_EPS = 1e-8  # ours: what is added to the root of the second
    solver.MUON_MULTIPLIER = 1.0  # on the learning rate of Muon's matrices
    solver.MUON_CONVOLUTIONS = False  # ours: whether convolutions count as matrices
    # Learning rate of parameters whose module name contains "backbone", relative to BASE_LR.
    solver.BACKBONE_MULTIPLIER = 0.1
    solver.WEIGHT_DECAY_EMBED = 0.0  # of embeddings
    solver.TEST_IMS_PER_BATCH = 1  # pictures per forward of an evaluation, in each process
    solver.POLY_LR_POWER = 0.9  # WarmupPolyLR: the rate falls as (1 - iteration / MAX_ITER) to this
    # WarmupPolyLR: the rate never falls below this share of BASE_LR.
    solver.POLY_LR_CONSTANT_ENDING = 0.0
    # Ours: WarmupShareCosineLR warms up over this share of all iterations.
    solver.WARMUP_SHARE = 0.0
    # Ours: a step whose losses or gradients are not finite changes no parameter and training goes
    # on; otherwise it ends the run.
    solver.SKIP_NON_FINITE = False
    # Ours: parts that the images of one step are cut into, one forward and backward each; saves
    # memory, changes no gradient. IMS_PER_BATCH stays the number of images per step.
    solver.ACCUMULATION_STEPS = 1
    # Ours: iterations between two lines of progress and of metrics.json.
    solver.LOG_PERIOD = 20
    # Ours: checkpoints to keep, the newest ones; 0 keeps all.
    solver.CHECKPOINTS_KEPT = 3
    # Ours: "float16" (scaled losses) or "bfloat16", where SOLVER.AMP.ENABLED.
    solver.AMP.DTYPE = "float16"
    solver.EMA = CfgNode()
    # Ours: keep an exponential moving average of the weights and evaluate it in their place.
    solver.EMA.ENABLED = False
    # Ours: share of the average that stays after each iteration.
    solver.EMA.DECAY = 0.9998

    cfg.WANDB = CfgNode()
    # Weights & Biases, where it is installed and WANDB_API_KEY or WANDB_MODE is set: its project.
    cfg.WANDB.PROJECT = "open_vocab_seg"
    cfg.WANDB.NAME = None  # of the run; None lets W&B choose


def _add_mask_former(cfg: CfgNode) -> None:
    """Settings of MaskFormer: losses, transformer, pixel decoder, class embedding."""
    # Ours: "semantic", "demo", or "" for what META_ARCHITECTURE implies (OVSegDEMO: "demo").
    cfg.MODEL.INFERENCE_MODE = ""

    mask_former = cfg.MODEL.MASK_FORMER = CfgNode()
    # Ours: "learned" queries, matched to segments as upstream has it; or "points": queries made
    # from the features of pixels, each asked for the segment that its pixel lies in.
    mask_former.QUERIES = "learned"
    points = mask_former.POINTS = CfgNode()
    points.PER_IMAGE = 12  # drawn on the segments of each training picture
    points.QUALITY_WEIGHT = 1.0  # of the squared error of a mask's expected IoU
    points.CLASS_WEIGHT = 1.0  # of the cross-entropy of pixels over the training classes
    # Of one minus the cosine of a pixel's embedding and its class's text; open vocabulary only.
    points.ALIGNMENT_WEIGHT = 1.0
    points.GRID = 14  # points along each side of a picture that is segmented
    points.NMS_IOU = 0.7  # a mask that overlaps a better one by this much is left out
    points.STABILITY_OFFSET = 1.0  # of logits: how much the cut moves to tell whether a mask stays
    mask_former.DEEP_SUPERVISION = True  # losses on every decoder layer
    mask_former.NO_OBJECT_WEIGHT = 0.1  # of "no object" in the classification loss
    # Whether ignored pixels and padding count as negatives of every mask (upstream) or as nothing.
    mask_former.IGNORED_AS_NEGATIVE = True
    mask_former.DICE_WEIGHT = 1.0  # of the dice loss of masks, in matching too
    # Of the focal loss of masks, in matching too; with points of their binary cross-entropy.
    mask_former.MASK_WEIGHT = 20.0
    mask_former.NHEADS = 8  # attention heads of the transformer
    mask_former.DROPOUT = 0.1  # in the transformer, while training
    mask_former.DIM_FEEDFORWARD = 2048  # width inside its feed-forward blocks
    mask_former.ENC_LAYERS = 0  # its encoder layers over the input feature
    mask_former.DEC_LAYERS = 6  # its decoder layers over the queries
    mask_former.PRE_NORM = False  # normalise before each block instead of after
    mask_former.HIDDEN_DIM = 256  # width of the transformer and of each query
    mask_former.NUM_OBJECT_QUERIES = 100  # masks per picture; with points at most
    # What the queries look at: a feature of the backbone, or "transformer_encoder" for the
    # transformer pixel decoder's.
    mask_former.TRANSFORMER_IN_FEATURE = "res5"
    mask_former.ENFORCE_INPUT_PROJ = False  # project the input even where its width fits
    # Images are padded to multiples of this; negative takes the backbone's need.
    mask_former.SIZE_DIVISIBILITY = 32

    head = cfg.MODEL.SEM_SEG_HEAD
    head.MASK_DIM = 256  # channels of the mask features that queries are compared with
    head.TRANSFORMER_ENC_LAYERS = 0  # of the transformer pixel decoder
    head.PIXEL_DECODER_NAME = "BasePixelDecoder"  # or "TransformerEncoderPixelDecoder"
    head.EMBEDDING_DIM = 512  # width of CLIP's joint space
    head.EMBED_HIDDEN_DIM = 1024  # width inside the MLP that maps a query to that space
    head.EMBED_LAYERS = 2  # linear layers of that MLP


def _add_swin(cfg: CfgNode) -> None:
    """Settings of the Swin backbone; the defaults are Swin-T's."""
    swin = cfg.MODEL.SWIN = CfgNode()
    swin.PRETRAIN_IMG_SIZE = 224  # sizes the absolute position embedding, where APE
    swin.PATCH_SIZE = 4  # pixels on a side, of one input token
    swin.EMBED_DIM = 96  # channels of the first stage; each further one has twice as many
    swin.DEPTHS = [2, 2, 6, 2]  # blocks of each stage
    swin.NUM_HEADS = [3, 6, 12, 24]  # attention heads of each stage
    swin.WINDOW_SIZE = 7  # tokens on a side, of one attention window
    swin.MLP_RATIO = 4.0  # width inside a block's MLP over the stage's channels
    swin.QKV_BIAS = True  # whether queries, keys and values have a learned bias
    swin.QK_SCALE = None  # None: one over the square root of the head width
    swin.DROP_RATE = 0.0  # dropout of tokens and of the MLPs
    swin.ATTN_DROP_RATE = 0.0  # dropout of attention weights
    swin.DROP_PATH_RATE = 0.3  # stochastic depth: chance to skip the last block, less before
    swin.APE = False  # an absolute position embedding on top of the relative biases
    swin.PATCH_NORM = True  # normalise the input tokens
    swin.OUT_FEATURES = ["res2", "res3", "res4", "res5"]  # stages whose features are given out
    swin.NORM_INDICES = None  # anything else is refused: one LayerNorm per output, as released
    swin.PROJECTION = False  # anything else is refused: outputs are not projected, as released


def _add_timm(cfg: CfgNode) -> None:
    """Settings of the backbone "TimmBackbone"; all ours."""
    timm = cfg.MODEL.TIMM = CfgNode()
    timm.NAME = "resnet18"  # as timm.create_model takes it
    timm.OPTIONS = CfgNode(new_allowed=True)  # further arguments of the model
    timm.OUT_FEATURES = ["res2", "res3", "res4", "res5"]  # strides 4 to 32; "res1" has stride 2


def _add_clip_adapter(cfg: CfgNode) -> None:
    """Settings of the CLIP branch: prompts, regions, mask prompt, ensemble."""
    clip = cfg.MODEL.CLIP_ADAPTER = CfgNode()
    clip.TEXT_TEMPLATES = "vild"  # "vild" (14), "imagenet" (80), "pacl7" (7) or "predefined"
    # The templates of "predefined"; {} stands for a name.
    clip.PREDEFINED_PROMPT_TEMPLATES = ["a photo of a {}."]
    # Ours: what stands for a class in the templates. "list": the strings that its class list gives
    # it (some give the background several), else its name as it is, commas included, as the paper
    # does; "none": always the name; a separator such as ",": the parts of the name, averaged.
    clip.SYNONYMS = "list"
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
    clip.REGION_RESIZED = True  # a region is resized to CLIP's input; False is refused
    clip.CLIP_ENSEMBLE = True  # False: the mask classifier alone
    clip.CLIP_ENSEMBLE_WEIGHT = 0.7  # share of CLIP; 0 means CLIP alone (as upstream)
    # Ours: another share for names that the masks were not trained with; below 0: the same.
    clip.CLIP_ENSEMBLE_WEIGHT_UNSEEN = -1.0
    # Ours: the class list (ovseg/vocab/classes) whose seen classes the masks were trained with.
    clip.TRAINED_NAMES = ""
    # Ours: further names that they were trained with; training on a dataset of one's own adds its
    # classes, and keeps both in config.yaml.
    clip.TRAINED_CLASSES = []
    clip.MASK_PROMPT_DEPTH = 3  # layers of the image tower that have a learned mask prompt
    clip.MASK_PROMPT_FWD = False  # whether masked patches are replaced by the learned prompt


def _add_test(cfg: CfgNode) -> None:
    """Settings of evaluation."""
    test = cfg.TEST
    # Ours: "labels" (a label map made in bands, little memory) or "sem_seg" (all K score maps).
    test.OUTPUT = "labels"
    test.SLIDING_WINDOW = False  # segment in overlapping tiles and average their scores
    test.SLIDING_TILE_SIZE = 224  # side in the resized picture; 0 chooses by its shorter side
    test.SLIDING_OVERLAP = 2 / 3  # share of a tile that the next one covers again
    test.DENSE_CRF = False  # sharpen the label map by a dense CRF (takes the extra "crf")
    # Ours: savings that change a small share of the labels; docs/performance.md has what each is
    # worth and keeps.
    fast = test.FAST = CfgNode()
    fast.ENABLED = False  # whether the others count
    # Of CLIP's image tower: "float32", "bfloat16", "int8" (CPUs), or "auto": bfloat16 where the
    # hardware multiplies it, else int8 on a CPU that can, else float32.
    fast.PRECISION = "auto"
    # Patches outside of a region go on in fours after this share of the tower's blocks; 1: never.
    fast.MERGE_AFTER = 0.5
    # A mask that nowhere has more than this share of all masks' values is named as the one that it
    # overlaps most; 0: none is.
    fast.MIN_SHARE = 0.06
    fast.REST = 0.005  # share of the picture where all such masks together may have more
    # Ours: how the ensemble's settings were chosen, in words; stays with every result. What
    # tools/tune_ensemble.py prints.
    test.TUNED_ON = ""
    # Ours: the published row that an evaluation is held against, and what its protocol says. An
    # evaluation on a dataset with another background rule or ignore value is refused.
    protocol = test.PROTOCOL = CfgNode()
    protocol.ROW = ""  # name of the row, such as "A-150"
    # "none": every pixel that counts is of a named class; "class": one class is the background.
    protocol.BACKGROUND = ""
    protocol.IGNORE_VALUE = -1  # of the label maps
    protocol.CONVENTION = ""  # of the reported mIoU: "ovseg" or "detectron2"
    protocol.REPORTED = None  # mIoU in percent, where the row is published
