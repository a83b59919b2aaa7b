"""Label maps that follow the picture's edges: a fully connected CRF over the scores.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (NeurIPS 2011), with the settings of OVSeg's released code. The inference is that of
`pydensecrf2`, the extra `crf`, which is built from source: it takes a C++ compiler.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.modeling.prediction import DensePrediction
from ovseg.modeling.segmentor import Encoding, Inputs, Segmentor
from ovseg.modeling.views.view import View, ViewEncoding, original_image
from ovseg.vocab import Vocabulary

__all__ = ["DenseCRF", "refine_scores", "require_dense_crf"]

ITERATIONS = 5
# Neighbours alike: standard deviation in pixels, weight.
SMOOTHNESS = {"sxy": 3, "compat": 3}
# Pixels of one colour alike: standard deviations in pixels and in 8-bit colour, weight.
APPEARANCE = {"sxy": 80, "srgb": 13, "compat": 10}


def require_dense_crf() -> Any:
    """Import the module that does the inference.

    Returns:
        `pydensecrf.densecrf`.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise ImportError(
            "TEST.DENSE_CRF: expected the package pydensecrf2, which is not installed; run "
            "pip install 'ovseg[crf]' (it is compiled on the spot and needs a C++ compiler), or "
            "set TEST.DENSE_CRF False"
        ) from error
    return densecrf


def refine_scores(image: np.ndarray, scores: Tensor) -> Tensor:
    """Run the CRF on the scores of one picture.

    The scores go through a softmax once more before they become unary energies, as in OVSeg.

    Args:
        image: (H, W, 3) uint8 RGB, the picture as it lies on disk.
        scores: (K, H, W) of any range.

    Returns:
        (K, H, W) float32 on the CPU, a distribution over the classes at every pixel.

    Raises:
        ImportError: the extra `crf` is not installed.
        ValueError: picture and scores differ in size.
    """
    if tuple(scores.shape[1:]) != image.shape[:2]:
        raise ValueError(
            f"expected scores of the picture's size {image.shape[:2]}, got "
            f"{tuple(scores.shape[1:])}; let the model output at the picture's size"
        )
    densecrf = require_dense_crf()
    from pydensecrf.utils import unary_from_softmax

    classes, height, width = scores.shape
    probabilities = scores.float().softmax(0).cpu().numpy()  # (K, H, W)
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    field.addPairwiseGaussian(**SMOOTHNESS)
    field.addPairwiseBilateral(**APPEARANCE, rgbim=np.ascontiguousarray(image))
    found = np.array(field.inference(ITERATIONS), dtype=np.float32)  # (K, H * W)
    return torch.from_numpy(found.reshape(classes, height, width))


@dataclass(eq=False)
class RefinedEncoding(ViewEncoding):
    """An encoding together with the picture.

    Args:
        image: (H, W, 3) uint8 RGB, at the requested size.
    """

    image: np.ndarray


class DenseCRF(View):
    """A segmentor whose scores a CRF refines on the original picture.

    Args:
        model: the segmentor; may be a view for windows or augmentation.

    Raises:
        ImportError: the extra `crf` is not installed.
    """

    def __init__(self, model: Segmentor) -> None:
        super().__init__(model)
        require_dense_crf()

    def encode(self, batched_inputs: Inputs) -> Iterable[RefinedEncoding]:
        """Encodes each image and keeps its picture; see `Segmentor.encode`."""
        encodings = self.model.encode(batched_inputs)
        for inputs, encoding in zip(batched_inputs, encodings, strict=True):
            yield RefinedEncoding([encoding], encoding.output_size, original_image(inputs))

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> DensePrediction:
        """Refines the model's scores; see `Segmentor.decode`.

        The scores become probabilities; the prediction abstains where the model does.
        """
        assert isinstance(encoding, RefinedEncoding)
        prediction = self.model.decode(encoding.parts[0], vocabulary)
        scores = refine_scores(encoding.image, prediction.sem_seg()).to(self.device)
        return DensePrediction(scores, encoding.output_size, prediction.abstention())
