"""Datasets by name, and what is known about them."""

from __future__ import annotations

import copy
import types
from collections import UserDict
from collections.abc import Callable
from typing import Any

__all__ = ["DatasetCatalog", "Metadata", "MetadataCatalog"]


class _DatasetCatalog(UserDict[str, Callable[[], list[dict[str, Any]]]]):
    """Functions that list a dataset's samples, by dataset name."""

    def register(self, name: str, func: Callable[[], list[dict[str, Any]]]) -> None:
        """Add a dataset.

        Args:
            name: a name that is not taken.
            func: returns the samples, the same on each call.
        """
        if not callable(func):
            raise AssertionError(f"dataset {name!r} must be registered with a function")
        if name in self:
            raise AssertionError(f"dataset {name!r} is already registered")
        self[name] = func

    def get(self, name: str) -> list[dict[str, Any]]:  # type: ignore[override]
        """Return the samples of a dataset.

        Raises:
            KeyError: if there is no such dataset.
        """
        if name not in self:
            known = ", ".join(self) or "none"
            raise KeyError(f"dataset {name!r} is not registered; registered: {known}")
        return self[name]()

    def list(self) -> list[str]:
        """Return the names of all datasets."""
        return [*self]

    def remove(self, name: str) -> None:
        """Drop a dataset."""
        self.pop(name)


class Metadata(types.SimpleNamespace):
    """What is known about a dataset, as attributes that are set once."""

    name: str = "N/A"

    def __getattr__(self, key: str) -> Any:
        """Explain which attributes there are."""
        raise AttributeError(
            f"metadata of dataset {self.name!r} has no attribute {key!r}; "
            f"there are: {', '.join(self.__dict__) or 'none'}"
        )

    def __setattr__(self, key: str, value: Any) -> None:
        """Set an attribute; setting it again to another value is an error."""
        if key in self.__dict__ and self.__dict__[key] != value:
            raise AssertionError(
                f"attribute {key!r} in the metadata of {self.name!r} is already "
                f"{self.__dict__[key]!r} and cannot become {value!r}"
            )
        super().__setattr__(key, value)

    def as_dict(self) -> dict[str, Any]:
        """Return a copy of all attributes."""
        return copy.copy(self.__dict__)

    def set(self, **attributes: Any) -> Metadata:
        """Set several attributes and return self."""
        for key, value in attributes.items():
            setattr(self, key, value)
        return self

    def get(self, key: str, default: Any = None) -> Any:
        """Return an attribute, or `default` where it is not set."""
        return getattr(self, key, default)


class _MetadataCatalog(UserDict[str, Metadata]):
    """Metadata by dataset name; one object per name, made when first asked for."""

    def get(self, name: str) -> Metadata:  # type: ignore[override]
        """Return the metadata of `name`, empty if nothing has been set yet."""
        if not name:
            raise AssertionError("a dataset name must not be empty")
        if name not in self:
            self[name] = Metadata(name=name)
        return self[name]

    def list(self) -> list[str]:
        """Return the names that have metadata."""
        return [*self]

    def remove(self, name: str) -> None:
        """Drop the metadata of a dataset."""
        self.pop(name)


DatasetCatalog = _DatasetCatalog()
MetadataCatalog = _MetadataCatalog()
