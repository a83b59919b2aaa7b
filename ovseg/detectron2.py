"""For users of Detectron2: keys for their config, a predictor in their form, names registered.

Importing this module registers OVSeg and MaskFormer in the registries of Detectron2 (of the real
one or of the subset that stands in, see `ovseg.d2`) and the benchmarks in its catalogues, below
`DETECTRON2_DATASETS` as it stands at that moment. Nothing else in this package registers datasets
when it is imported. `docs/from_detectron2.md` says what maps to what.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

import ovseg.modeling.mask_former
import ovseg.modeling.ovseg  # noqa: F401  registers, as the one above
from ovseg.config.defaults import add_keys
from ovseg.d2.config import CfgNode
from ovseg.d2.data import MetadataCatalog
from ovseg.data.catalog import register_builtin
from ovseg.data.dataset_yaml import resolve_dataset
from ovseg.predictor import load
from ovseg.vocab import Names, Vocabulary

__all__ = ["OVSegPredictor", "add_ovseg_config"]

register_builtin()


def add_ovseg_config(cfg: CfgNode) -> None:
    """Add the keys of OVSeg and of MaskFormer, with their defaults, to a config.

    Those of Detectron2's DeepLab project are among them, so that its `add_deeplab_config` may be
    called or not. `TEST.OUTPUT` becomes "sem_seg": results carry the scores of all classes, which
    Detectron2's evaluators and visualiser expect.

    Args:
        cfg: a fresh config of Detectron2's `get_cfg`, or of `ovseg.d2.config.get_cfg`; changed in
            place.
    """
    add_keys(cfg)
    cfg.TEST.OUTPUT = "sem_seg"


class OVSegPredictor:
    """Segments one picture after the other, in the form of Detectron2's `DefaultPredictor`.

    Differs from it in three ways: the weights may be a name of the catalogue, an address or a
    safetensors file, they must fit exactly, and each call may name its own classes.

    Args:
        cfg: a full config. `MODEL.WEIGHTS` says what is loaded; where it is still the released
            backbone that the training of a shipped config starts from, `MODEL.TRAINED_WEIGHTS`.

    Attributes:
        cfg: a copy of the config.
        model: the model, in evaluation mode, in the views of `cfg.TEST`.
        metadata: of the first dataset in `DATASETS.TEST`, where there is one; a name, or the path
            of a dataset's YAML file.

    Raises:
        ValueError: the config lacks our keys, the architecture is none of this package's, no
            weights are named, or the device does not exist.
        ovseg.weights.load.WeightsError: they do not fit the model.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg.clone()
        if len(cfg.DATASETS.TEST):
            self.metadata = MetadataCatalog.get(resolve_dataset(cfg.DATASETS.TEST[0]))
        self._predictor = load(config=self.cfg)
        self.model = self._predictor.model

    @torch.no_grad()
    def __call__(
        self, original_image: np.ndarray, class_names: Names | str | None = None
    ) -> dict[str, Tensor]:
        """Segment a picture.

        Args:
            original_image: (H, W, 3) uint8 BGR, as OpenCV reads it.
            class_names: K names, alone or with synonyms, or a benchmark's name, see
                `ovseg.predictor.Predictor.vocabulary`; None for the classes of the first dataset
                in `DATASETS.TEST`.

        Returns:
            {"sem_seg": (K, H, W) float32 scores}, whose largest is a pixel's class; or, with
            `TEST.OUTPUT` "labels", {"labels": (H, W) int64}.

        Raises:
            ValueError: unusable image or names, or neither names nor a dataset.
        """
        if not isinstance(original_image, np.ndarray):
            raise ValueError(
                "original_image: expected an array (H, W, 3), BGR, got a "
                f"{type(original_image).__name__}; cv2.imread gives None for what it cannot read"
            )
        vocabulary = self._vocabulary(class_names)
        encoding = self._predictor.set_image(original_image, image_format="BGR").encoding
        prediction = self.model.decode(encoding, vocabulary)
        if self.cfg.TEST.OUTPUT == "labels":
            return {"labels": prediction.labels()}
        return {"sem_seg": prediction.sem_seg()}

    def _vocabulary(self, class_names: Names | str | None) -> Vocabulary:
        if class_names is not None:
            return self._predictor.vocabulary(class_names)
        if not len(self.cfg.DATASETS.TEST):
            raise ValueError(
                "class_names: expected names, as DATASETS.TEST names no dataset that has some; "
                'call predictor(image, ["sky", "tree"]) or set DATASETS.TEST'
            )
        return self.model.find_vocabulary([{"meta": {"dataset_name": self.metadata.name}}])
