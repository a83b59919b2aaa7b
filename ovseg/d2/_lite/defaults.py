"""Default and meaning of Detectron2's keys that a segmentation model, its data and training read.

Names and values are Detectron2's (version 0.6), so a config written for one backend means the
same under the other. Keys of detectors (RPN, ROI heads, anchors) are left out, and those that
nothing here reads are listed in `ovseg/config/compatibility.py`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["DEFAULTS"]

_RESNETS: dict[str, Any] = {
    "DEPTH": 50,  # 50, 101 or 152 layers
    "OUT_FEATURES": ["res4"],  # stages whose features are given out
    "NUM_GROUPS": 1,  # of the grouped 3x3 convolutions; more than 1 makes it a ResNeXt
    "NORM": "FrozenBN",  # normalisation: "FrozenBN", "BN", "SyncBN", "GN", "LN" or ""
    "WIDTH_PER_GROUP": 64,  # channels of a group inside the blocks of res2
    "STRIDE_IN_1X1": True,  # stride in a block's first 1x1 convolution (MSRA), else in the 3x3
    "RES5_DILATION": 1,  # 2 or 4: res5 has the stride of res4 and is dilated instead
    "RES2_OUT_CHANNELS": 256,  # channels of res2; each further stage has twice as many
    "STEM_OUT_CHANNELS": 64,  # channels after the stem
    # Deformable convolutions per stage; anything but False is refused.
    "DEFORM_ON_PER_STAGE": [False, False, False, False],
}

_SEM_SEG_HEAD: dict[str, Any] = {
    "NAME": "SemSegFPNHead",  # a registered head, such as "OpenVocabMaskFormerHead"
    "IN_FEATURES": ["p2", "p3", "p4", "p5"],  # features of the backbone that the head takes
    "IGNORE_VALUE": 255,  # label of pixels without a class, where the dataset states none
    "NUM_CLASSES": 54,  # classes of the training set
    "CONVS_DIM": 128,  # channels of the pixel decoder's convolutions
    "NORM": "GN",  # their normalisation, as of RESNETS.NORM
}

_MODEL: dict[str, Any] = {
    "DEVICE": "cuda",  # "cuda", "cuda:1", "cpu", ...
    "META_ARCHITECTURE": "GeneralizedRCNN",  # which method
    "WEIGHTS": "",  # file, address or catalogue name of the weights to start from or to evaluate
    "PIXEL_MEAN": [103.530, 116.280, 123.675],  # taken from the pixels, per channel, 0-255
    "PIXEL_STD": [1.0, 1.0, 1.0],  # what they are divided by then
    "BACKBONE": {
        "NAME": "build_resnet_backbone",  # a registered backbone, such as "D2SwinTransformer"
        "FREEZE_AT": 2,  # ResNet: stages that are not trained, 1 the stem, 2 also res2, 0 none
    },
    "SEM_SEG_HEAD": _SEM_SEG_HEAD,
    "RESNETS": _RESNETS,
}

_INPUT: dict[str, Any] = {
    "MIN_SIZE_TRAIN": (800,),  # lengths of the shorter edge in training
    "MIN_SIZE_TRAIN_SAMPLING": "choice",  # one of them, or "range": between the two given
    "MAX_SIZE_TRAIN": 1333,  # the longer edge is at most this in training
    "MIN_SIZE_TEST": 800,  # length of the shorter edge in inference; 0 keeps the picture's size
    "MAX_SIZE_TEST": 1333,  # the longer edge is at most this in inference
    "RANDOM_FLIP": "horizontal",  # in training, of half the pictures; or "none"
    "CROP": {
        "ENABLED": False,  # cut a part out of each training picture
        "TYPE": "relative_range",  # here "absolute" only: SIZE is in pixels
        "SIZE": [0.9, 0.9],  # height and width of the part
    },
    "FORMAT": "BGR",  # order of the channels; here "RGB" only
}

_DATASETS: dict[str, Any] = {
    "TRAIN": (),  # training sets with the same classes, by name or as path of a YAML file
    "TEST": (),  # datasets to evaluate, likewise
}

_DATALOADER: dict[str, Any] = {
    "NUM_WORKERS": 4,  # processes that prepare pictures, per training process; 0: none
    "ASPECT_RATIO_GROUPING": True,  # batches of wide or of tall pictures only, to pad less
    "SAMPLER_TRAIN": "TrainingSampler",  # this one only: a new random order in every pass
}

_SOLVER: dict[str, Any] = {
    "LR_SCHEDULER_NAME": "WarmupMultiStepLR",  # or "WarmupPolyLR" or "WarmupCosineLR"
    "MAX_ITER": 40000,  # length of the training, in steps of the optimizer
    "BASE_LR": 0.001,  # learning rate after the warm-up
    "BASE_LR_END": 0.0,  # WarmupCosineLR: the rate it ends at
    "MOMENTUM": 0.9,  # of SGD
    "NESTEROV": False,  # SGD with Nesterov's momentum
    "WEIGHT_DECAY": 0.0001,  # of all parameters but those of normalisations and embeddings
    "WEIGHT_DECAY_NORM": 0.0,  # of the parameters of normalisations
    "WEIGHT_DECAY_BIAS": None,  # of other biases and of scalars; None: WEIGHT_DECAY
    "GAMMA": 0.1,  # WarmupMultiStepLR: factor on the rate at each of STEPS
    "STEPS": (30000,),  # WarmupMultiStepLR: iterations at which the rate falls
    "WARMUP_FACTOR": 1.0 / 1000,  # share of the rate that the warm-up starts at
    "WARMUP_ITERS": 1000,  # length of the warm-up
    "WARMUP_METHOD": "linear",  # or "constant": WARMUP_FACTOR until it ends
    "CHECKPOINT_PERIOD": 5000,  # iterations between two checkpoints
    "IMS_PER_BATCH": 16,  # pictures per step, over all processes
    "CLIP_GRADIENTS": {
        "ENABLED": False,  # limit gradients before each step
        # "value": each number; "norm": each parameter's norm; "full_model": the norm of all
        # gradients together.
        "CLIP_TYPE": "value",
        "CLIP_VALUE": 1.0,  # the limit
        "NORM_TYPE": 2.0,  # order of the norm, for "norm"
    },
    "AMP": {"ENABLED": False},  # mixed precision in training
}

_TEST: dict[str, Any] = {
    # Rows of task, metric, value and tolerance that an evaluation must meet, or it fails.
    "EXPECTED_RESULTS": [],
    "EVAL_PERIOD": 0,  # iterations between two evaluations in training; 0: only at its end
    "AUG": {
        "ENABLED": False,  # average the scores over scales
        "MIN_SIZES": (400, 500, 600, 700, 800, 900, 1000, 1100, 1200),  # their shorter edges
        "MAX_SIZE": 4000,  # the longer edge is at most this
        "FLIP": True,  # also of the mirrored picture, at each scale
    },
}

DEFAULTS: dict[str, Any] = {
    "MODEL": _MODEL,
    "INPUT": _INPUT,
    "DATASETS": _DATASETS,
    "DATALOADER": _DATALOADER,
    "SOLVER": _SOLVER,
    "TEST": _TEST,
    "OUTPUT_DIR": "./output",  # folder for all that a run leaves
    "SEED": -1,  # of all random choices; negative draws one and keeps it in config.yaml
    "CUDNN_BENCHMARK": False,  # let cuDNN measure which algorithm is fastest; not deterministic
    "FLOAT32_PRECISION": "",  # of CUDA's matrix products: "highest", "high" or "medium"
}
