"""Keys without effect: accepted because Detectron2's and the released configs carry them.

This is the one place that lists them; `load_cfg` warns where a config sets one to something else
than its default. Names and defaults are Detectron2's (version 0.6), its DeepLab project's and the
released OVSeg's, so that their configs, and those that their runs write out in full, can be loaded.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

from ovseg.d2.config import CfgNode
from ovseg.d2.utils import log_first_n

__all__ = ["WITHOUT_EFFECT", "add_keys_without_effect", "warn_of_keys_without_effect"]

_NO_DETECTION = "of detection; there are no boxes, instances or keypoints here"
_NO_PROPOSALS = "of detectors that read proposals from files"
_NO_REPETITION = "of a sampler that repeats rare categories; every picture comes once per pass"
_NO_DEFORMATION = "of deformable convolutions, which are not implemented"
_NO_DEEPLAB_HEAD = "of DeepLab's own head; only its backbone is here"
_NO_PANOPTIC = "of panoptic inference; masks become semantic maps only"
_NO_PRECISE_BN = "batch norms keep their running statistics"
_NO_SAMPLING = "all pictures of a training set are used"

# Key -> (default, why it has no effect).
WITHOUT_EFFECT: dict[str, tuple[Any, str]] = {
    "DATALOADER.FILTER_EMPTY_ANNOTATIONS": (True, "a label map always has annotations"),
    "DATALOADER.REPEAT_SQRT": (True, _NO_REPETITION),
    "DATALOADER.REPEAT_THRESHOLD": (0.0, _NO_REPETITION),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST": (1000, _NO_PROPOSALS),
    "DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TRAIN": (2000, _NO_PROPOSALS),
    "DATASETS.PROPOSAL_FILES_TEST": ((), _NO_PROPOSALS),
    "DATASETS.PROPOSAL_FILES_TRAIN": ((), _NO_PROPOSALS),
    "DATASETS.SAMPLE_PER_CLASS": (-1, _NO_SAMPLING),
    "DATASETS.SAMPLE_SEED": (0, _NO_SAMPLING),
    "GLOBAL.HACK": (1.0, "a spare number of Detectron2's for experiments"),
    "INPUT.MASK_FORMAT": ("polygon", "masks come from label maps"),
    "MODEL.CLIP_ADAPTER.PROMPT_CHECKPOINT": ("", "text prompts are templates, not learned"),
    "MODEL.KEYPOINT_ON": (False, _NO_DETECTION),
    "MODEL.LOAD_PROPOSALS": (False, _NO_PROPOSALS),
    "MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD": (0.0, _NO_PANOPTIC),
    "MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD": (0.0, _NO_PANOPTIC),
    "MODEL.MASK_FORMER.TEST.PANOPTIC_ON": (False, _NO_PANOPTIC),
    "MODEL.MASK_FORMER.TEST.SEM_SEG_POSTPROCESSING_BEFORE_INFERENCE": (
        False,
        "masks are merged into class scores first, then resized",
    ),
    "MODEL.MASK_ON": (False, _NO_DETECTION),
    "MODEL.RESNETS.DEFORM_MODULATED": (False, _NO_DEFORMATION),
    "MODEL.RESNETS.DEFORM_NUM_GROUPS": (1, _NO_DEFORMATION),
    "MODEL.SEM_SEG_HEAD.ASPP_CHANNELS": (256, _NO_DEEPLAB_HEAD),
    "MODEL.SEM_SEG_HEAD.ASPP_DILATIONS": ([6, 12, 18], _NO_DEEPLAB_HEAD),
    "MODEL.SEM_SEG_HEAD.ASPP_DROPOUT": (0.1, _NO_DEEPLAB_HEAD),
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": (4, "masks have the stride of the finest feature map"),
    "MODEL.SEM_SEG_HEAD.LOSS_TYPE": ("hard_pixel_mining", _NO_DEEPLAB_HEAD),
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": (1.0, "MASK_FORMER's weights scale each loss"),
    "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS": ([48], _NO_DEEPLAB_HEAD),
    "MODEL.SEM_SEG_HEAD.PROJECT_FEATURES": (["res2"], _NO_DEEPLAB_HEAD),
    "MODEL.SEM_SEG_HEAD.USE_DEPTHWISE_SEPARABLE_CONV": (False, _NO_DEEPLAB_HEAD),
    "MODEL.SWIN.PROJECT_DIM": (256, "of MODEL.SWIN.PROJECTION, which must be False"),
    "SOLVER.BIAS_LR_FACTOR": (1.0, "biases learn at the rate of their module's weights"),
    "SOLVER.NUM_DECAYS": (3, "of a schedule that is not implemented; STEPS says when to decay"),
    "SOLVER.REFERENCE_WORLD_SIZE": (0, "IMS_PER_BATCH is never rescaled to the processes"),
    "SOLVER.RESCALE_INTERVAL": (False, "intervals count iterations, whatever the batch size"),
    "TEST.DETECTIONS_PER_IMAGE": (100, _NO_DETECTION),
    "TEST.KEYPOINT_OKS_SIGMAS": ([], _NO_DETECTION),
    "TEST.PRECISE_BN.ENABLED": (False, _NO_PRECISE_BN),
    "TEST.PRECISE_BN.NUM_ITER": (200, _NO_PRECISE_BN),
    "VERSION": (2, "configs of Detectron2's version 1 are not converted"),
    "VIS_PERIOD": (0, "nothing is drawn while training"),
}


def add_keys_without_effect(cfg: CfgNode) -> None:
    """Add the keys that the backend's own config lacks, with their defaults.

    Args:
        cfg: changed in place.
    """
    for key, (default, _) in WITHOUT_EFFECT.items():
        *sections, name = key.split(".")
        node = cfg
        for section in sections:
            node = node.setdefault(section, CfgNode())
        if name not in node:
            node[name] = copy.deepcopy(default)


def warn_of_keys_without_effect(cfg: CfgNode) -> None:
    """Warn once of every key that is set to something else than its default and does nothing.

    Args:
        cfg: a full config.
    """
    for key, (default, why) in WITHOUT_EFFECT.items():
        value: Any = cfg
        for name in key.split("."):
            value = value[name]
        if value != default:
            log_first_n(
                logging.WARNING,
                f"{key} is set to {value!r} and has no effect: {why}",
                key="message",
                name=__name__,
            )
