"""Where regions come from: a model, annotations, files, or a grid.

Everything that needs regions takes a `RegionProposer`. The one that stands on a model is
`ovseg.modeling.proposer.MaskFormerProposer`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ovseg.readers.arrays import read_npz
from ovseg.readers.documents import DocumentError, parse_json, read_json
from ovseg.readers.files import read_bytes
from ovseg.readers.pictures import read_label
from ovseg.readers.segmentations import decode_segmentation

__all__ = [
    "BatchProposer",
    "FileProposer",
    "GridProposer",
    "InstanceProposer",
    "ProposalError",
    "RegionProposer",
    "propose_batch",
]


class ProposalError(ValueError):
    """Regions of a picture that cannot be had; the text names the picture or the file."""


class RegionProposer(Protocol):
    """Proposes regions of a picture.

    Attributes:
        name: says which proposer it is and, where it stands on a file, which version of it; kept
            with every result.
    """

    name: str

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Propose regions.

        Args:
            image: (H, W, 3) uint8 RGB.
            image_id: the picture's name in its dataset.

        Returns:
            (Q, H, W) bool, none empty; Q may be 0.

        Raises:
            ProposalError: there are no regions to be had for this picture.
        """
        ...


@runtime_checkable
class BatchProposer(Protocol):
    """A `RegionProposer` that is faster with several pictures at a time."""

    def propose_batch(
        self, images: Sequence[np.ndarray], image_ids: Sequence[str]
    ) -> list[np.ndarray]:
        """Propose regions of each picture; see `RegionProposer`."""
        ...


def propose_batch(
    proposer: RegionProposer, images: Sequence[np.ndarray], image_ids: Sequence[str]
) -> list[np.ndarray]:
    """Propose regions of several pictures, together where the proposer gains by it.

    Args:
        proposer: any.
        images: B pictures (H, W, 3) uint8 RGB; sizes may differ.
        image_ids: B names.

    Returns:
        Per picture (Q, H, W) bool.
    """
    if isinstance(proposer, BatchProposer):
        return proposer.propose_batch(images, image_ids)
    return [proposer(image, name) for image, name in zip(images, image_ids, strict=True)]


class GridProposer:
    """Cuts every picture into equal rectangles: a baseline, and regions for tests.

    Args:
        rows: rectangles from top to bottom.
        cols: rectangles from left to right.

    Raises:
        ValueError: fewer than one of either.
    """

    def __init__(self, rows: int, cols: int) -> None:
        if rows < 1 or cols < 1:
            raise ValueError(f"expected at least 1 row and 1 column, got {rows} x {cols}")
        self.rows, self.cols = rows, cols
        self.name = f"grid:{rows}x{cols}"

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Cut the picture; see `RegionProposer`. One with fewer pixels than cells gives fewer."""
        height, width = image.shape[:2]
        tops = np.linspace(0, height, self.rows + 1).round().astype(int).tolist()
        lefts = np.linspace(0, width, self.cols + 1).round().astype(int).tolist()
        masks = np.zeros((self.rows * self.cols, height, width), dtype=bool)
        for row in range(self.rows):
            for col in range(self.cols):
                cell = masks[row * self.cols + col]
                cell[tops[row] : tops[row + 1], lefts[col] : lefts[col + 1]] = True
        return without_empty(masks)


class InstanceProposer:
    """Takes the regions of a COCO instances file.

    Args:
        annotations: the JSON file.
        per_class: unite the instances of a category, as OVSeg's ground-truth masks are.

    Raises:
        ValueError: the file is no COCO instances file.
        OSError: it cannot be read.
    """

    def __init__(self, annotations: str | Path, *, per_class: bool = False) -> None:
        content = read_bytes(annotations)
        self.name = f"instances@{hashlib.sha256(content).hexdigest()[:8]}"
        self.name += "/class" if per_class else ""
        self.per_class = per_class
        self._path = Path(annotations)
        try:
            data = parse_json(content, annotations)
            self._sizes = {str(i["id"]): (i["height"], i["width"]) for i in data["images"]}
            self._ids = {str(i["file_name"]): str(i["id"]) for i in data["images"]}
            self._regions: dict[str, list[tuple[int, Any]]] = defaultdict(list)
            for found in data["annotations"]:
                pair = (found["category_id"], found["segmentation"])
                self._regions[str(found["image_id"])].append(pair)
        except (DocumentError, KeyError, TypeError) as error:
            raise ValueError(
                f"{annotations}: expected a COCO instances file (images with id, file_name, "
                "height, width; annotations with image_id, category_id, segmentation), got "
                f"{type(error).__name__}: {error}"
            ) from error
        self._ids |= {Path(name).stem: key for name, key in self._ids.items()}

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Find the picture's regions by its id, file name or the file name's stem."""
        key = image_id if image_id in self._sizes else self._ids.get(image_id, "")
        if key not in self._sizes:
            raise ProposalError(f"{self._path}: has no image {image_id!r}, as an id or a file name")
        size = image.shape[:2]
        if size != tuple(self._sizes[key]):
            raise ProposalError(
                f"{self._path}: image {image_id!r} is {self._sizes[key]} (height, width) there, "
                f"but the picture is {size}; one of them was resized or rotated"
            )
        regions = self._regions.get(key, [])
        masks = [self._decode(segmentation, size, image_id) for _, segmentation in regions]
        if self.per_class:
            united: dict[int, np.ndarray] = {}
            for (category, _), mask in zip(regions, masks, strict=True):
                united[category] = united.get(category, False) | mask
            masks = [united[category] for category in sorted(united)]
        return without_empty(_stack(masks, size))

    def _decode(self, segmentation: Any, size: tuple[int, ...], image_id: str) -> np.ndarray:
        try:
            return decode_segmentation(segmentation, (size[0], size[1]))
        except ValueError as error:
            raise ProposalError(f"{self._path}: image {image_id!r}: {error}") from error


