"""What every segmentation model of the package promises, and what it does around its method.

A `Segmentor` answers in two stages: `encode` does for a picture all that the words do not change,
`decode` the rest. `predict` composes them. A method is a `SegmentationModel`, which turns
Detectron2-style inputs into a normalised, padded batch and finds vocabularies; what wraps a
segmentor (`ovseg.modeling.views`) is a segmentor again.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.d2.config import CfgNode
from ovseg.d2.data import MetadataCatalog
from ovseg.d2.structures import ImageList
from ovseg.d2.utils import log_first_n
from ovseg.modeling.prediction import Prediction
from ovseg.vocab import TextBank, Vocabulary, check_synonyms
from ovseg.weights.load import as_state_dict, load_strict

OUTPUTS = ("labels", "sem_seg")
Inputs = Sequence[Mapping[str, Any]]


class Encoding:
    """All that a segmentor knows of one picture before it is asked for words.

    Attributes:
        output_size: the requested (H, W).
    """

    output_size: tuple[int, int]

    def tensors(self) -> dict[str, Tensor]:
        """Returns the content by name, so that it can be stored."""
        raise NotImplementedError(f"{type(self).__name__} cannot be stored.")

    def forget(self) -> None:
        """Drops what follows from the rest and is kept to save time."""


class Segmentor(nn.Module, ABC):
    """Segments pictures into any vocabulary.

    Attributes:
        output: "labels" or "sem_seg", the entry of each result of `forward`.
    """

    output: str

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """Where the model is."""

    @abstractmethod
    def encode(self, batched_inputs: Inputs) -> Iterable[Encoding]:
        """Does for each image of a batch what does not depend on words.

        Args:
            batched_inputs: see `forward`.

        Returns:
            One encoding per image; a generator lets the caller drop each before the next.
        """

    @abstractmethod
    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> Prediction:
        """Scores the classes of a vocabulary on an encoded image.

        Args:
            encoding: of this segmentor.
            vocabulary: K classes.

        Returns:
            The prediction.
        """

    @abstractmethod
    def find_vocabulary(self, batched_inputs: Inputs) -> Vocabulary:
        """Finds the vocabulary that the inputs name; see `SegmentationModel.find_vocabulary`."""

    @abstractmethod
    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the choices of inference that papers leave out of their tables, by name."""

    def prefetch(self, encoding: Encoding) -> None:
        """Computes now what `decode` would compute when it first needs it."""

    @torch.no_grad()
    def predict(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> Iterator[Prediction]:
        """Segments one image after the other.

        Args:
            batched_inputs: see `forward`.
            vocabulary: K classes; None reads them from the inputs.

        Yields:
            One prediction per image.
        """
        if vocabulary is None:
            vocabulary = self.find_vocabulary(batched_inputs)
        for encoding in self.encode(batched_inputs):
            yield self.decode(encoding, vocabulary)

    def losses(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> dict[str, Tensor]:
        """Computes the weighted training losses, by name.

        Args:
            batched_inputs: with their ground truth.
            vocabulary: K classes; None where the inputs name them or no loss needs any.

        Returns:
            Scalars; their sum is minimised.
        """
        raise NotImplementedError(f"{type(self).__name__} has no training losses; call eval().")

    def forward(
        self, batched_inputs: Inputs, vocabulary: Vocabulary | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Trains on or segments a batch.

        Args:
            batched_inputs: per image a dict with image (3, H, W) RGB 0-255, optionally height and
                width (the requested output size, default the image's), in training
                instances, and where `vocabulary` is None either class_names or
                meta = {"dataset_name": ...}.
            vocabulary: the K classes to tell apart.

        Returns:
            In training a dict of weighted losses, else per image {"labels": (H, W) int64} or
            {"sem_seg": (K, H, W) float32}, as `output` says.
        """
        if self.training:
            return self.losses(batched_inputs, vocabulary)
        return [
            {self.output: prediction.labels() if self.output == "labels" else prediction.sem_seg()}
            for prediction in self.predict(batched_inputs, vocabulary)
        ]

    def bind(self, vocabulary: Vocabulary) -> BoundSegmentor:
        """Returns the model as a module of one argument, the inputs.

        Args:
            vocabulary: used in every call.

        Returns:
            A module that shares this one's parameters.
        """
        return BoundSegmentor(self, vocabulary)


def unpad(maps: Tensor, *, padded_size: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Brings maps of a padded image to the network's input size and takes the padding off.

    Args:
        maps: (C, h', w') float, of the whole padded image at any resolution.
        padded_size: (height, width) of the padded batch.
        size: (h, w) of the image without padding.

    Returns:
        (C, h, w), bilinearly resized.
    """
    resized = F.interpolate(maps[None], size=padded_size, mode="bilinear", align_corners=False)
    return resized[0, :, : size[0], : size[1]]


class BoundSegmentor(nn.Module):
    """A segmentor together with a vocabulary.

    Args:
        model: the segmentor.
        vocabulary: used in every call.
    """

    def __init__(self, model: Segmentor, vocabulary: Vocabulary) -> None:
        super().__init__()
        self.model = model
        self.vocabulary = vocabulary
        self.training = model.training

    def forward(self, batched_inputs: Inputs) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Calls the segmentor with the vocabulary; see `Segmentor.forward`."""
        return self.model(batched_inputs, self.vocabulary)


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images of a batch in the forms that methods need.

    Args:
        images: per image (3, h, w) float32 RGB 0-255.
        padded: the images normalised and zero-padded at the bottom and right to one size.
        output_sizes: per image the requested (H, W).
        image_ids: per image its name in its dataset, "" where it has none.
        offsets: per image the (top, left) of its first pixel in the picture it is a tile of, at
            the network's input size; (0, 0) for a whole picture.
    """

    images: list[Tensor]
    padded: ImageList
    output_sizes: list[tuple[int, int]]
    image_ids: list[str]
    offsets: list[tuple[int, int]]


class SegmentationModel(Segmentor):
    """Base class of methods: normalises and pads images, finds vocabularies, loads weights.

    Args:
        pixel_mean: RGB mean, 0-255.
        pixel_std: RGB standard deviation, 0-255.
        size_divisibility: padded sides are multiples of this.
        templates: prompt templates of vocabularies that are made from bare class names.
        output: "labels" or "sem_seg", the entry of each result.
        synonyms: what stands for a class of a dataset, see `Vocabulary.from_classes`.
        dataset: whose classes are meant where inputs of an evaluation name none.

    Raises:
        ValueError: `output` or `synonyms` is none of these.
    """

    # False: the model is complete once it is built, and there is no checkpoint to load into it.
    has_own_weights: ClassVar[bool] = True
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int = 1,
        templates: str | Sequence[str] = "vild",
        output: str = "labels",
        synonyms: str = "list",
        dataset: str | None = None,
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"TEST.OUTPUT: expected one of {OUTPUTS}, got {output!r}.")
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.size_divisibility = size_divisibility
        self.templates = templates
        self.output = output
        self.synonyms = check_synonyms(synonyms)
        self.dataset = dataset

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Reads what every method has: normalisation, prompts, TEST.OUTPUT, a single test set."""
        adapter = cfg.MODEL.CLIP_ADAPTER
        predefined = adapter.TEXT_TEMPLATES == "predefined"
        return {
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "templates": (
                tuple(adapter.PREDEFINED_PROMPT_TEMPLATES) if predefined else adapter.TEXT_TEMPLATES
            ),
            "output": cfg.TEST.OUTPUT,
            "synonyms": adapter.SYNONYMS,
            "dataset": cfg.DATASETS.TEST[0] if len(cfg.DATASETS.TEST) == 1 else None,
        }

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    def protocol(self) -> dict[str, str | int | float | bool]:
        """States the choices of inference; see `Segmentor.protocol`."""
        return {"templates": self.templates if isinstance(self.templates, str) else "predefined"}

    def text_banks(self) -> Sequence[TextBank]:
        """Lists what the model keeps features of texts in; a method without any has none."""
        return ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SegmentationModel:
        for bank in self.text_banks():  # what they hold is of another device or precision
            bank.clear()
        return super()._apply(fn, recurse)

    def load_weights(
        self,
        state_or_path: Mapping[str, Tensor] | str | Path,
        *,
        to_train: bool = False,
        allow_pickle: bool = False,
    ) -> None:
        """Loads a checkpoint strictly.

        Args:
            state_or_path: a state dict, with or without a {"model": ...} around it, or a file.
            to_train: training starts from it, so a part of the model may be enough.
            allow_pickle: read plain pickles, too; see `read_state_dict`.

        Raises:
            WeightsError: the file cannot be read, or names or shapes do not fit; the message lists
                them.
        """
        load_strict(self, as_state_dict(state_or_path, allow_pickle=allow_pickle))

    def find_vocabulary(self, batched_inputs: Inputs) -> Vocabulary:
        """Reads the vocabulary that the inputs name.

        Args:
            batched_inputs: inputs of one dataset, or with the same class_names; outside training
                neither means the config's test set, where there is one.

        Returns:
            The metadata's vocabulary, or one made from class names with this model's templates.

        Raises:
            ValueError: the inputs name none, or not all the same.
        """
        if any("class_names" in x for x in batched_inputs):
            found = {tuple(x.get("class_names", ())) for x in batched_inputs}
            if len(found) > 1:
                raise ValueError(
                    f"Expected one list of class_names per batch, got {len(found)} different ones; "
                    "split the batch."
                )
            return Vocabulary.make(found.pop(), templates=self.templates)
        datasets = sorted({str(x.get("meta", {}).get("dataset_name")) for x in batched_inputs})
        if datasets == ["None"] and self.dataset is not None and not self.training:
            datasets = [self.dataset]  # what Detectron2's DefaultPredictor gives names no dataset
            text = f"the inputs name no dataset; the classes are those of {self.dataset}"
            log_first_n(logging.WARNING, text, name=__name__, key="message")
        if len(datasets) != 1 or datasets == ["None"]:
            raise ValueError(
                "Expected inputs of one dataset, got meta['dataset_name'] = "
                f"{datasets}; pass a vocabulary, or give every input the same "
                "meta = {'dataset_name': ...}."
            )
        metadata = MetadataCatalog.get(datasets[0])
        vocabulary = getattr(metadata, "vocabulary", None)
        if vocabulary is not None:
            return vocabulary
        names = getattr(metadata, "stuff_classes", None)
        if not names:
            raise ValueError(
                f"Expected the metadata of {datasets[0]!r} to have stuff_classes or a vocabulary, "
                "got neither; register the dataset or pass a vocabulary."
            )
        return Vocabulary.from_classes(
            names,
            listed=getattr(metadata, "class_synonyms", None),
            templates=self.templates,
            synonyms=self.synonyms,
            background=getattr(metadata, "background_class", None),
        )

    def prepare(self, batched_inputs: Inputs) -> ImageBatch:
        """Normalises and pads a batch.

        Args:
            batched_inputs: see `forward`; image_id and offset (top, left) are passed on. Views add
                whole_size, the (height, width) of the resized picture that an image is a tile of,
                and mirrored, whether it is a mirror image.

        Returns:
            The batch on the model's device.

        Raises:
            ValueError: an image is not (3, H, W), or there is none.
        """
        if not batched_inputs:
            raise ValueError("Expected at least one input, got an empty batch.")
        for x in batched_inputs:
            if x["image"].dim() != 3 or len(x["image"]) != 3:
                raise ValueError(
                    f"Expected an image of shape (3, H, W), got {tuple(x['image'].shape)}; convert "
                    "it to RGB with channels first."
                )
        images = [x["image"].to(self.device, torch.float32) for x in batched_inputs]
        normalised = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageBatch(
            images=images,
            padded=ImageList.from_tensors(normalised, self.size_divisibility),
            output_sizes=[
                (int(x.get("height", image.shape[1])), int(x.get("width", image.shape[2])))
                for x, image in zip(batched_inputs, images, strict=True)
            ],
            image_ids=[str(x.get("image_id", "")) for x in batched_inputs],
            offsets=[tuple(x.get("offset", (0, 0))) for x in batched_inputs],
        )
