"""What every segmentation model of the package does around its method.

A `Segmentor` turns Detectron2-style inputs into a normalised, padded batch, finds the vocabulary,
and brings the method's predictions to the requested size. A method writes `predict` and, where it
trains, `losses`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ovseg.d2.data import MetadataCatalog
from ovseg.d2.structures import ImageList
from ovseg.modeling.prediction import Prediction
from ovseg.vocab import Vocabulary

OUTPUTS = ("labels", "sem_seg")
SYNONYM_RULES = ("list", "none")
Inputs = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class ImageBatch:
    """Images of a batch in the two forms that methods need.

    Args:
        images: per image (3, h, w) float32 RGB 0-255.
        padded: the images normalised and zero-padded at the bottom and right to one size.
        output_sizes: per image the requested (H, W).
    """

    images: list[Tensor]
    padded: ImageList
    output_sizes: list[tuple[int, int]]


class Segmentor(nn.Module, ABC):
    """Base class of open-vocabulary segmentation models.

    Args:
        pixel_mean: RGB mean, 0-255.
        pixel_std: RGB standard deviation, 0-255.
        size_divisibility: padded sides are multiples of this.
        templates: prompt templates of vocabularies that are made from bare class names.
        output: "labels" or "sem_seg", the entry of each result.
        synonyms: what stands for a class of a data set: "list" (the strings that its class list
            gives it, else its name), "none" (its name), or a separator at which names are split.

    Raises:
        ValueError: `output` or `synonyms` is none of these.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        size_divisibility: int,
        templates: str | Sequence[str] = "vild",
        output: str = "labels",
        synonyms: str = "list",
    ) -> None:
        super().__init__()
        if output not in OUTPUTS:
            raise ValueError(f"TEST.OUTPUT: expected one of {OUTPUTS}, got {output!r}.")
        if synonyms not in SYNONYM_RULES and (not synonyms or synonyms[0].isalnum()):
            raise ValueError(
                f"MODEL.CLIP_ADAPTER.SYNONYMS: expected one of {SYNONYM_RULES} or a separator such "
                f"as ',', got {synonyms!r}."
            )
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)
        self.size_divisibility = size_divisibility
        self.templates = templates
        self.output = output
        self.synonyms = synonyms

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.pixel_mean.device

    @abstractmethod
    def predict(self, batch: ImageBatch, vocabulary: Vocabulary) -> Iterable[Prediction]:
        """Predicts one image after the other.

        Args:
            batch: the images.
            vocabulary: K classes.

        Returns:
            One prediction per image; a generator lets the caller drop each before the next.
        """

    def losses(
        self, batch: ImageBatch, batched_inputs: Inputs, vocabulary: Vocabulary
    ) -> dict[str, Tensor]:
        """Computes the weighted training losses, by name.

        Args:
            batch: the images.
            batched_inputs: the inputs, for their ground truth.
            vocabulary: K classes.

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
        if vocabulary is None:
            vocabulary = self.find_vocabulary(batched_inputs)
        batch = self.prepare(batched_inputs)
        if self.training:
            return self.losses(batch, batched_inputs, vocabulary)
        with torch.no_grad():
            return [
                {self.output: prediction.labels()}
                if self.output == "labels"
                else {self.output: prediction.sem_seg()}
                for prediction in self.predict(batch, vocabulary)
            ]

    def bind(self, vocabulary: Vocabulary) -> BoundSegmentor:
        """Returns the model as a module of one argument, the inputs.

        Args:
            vocabulary: used in every call.

        Returns:
            A module that shares this one's parameters.
        """
        return BoundSegmentor(self, vocabulary)

    def find_vocabulary(self, batched_inputs: Inputs) -> Vocabulary:
        """Reads the vocabulary that the inputs name.

        Args:
            batched_inputs: inputs of one data set, or with the same class_names.

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
        if len(datasets) != 1 or datasets == ["None"]:
            raise ValueError(
                "Expected inputs of one data set, got meta['dataset_name'] = "
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
                "got neither; register the data set or pass a vocabulary."
            )
        separator = None if self.synonyms in SYNONYM_RULES else self.synonyms
        vocabulary = Vocabulary.make(names, templates=self.templates, synonyms=separator)
        listed = getattr(metadata, "class_synonyms", None)
        if self.synonyms == "list" and listed is not None:
            prompts = tuple(tuple(text.strip() for text in texts) for texts in listed)
            vocabulary = replace(vocabulary, prompts=prompts)
        return replace(vocabulary, background=getattr(metadata, "background_class", None))

    def prepare(self, batched_inputs: Inputs) -> ImageBatch:
        """Normalises and pads a batch.

        Args:
            batched_inputs: see `forward`.

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
        )


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
