"""Batches of images of different sizes, and the objects in one image."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["ImageList", "Instances"]


class ImageList:
    """Images of several sizes, padded at the bottom and right into one tensor."""

    def __init__(self, tensor: Tensor, image_sizes: list[tuple[int, int]]) -> None:
        """Wrap an already padded batch.

        Args:
            tensor: (N, H, W) or (N, C, ..., H, W).
            image_sizes: N pairs (height, width) of the images without padding.
        """
        self.tensor = tensor
        self.image_sizes = image_sizes

    def __len__(self) -> int:
        """Count the images."""
        return len(self.image_sizes)

    def __getitem__(self, index: int) -> Tensor:
        """Return one image without its padding, (C, ..., h, w)."""
        height, width = self.image_sizes[index]
        return self.tensor[index, ..., :height, :width]

    def to(self, *args: Any, **kwargs: Any) -> ImageList:
        """Move or cast the batch as `Tensor.to` does."""
        return ImageList(self.tensor.to(*args, **kwargs), self.image_sizes)

    @property
    def device(self) -> torch.device:
        """Where the batch lies."""
        return self.tensor.device

    @staticmethod
    def from_tensors(
        tensors: Sequence[Tensor],
        size_divisibility: int = 0,
        pad_value: float = 0.0,
        padding_constraints: dict[str, int] | None = None,
    ) -> ImageList:
        """Pad images to a common size and stack them.

        Args:
            tensors: images (C, ..., Hi, Wi) that agree in all but the last two dimensions.
            size_divisibility: height and width of the batch become multiples of it, if > 1.
            pad_value: what the padding holds.
            padding_constraints: optional `size_divisibility` (takes precedence) and
                `square_size` (> 0 makes the batch a square of that side).

        Returns:
            The batch.

        Raises:
            ValueError: if there is no image or their leading dimensions differ.
        """
        if not tensors:
            raise ValueError("an ImageList needs at least one image, got none")
        lead = tensors[0].shape[:-2]
        if any(image.shape[:-2] != lead for image in tensors):
            shapes = [tuple(image.shape) for image in tensors]
            raise ValueError(f"images of a batch must have the same channels, got shapes {shapes}")
        sizes = [(int(image.shape[-2]), int(image.shape[-1])) for image in tensors]
        height, width = (max(side) for side in zip(*sizes, strict=True))
        constraints = padding_constraints or {}
        if constraints.get("square_size", 0) > 0:
            height = width = constraints["square_size"]
        divisor = max(constraints.get("size_divisibility", size_divisibility), 1)
        height, width = (-(-side // divisor) * divisor for side in (height, width))
        padded = [
            F.pad(image, (0, width - w, 0, height - h), value=pad_value)
            for image, (h, w) in zip(tensors, sizes, strict=True)
        ]
        return ImageList(torch.stack(padded), sizes)  # (N, C, H, W)


class Instances:
    """The objects of one image: fields of equal length, set and read as attributes."""

    _image_size: tuple[int, int]
    _fields: dict[str, Any]

    def __init__(self, image_size: tuple[int, int], **fields: Any) -> None:
        """Start with the given fields.

        Args:
            image_size: (height, width).
            **fields: anything with a length, one entry per object.
        """
        self._image_size = image_size
        self._fields = {}
        for name, value in fields.items():
            self.set(name, value)

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the image."""
        return self._image_size

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a field; names that start with an underscore are ordinary attributes."""
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            self.set(name, value)

    def __getattr__(self, name: str) -> Any:
        """Read a field."""
        if name == "_fields" or name not in self._fields:
            known = ", ".join(self.__dict__.get("_fields", {})) or "none"
            raise AttributeError(f"Instances has no field {name!r}; fields: {known}")
        return self._fields[name]

    def set(self, name: str, value: Any) -> None:
        """Set the field `name`; its length must be that of the other fields."""
        if self._fields and len(value) != len(self):
            raise AssertionError(
                f"field {name!r} must have length {len(self)} like the other fields, "
                f"got {len(value)}"
            )
        self._fields[name] = value

    def has(self, name: str) -> bool:
        """Tell whether there is a field `name`."""
        return name in self._fields

    def remove(self, name: str) -> None:
        """Drop the field `name`."""
        del self._fields[name]

    def get(self, name: str) -> Any:
        """Return the field `name`."""
        return self._fields[name]

    def get_fields(self) -> dict[str, Any]:
        """Return all fields by name; the dict is the live one."""
        return self._fields

    def to(self, *args: Any, **kwargs: Any) -> Instances:
        """Move or cast every field that can be moved."""
        moved = {
            name: value.to(*args, **kwargs) if hasattr(value, "to") else value
            for name, value in self._fields.items()
        }
        return Instances(self._image_size, **moved)

    def __getitem__(self, item: Any) -> Instances:
        """Select objects by index, slice, index tensor or bool mask."""
        if isinstance(item, int):
            if not -len(self) <= item < len(self):
                raise IndexError(f"index {item} is out of range for {len(self)} instances")
            item = slice(item, None, len(self))
        return Instances(self._image_size, **{n: v[item] for n, v in self._fields.items()})

    def __len__(self) -> int:
        """Count the objects."""
        for value in self._fields.values():
            return len(value)
        raise NotImplementedError("Instances without any field has no length; set a field first")

    def __iter__(self) -> Any:
        """Refuse: a loop over objects is written over their fields."""
        raise NotImplementedError("Instances cannot be iterated; iterate over its fields")

    @staticmethod
    def cat(instance_lists: list[Instances]) -> Instances:
        """Join the objects of several lists that belong to images of one size."""
        if not instance_lists:
            raise AssertionError("cannot join an empty list of Instances")
        first = instance_lists[0]
        if any(other.image_size != first.image_size for other in instance_lists):
            raise AssertionError("only Instances of one image size can be joined")
        if len(instance_lists) == 1:
            return first
        joined = Instances(first.image_size)
        for name in first.get_fields():
            joined.set(name, _join([instances.get(name) for instances in instance_lists]))
        return joined

    def __repr__(self) -> str:
        """Show the number of objects, the image size and the fields."""
        count = len(self) if self._fields else 0
        return (
            f"Instances(num_instances={count}, image_height={self._image_size[0]}, "
            f"image_width={self._image_size[1]}, fields=[{', '.join(self._fields)}])"
        )


def _join(values: list[Any]) -> Any:
    if isinstance(values[0], Tensor):
        return torch.cat(values)
    if isinstance(values[0], list):
        return list(itertools.chain.from_iterable(values))
    if hasattr(type(values[0]), "cat"):
        return type(values[0]).cat(values)
    raise ValueError(f"fields of type {type(values[0]).__name__} cannot be joined")
