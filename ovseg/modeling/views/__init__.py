"""Several looks at one picture, merged: tiles, scales and flips, a dense CRF.

Each view is a segmentor around a segmentor: inputs and vocabulary in, a prediction out.
"""

from __future__ import annotations

from ovseg.d2.config import CfgNode
from ovseg.modeling.segmentor import Segmentor
from ovseg.modeling.views.augmentation import AugmentedSegmentor
from ovseg.modeling.views.dense_crf import DenseCRF
from ovseg.modeling.views.tiles import SlidingWindow

__all__ = ["AugmentedSegmentor", "DenseCRF", "SlidingWindow", "build_views"]


def build_views(cfg: CfgNode, model: Segmentor) -> Segmentor:
    """Wraps a model in the views that `cfg.TEST` asks for, tiles innermost, the CRF outermost.

    Args:
        cfg: full configuration.
        model: the segmentor.

    Returns:
        The outermost view, or the model itself.

    Raises:
        ImportError: TEST.DENSE_CRF without the extra `crf`.
    """
    if cfg.TEST.SLIDING_WINDOW:
        model = SlidingWindow.from_config(cfg, model)
    if cfg.TEST.AUG.ENABLED:
        model = AugmentedSegmentor.from_config(cfg, model)
    return DenseCRF(model) if cfg.TEST.DENSE_CRF else model
