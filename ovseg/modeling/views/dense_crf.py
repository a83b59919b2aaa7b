"""Label maps that follow the picture's edges: a fully connected CRF over the scores.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (NeurIPS 2011), with the settings of OVSeg's released code. The inference is that of
`pydensecrf2`, the extra `crf`, which is built from source: it takes a C++ compiler. A method whose
own decision is a CRF can do without it (`mean_field`): the same lattice in numpy, slower.
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
from ovseg.modeling.views.mean_field import mean_field
from ovseg.modeling.views.view import View, ViewEncoding, original_image
from ovseg.vocab import Vocabulary

__all__ = [
    "CRFSettings",
    "DenseCRF",
    "has_dense_crf",
    "refine_by_mean_field",
    "refine_scores",
    "require_dense_crf",
]


@dataclass(frozen=True)
class CRFSettings:
    """Constants of a dense CRF; the defaults are OVSeg's.

    Args:
        iterations: updates of the mean field.
        smooth_xy: neighbours are alike: standard deviation in pixels.
        smooth_weight: weight of that.
        colour_xy: pixels of one colour are alike: standard deviation in pixels,
        colour_rgb: and in 8-bit colour.
        colour_weight: weight of that.
    """

    iterations: int = 5
    smooth_xy: float = 3
    smooth_weight: float = 3
    colour_xy: float = 80
    colour_rgb: float = 13
    colour_weight: float = 10


OVSEG_SETTINGS = CRFSettings()


def has_dense_crf() -> bool:
    """Tell whether the extra `crf` is installed."""
    try:
        require_dense_crf()
    except ImportError:
        return False
    return True


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


def refine_scores(
    image: np.ndarray, scores: Tensor, settings: CRFSettings = OVSEG_SETTINGS
) -> Tensor:
    """Run the CRF on the scores of one picture.

    The scores go through a softmax once more before they become unary energies, as in OVSeg.

    Args:
        image: (H, W, 3) uint8 RGB, the picture as it lies on disk.
        scores: (K, H, W) of any range.
        settings: constants of the CRF.

    Returns:
        (K, H, W) float32 on the CPU, a distribution over the classes at every pixel.

    Raises:
        ImportError: the extra `crf` is not installed.
        ValueError: picture and scores differ in size.
    """
    probabilities = _probabilities(image, scores)  # (K, H, W)
    densecrf = require_dense_crf()
    from pydensecrf.utils import unary_from_softmax

    classes, height, width = probabilities.shape
    field = densecrf.DenseCRF2D(width, height, classes)
    field.setUnaryEnergy(np.ascontiguousarray(unary_from_softmax(probabilities)))
    field.addPairwiseGaussian(sxy=settings.smooth_xy, compat=settings.smooth_weight)
    field.addPairwiseBilateral(
        sxy=settings.colour_xy,
        srgb=settings.colour_rgb,
        compat=settings.colour_weight,
        rgbim=np.ascontiguousarray(image),
    )
    found = np.array(field.inference(settings.iterations), dtype=np.float32)  # (K, H * W)
    return torch.from_numpy(found.reshape(classes, height, width))


def refine_by_mean_field(
    image: np.ndarray, scores: Tensor, settings: CRFSettings = OVSEG_SETTINGS
) -> Tensor:
    """Run the same CRF without the extra `crf`; see `refine_scores`.

    Args:
        image: (H, W, 3) uint8 RGB.
        scores: (K, H, W) of any range.
        settings: constants of the CRF.

    Returns:
        (K, H, W) float32 on the CPU, a distribution over the classes at every pixel.

    Raises:
        ValueError: picture and scores differ in size.
    """
    probabilities = _probabilities(image, scores)  # (K, H, W)
    height, width = image.shape[:2]
    rows, columns = np.mgrid[:height, :width].reshape(2, -1)
    place = np.stack((columns, rows), 1)  # (H * W, 2)
    colour = image.reshape(-1, 3) / settings.colour_rgb
    kernels = (
        (settings.smooth_weight, place / settings.smooth_xy),
        (settings.colour_weight, np.concatenate([place / settings.colour_xy, colour], 1)),
    )
    flat = probabilities.reshape(len(probabilities), -1)
    found = mean_field(flat, kernels, iterations=settings.iterations)
    return torch.from_numpy(found.reshape(probabilities.shape))


def _probabilities(image: np.ndarray, scores: Tensor) -> np.ndarray:
    """Distributions (K, H, W) of scores that have the picture's size."""
    if tuple(scores.shape[1:]) != image.shape[:2]:
        raise ValueError(
            f"expected scores of the picture's size {image.shape[:2]}, got "
            f"{tuple(scores.shape[1:])}; let the model output at the picture's size"
        )
    return scores.float().softmax(0).cpu().numpy()


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
