"""A result as values that JSON can hold, and read back from its files."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ovseg.modeling.prediction import Proposal
from ovseg.readers.documents import read_json
from ovseg.readers.pictures import ImageError, read_label
from ovseg.regions import label_type
from ovseg.utils.pictures import ImageLike, to_rgb
from ovseg.visualization import palette

if TYPE_CHECKING:
    from ovseg.large_segmentation import LargeSegmentation
    from ovseg.segmentation import Segmentation

__all__ = ["FORMAT_VERSION", "describe", "read_stored"]

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
_LABELS = "_labels.png"


def describe(result: Segmentation | LargeSegmentation, *, proposals: bool) -> dict[str, Any]:
    """Describe a result; see `Segmentation.to_dict`."""
    colors = palette(result.names, background=result.background)
    height, width = result.labels.shape
    classes = result.to_coco_rle()
    for entry in classes:
        entry["share"] = round(entry["area"] / result.labels.size, 6)
        entry["color"] = colors[entry["category_id"]].tolist()
    described: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "height": height,
        "width": width,
        "names": list(result.names),
        "background": result.background,
        "blank_value": int(np.iinfo(label_type(len(result.names))).max),
        "unlabelled_pixels": result.labels.size - sum(entry["area"] for entry in classes),
        "classes": classes,
        "provenance": dict(result.provenance),
    }
    if proposals:
        if result.proposals is None:
            raise ValueError(
                "proposals: the model's masks were not listed; ask for them with "
                "segment(..., proposals=True)"
            )
        described["proposals"] = [_described(p, result.names) for p in result.proposals]
    return described


def _described(proposal: Proposal, names: Sequence[str]) -> dict[str, Any]:
    return {
        "category_id": proposal.label,
        "category_name": names[proposal.label],
        "score": round(proposal.score, 6),
        "proposal_score": round(proposal.proposal_score, 6),
        "clip_score": None if proposal.clip_score is None else round(proposal.clip_score, 6),
        "share": round(proposal.area, 6),
        "segmentation": proposal.rle,
    }


def read_stored(path: str | os.PathLike[str], image: ImageLike | None) -> dict[str, Any]:
    """Read a saved result.

    Args:
        path: its JSON file, its label map, or the folder that holds it alone.
        image: its picture; None for the file that it was made from.

    Returns:
        The arguments of `Segmentation`.

    Raises:
        ValueError: the files are no result of this package, or do not fit each other.
        OSError: one of them cannot be read.
    """
    described_file = _description(Path(path))
    described = _read(described_file)
    size = (described["height"], described["width"])
    blank = described["blank_value"]
    stored = read_label(described_file.with_name(described_file.stem + _LABELS))
    names = tuple(described["names"])
    labels = np.where(stored == blank, -1, stored).astype(np.int32)
    if labels.shape != size or labels.max(initial=-1) >= len(names):
        raise ValueError(
            f"{described_file}: expected a label map of {size} with labels below {len(names)}, got "
            f"one of {labels.shape} with labels up to {labels.max(initial=-1)}; the two files are "
            "of different results"
        )
    scores = np.zeros(len(names), np.float32)
    for entry in described["classes"]:
        scores[entry["category_id"]] = entry["score"]
    proposals = described.get("proposals")
    return {
        "image": _picture(described_file, described, size, image),
        "labels": labels,
        "names": names,
        "scores": scores,
        "proposals": None if proposals is None else tuple(map(_proposal, proposals)),
        "background": described["background"],
        "provenance": described["provenance"],
    }


def _description(path: Path) -> Path:
    """Find the JSON file of a result."""
    if path.is_dir():
        found = sorted(
            file.with_name(file.name.removesuffix(_LABELS) + ".json")
            for file in path.glob(f"*{_LABELS}")
        )
        if len(found) != 1:
            names = ", ".join(file.name for file in found[:10]) or "none"
            raise ValueError(f"{path}: expected a folder with one result, found {names}; name one")
        return found[0]
    if path.name.endswith(_LABELS):
        return path.with_name(path.name.removesuffix(_LABELS) + ".json")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        described = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path}: expected the JSON file of a saved result: {error}") from error
    version = described.get("format_version") if isinstance(described, dict) else None
    if version != FORMAT_VERSION or "blank_value" not in described:
        raise ValueError(
            f"{path}: expected the JSON file of a saved result (format_version {FORMAT_VERSION}), "
            f"got format_version {version}"
        )
    for key, check in _CHECKS.items():
        if not check(described.get(key), described):
            raise ValueError(
                f"{path}: {key}: not what a saved result has there, got "
                f"{described.get(key)!r:.80}; the file was changed or damaged"
            )
    return described


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _are_entries(value: Any, described: Mapping[str, Any], *numbers: str) -> bool:
    """Whether a list holds objects about the result's classes, with these numbers."""
    return isinstance(value, list) and all(
        isinstance(entry, dict)
        and entry.get("category_id") in range(len(described["names"]))
        and all(_is_number(entry.get(key)) for key in numbers)
        for entry in value
    )


def _are_proposals(value: Any, described: Mapping[str, Any]) -> bool:
    numbers = ("score", "proposal_score", "share")
    return value is None or (
        _are_entries(value, described, *numbers)
        and all(
            isinstance(entry.get("segmentation"), dict)
            and "clip_score" in entry
            and (entry["clip_score"] is None or _is_number(entry["clip_score"]))
            for entry in value
        )
    )


def _are_names(value: Any, _: Mapping[str, Any]) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


# What the values of a description have to be, in this order.
_CHECKS: Mapping[str, Callable[[Any, Mapping[str, Any]], bool]] = {
    "height": lambda value, _: type(value) is int,
    "width": lambda value, _: type(value) is int,
    "blank_value": lambda value, _: type(value) is int,
    "names": _are_names,
    "background": lambda value, described: (
        "background" in described
        and (value is None or (type(value) is int and value in range(len(described["names"]))))
    ),
    "provenance": lambda value, _: (
        isinstance(value, dict) and isinstance(value.get("image"), str | type(None))
    ),
    "classes": lambda value, described: _are_entries(value, described, "score"),
    "proposals": _are_proposals,
}


def _picture(
    file: Path, described: dict[str, Any], size: tuple[int, int], image: ImageLike | None
) -> np.ndarray:
    """Get the picture: the one given, or the file that the result names; else a white one."""
    source = described["provenance"].get("image")
    if image is None and source is not None:
        near = (Path(source), file.parent / Path(source).name)
        image = next((candidate for candidate in near if candidate.is_file()), None)
    if image is None:
        logger.warning(
            "%s: its picture %s is not there, so overlays will be over white; give it: "
            "Segmentation.load(..., image=...)", file, source or "(no file)",
        )  # fmt: skip
        return np.full((*size, 3), 255, np.uint8)
    pixels = to_rgb(image)
    if pixels.shape[:2] != size:
        raise ImageError(
            f"{file}: expected a picture of {size[1]} x {size[0]} pixels, got "
            f"{pixels.shape[1]} x {pixels.shape[0]} ({source}); give the one that was segmented: "
            "Segmentation.load(..., image=...)"
        )
    return pixels


def _proposal(entry: dict[str, Any]) -> Proposal:
    return Proposal(
        rle=entry["segmentation"],
        label=entry["category_id"],
        score=entry["score"],
        proposal_score=entry["proposal_score"],
        clip_score=entry["clip_score"],
        area=entry["share"],
    )
