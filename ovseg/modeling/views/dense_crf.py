"""Label maps that follow the picture's edges: a fully connected CRF over the scores.

Source: Krähenbühl and Koltun, "Efficient Inference in Fully Connected CRFs with Gaussian Edge
Potentials" (NeurIPS 2011), with the settings of OVSeg's released code. The inference is that of
`pydensecrf2`, the extra `crf`, which is built from source: it takes a C++ compiler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ovseg.utils.images import read_image

if TYPE_CHECKING:
    from collections.abc import Iterator

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


class DenseCRF(nn.Module):
    """A segmentor whose scores a CRF refines on the original picture.

    Args:
        segmentor: takes a batch, gives `sem_seg`; may wrap `model` for windows or augmentation.
        model: what holds `output`, the entry of its results; None: the segmentor itself.
        output: "sem_seg" for the refined scores, "labels" for their argmax.

    Raises:
        ImportError: the extra `crf` is not installed.
    """

    def __init__(
        self, segmentor: nn.Module, *, model: nn.Module | None = None, output: str = "labels"
    ) -> None:
        super().__init__()
        require_dense_crf()
        self.segmentor = segmentor
        self.model = model or segmentor
        self.output = output
        self.training = segmentor.training

    @torch.no_grad()
    def forward(self, batched_inputs: Sequence[Mapping[str, Any]]) -> list[dict[str, Tensor]]:
        """Segment a batch and refine it.

        Args:
            batched_inputs: as the segmentor takes them; the picture is read from `file_name`, or
                is `image` where no file is named.

        Returns:
            `{"sem_seg": (K, H, W) float32}` or `{"labels": (H, W) int64}` per image.
        """
        with ExitStack() as stack:
            for module in (self.segmentor, self.model):
                stack.enter_context(_scores_wanted(module))
            results = self.segmentor(batched_inputs)
        refined = []
        for inputs, result in zip(batched_inputs, results, strict=True):
            scores = refine_scores(_picture(inputs), result["sem_seg"])
            refined.append(
                {"labels": scores.argmax(0)} if self.output == "labels" else {"sem_seg": scores}
            )
        return refined


@contextmanager
def _scores_wanted(module: nn.Module) -> Iterator[None]:
    if not hasattr(module, "output"):  # a window passes on what its model puts out
        yield
        return
    previous = module.output
    module.output = "sem_seg"  # type: ignore[assignment]  # a plain attribute
    try:
        yield
    finally:
        module.output = previous


def _picture(inputs: Mapping[str, Any]) -> np.ndarray:
    """The picture at its own size: (H, W, 3) uint8 RGB."""
    if "file_name" in inputs:
        return read_image(inputs["file_name"])
    return inputs["image"].round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()