class FileProposer:
    """Reads regions that were made before, one file or folder a picture.

    For a picture named `NAME` (or `NAME.jpg` and so on): `NAME.npz` with an array "masks"
    (Q, H, W), nonzero inside; or `NAME.json` with a list of COCO RLE; or a folder `NAME/` of PNG
    masks, nonzero inside, in the order of their names.

    Args:
        folder: where they lie.

    Raises:
        ValueError: no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise ValueError(f"{folder}: expected a folder of masks, there is none")
        self.name = f"files:{self.folder.resolve().name}"

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        """Read the regions of a picture; see `RegionProposer`."""
        size = image.shape[:2]
        relative = PurePosixPath(image_id)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ProposalError(f"{image_id!r} is no name below {self.folder}")
        for name in dict.fromkeys((relative, relative.with_suffix(""))):
            base = self.folder / name
            for path, read in (
                (base.with_name(base.name + ".npz"), _read_npz),
                (base.with_name(base.name + ".json"), _read_rle_list),
                (base, _read_pngs),
            ):
                if path.exists():
                    return without_empty(self._checked(path, read(path, size), size))
        raise ProposalError(
            f"{self.folder}: expected {relative.stem}.npz, {relative.stem}.json or a folder "
            f"{relative.stem}/ for the picture {image_id!r}, found none of them"
        )

    @staticmethod
    def _checked(path: Path, masks: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        if masks.ndim != 3 or masks.shape[1:] != size:
            raise ProposalError(
                f"{path}: expected masks (Q, {size[0]}, {size[1]}) as the picture, got "
                f"{masks.shape}"
            )
        return masks != 0


def without_empty(masks: np.ndarray) -> np.ndarray:
    """Drop the masks (Q, H, W) bool that have no pixel."""
    return masks[masks.any(axis=(1, 2))] if masks.size else masks[:0]


def _stack(masks: Sequence[np.ndarray], size: tuple[int, ...]) -> np.ndarray:
    return np.stack(masks) if masks else np.zeros((0, *size), dtype=bool)


def _read_npz(path: Path, size: tuple[int, ...]) -> np.ndarray:
    try:
        return read_npz(path, ["masks"])["masks"]
    except (OSError, ValueError) as error:
        raise ProposalError(f"{path}: expected an array 'masks' (Q, H, W), got {error}") from error


def _read_rle_list(path: Path, size: tuple[int, ...]) -> np.ndarray:
    try:
        found = read_json(path)
        return _stack([decode_segmentation(one, (size[0], size[1])) for one in found], size)
    except (TypeError, ValueError) as error:
        raise ProposalError(f"{path}: expected a JSON list of COCO RLE: {error}") from error


def _read_pngs(path: Path, size: tuple[int, ...]) -> np.ndarray:
    masks = [read_label(file) for file in sorted(path.glob("*.png"))]
    if any(mask.shape != size for mask in masks):
        wrong = next(mask.shape for mask in masks if mask.shape != size)
        raise ProposalError(f"{path}: expected masks of {size} as the picture, got {wrong}")
    return _stack(masks, size)
