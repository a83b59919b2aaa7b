"""The result of segmenting one picture: labels, names, scores, and the masks behind them."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ovseg import visualization
from ovseg.exports import make_exporter
from ovseg.exports.supervision_detections import to_detections
from ovseg.modeling.prediction import Proposal
from ovseg.regions import ClassArea, Region, as_table, class_areas, label_type, xywh
from ovseg.stored import describe, read_stored
from ovseg.utils.files import write_json
from ovseg.utils.masks import encode_rle
from ovseg.utils.pictures import ImageLike
from ovseg.utils.result_files import refuse_to_replace, write_picture
from ovseg.visualization import BLANK

if TYPE_CHECKING:
    import supervision

VIEWS = ("overlay", "mask", "panel")


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A picture cut into named regions.

    Iteration gives the classes found as `Region`s, largest first; `result["sky"]` is one of them.

    Attributes:
        image: (H, W, 3) uint8 RGB, upright.
        labels: (H, W) int32 class indices; -1 where no class claims the pixel (only the demo
            inference mode leaves such pixels).
        names: K class names, in the order they were asked for.
        scores: (K,) float32 in [0, 1]. A class's score is the mean class score of the masks
            over the class's pixels, each mask weighted by its value there: the confidence with
            which its pixels were named. A class without pixels has score 0. Scores rank regions;
            they are not calibrated probabilities.
        proposals: the surviving masks with their top classes, best first; None where they were
            not asked for (``segment(..., proposals=True)``).
        background: index of the explicit background class, or None.
        provenance: what produced this: weights, config, backend, versions.
    """

    image: np.ndarray = field(repr=False)
    labels: np.ndarray = field(repr=False)
    names: tuple[str, ...]
    scores: np.ndarray
    proposals: tuple[Proposal, ...] | None = field(default=None, repr=False)
    background: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def areas(self) -> list[ClassArea]:
        """Measure the classes found.

        Returns:
            One entry per class with at least one pixel, largest first.
        """
        counts = visualization.pixel_counts(self.labels, len(self.names))
        return class_areas(counts, self.names, self.scores, self.labels.size)

    def __iter__(self) -> Iterator[Region]:
        return (self._region(area) for area in self.areas())

    def __len__(self) -> int:
        return len(self.areas())

    def __bool__(self) -> bool:
        return True  # a result, also where nothing was found

    def __contains__(self, name: object) -> bool:
        return any(area.name == name for area in self.areas())

    def __getitem__(self, name: str) -> Region:
        if name not in self.names:
            raise KeyError(f"expected one of {list(self.names)}, got {name!r}")
        found = next((area for area in self.areas() if area.name == name), None)
        return self._region(found or ClassArea(self.names.index(name), name, 0, 0.0, 0.0))

    @property
    def masks(self) -> np.ndarray:
        """(N, H, W) bool: the masks of the N classes found, in the order of iteration."""
        labels = np.array([area.label for area in self.areas()], np.int32)
        return self.labels == labels[:, None, None]

    def mask(self, name: str) -> np.ndarray:
        """Pick one class's region.

        Args:
            name: one of ``names``.

        Returns:
            (H, W) bool; all False where the class was not found.

        Raises:
            ValueError: the name was not asked for.
        """
        if name not in self.names:
            raise ValueError(f"name: expected one of {list(self.names)}, got {name!r}")
        return self.labels == self.names.index(name)

    def to_coco_rle(self) -> list[dict[str, Any]]:
        """Write each class found as one COCO result.

        Returns:
            Largest first: ``category_id`` (class index), ``category_name``, ``segmentation``
            (``size`` (H, W) and compressed ``counts`` as str), ``area`` in pixels, ``bbox``
            XYWH in pixels, ``score``.
        """
        results = []
        for area in self.areas():
            mask = self.labels == area.label
            results.append(
                {
                    "category_id": area.label,
                    "category_name": area.name,
                    "segmentation": encode_rle(mask),
                    "area": area.pixels,
                    "bbox": xywh(mask),
                    "score": round(area.score, 6),
                }
            )
        return results

    def to_hf(self) -> list[dict[str, Any]]:
        """Give the result the shape of a Hugging Face image-segmentation pipeline's.

        Returns:
            Largest first: ``label`` (name), ``score``, ``mask`` (PIL image of mode "L", 0 or 255).
        """
        return [
            {
                "label": area.name,
                "score": area.score,
                "mask": Image.fromarray((self.labels == area.label).astype(np.uint8) * 255),
            }
            for area in self.areas()
        ]

    def to_supervision(self) -> supervision.Detections:
        """Give the result to the supervision package's annotators and sinks.

        Returns:
            ``supervision.Detections``, one per class found, largest first, with ``xyxy`` pixels,
            ``mask``, ``confidence``, ``class_id`` and ``data["class_name"]``.

        Raises:
            ImportError: supervision is not installed.
        """
        return to_detections(list(self))

    def overlay(
        self,
        *,
        alpha: float = 0.5,
        legend: bool = True,
        outlines: bool = True,
        tags: bool = True,
    ) -> np.ndarray:
        """Show the result over the picture.

        Args:
            alpha: share of the tint, in [0, 1].
            legend: add a strip with names and area shares; the picture is then brought to a
                readable size. Without it the overlay keeps the picture's size.
            outlines: draw the borders between classes.
            tags: write each class's name into its largest part, where there is room.

        Returns:
            uint8 RGB picture.
        """
        return visualization.overlay(
            self.image,
            self.labels,
            self.names,
            background=self.background,
            alpha=alpha,
            legend=legend,
            outlines=outlines,
            tags=tags,
        )

    def label_map(self) -> tuple[np.ndarray, int]:
        """Make the label map as it is stored in a PNG.

        Returns:
            (H, W) uint8 with blank value 255 for up to 255 classes, else uint16 with 65535; and
            that blank value. Other values are class indices.

        Raises:
            ValueError: more classes than 16 bits can hold.
        """
        dtype = label_type(len(self.names))
        blank = int(np.iinfo(dtype).max)
        return np.where(self.labels == BLANK, blank, self.labels).astype(dtype), blank

    def to_dict(self, *, proposals: bool = False) -> dict[str, Any]:
        """Describe the result in values that JSON can hold.

        Args:
            proposals: include the model's masks with their scores.

        Returns:
            ``format_version``, ``height``, ``width``, ``names``, ``background``,
            ``blank_value`` (of the PNG label map), ``unlabelled_pixels``, ``classes`` (as
            :meth:`to_coco_rle`, plus ``share`` and ``color``), ``provenance``, and on request
            ``proposals``.

        Raises:
            ValueError: the masks are wanted and were not listed.
        """
        return describe(self, proposals=proposals)

    def save(
        self,
        directory: str | os.PathLike[str],
        *,
        stem: str = "segmentation",
        views: Sequence[str] = ("overlay",),
        proposals: bool = False,
    ) -> dict[str, Path]:
        """Write the result to files; each appears whole or not at all.

        Args:
            directory: made if missing.
            stem: start of every file name.
            views: pictures to write, of "overlay" (JPEG), "mask" (PNG), "panel" (JPEG).
            proposals: include the model's masks in the JSON file.

        Returns:
            The paths written: ``labels`` (``<stem>_labels.png``, see :meth:`label_map`),
            ``json`` (``<stem>.json``, see :meth:`to_dict`) and one per view
            (``<stem>_<view>.jpg|png``).

        Raises:
            ValueError: an unknown view, or masks that were not listed.
            FileExistsError: a file of another origin has one of the names; earlier results are
                replaced.
        """
        paths = result_paths(directory, stem, views)
        refuse_to_replace(paths.values())
        paths["json"].parent.mkdir(parents=True, exist_ok=True)
        write_picture(paths["labels"], self.label_map()[0])
        for view in views:
            write_picture(paths[view], self.view(view))
        described = self.to_dict(proposals=proposals)
        write_json(paths["json"], described, ensure_ascii=False)  # last: it marks a whole result
        return paths

    def table(self) -> str:
        """Set the classes found in a table of plain text.

        Returns:
            Lines of name, area in percent, pixels and score, largest first.
        """
        return as_table(self.areas(), self.labels.size)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, image: ImageLike | None = None) -> Segmentation:
        """Read back what `save` wrote.

        Args:
            path: the JSON file, the label map, or a folder that holds one result.
            image: the picture; by default the file that the result was made from. Where that is
                gone, a warning says so and the picture is white.

        Returns:
            The result, scores to six digits.

        Raises:
            ValueError: the files are no result of this package, or of different ones.
            OSError: one of them, or the picture, cannot be read, or has another size.
        """
        return cls(**read_stored(path, image))

    def export(
        self,
        format: str,  # the word that people look for
        folder: str | os.PathLike[str],
        *,
        stem: str | None = None,
        tolerance: float = 0.0,
    ) -> list[Path]:
        """Write the result for another tool; of many pictures see `ovseg.exports.make_exporter`.

        Args:
            format: one of `ovseg.exports.EXPORT_FORMATS`: "coco", "yolo", "labelme", "cvat",
                "label_studio".
            folder: made if missing; empty, or with an earlier export of these classes.
            stem: name of the picture's files; by default that of the picture's file.
            tolerance: vertices of polygons are left out as long as an outline moves by at most so
                many pixels.

        Returns:
            The files to give to the tool.

        Raises:
            ValueError: an unknown format.
            FileExistsError: the folder holds something else.
        """
        exporter = make_exporter(format, folder, self.names, tolerance=tolerance)
        source = self.provenance.get("image")
        exporter.add(self, stem=stem or Path(source or "segmentation").stem, source=source)
        return exporter.finish()

    def plot(self, *, ax: Any = None, **options: Any) -> Image.Image:
        """Draw the result: a notebook shows the picture, a script calls its `show` or `save`.

        Args:
            ax: axes of matplotlib to draw on, too.
            **options: of `overlay`.

        Returns:
            The overlay as a PIL image.
        """
        drawn = self.overlay(**options)
        if ax is not None:
            ax.imshow(drawn)
            ax.set_axis_off()
        return Image.fromarray(drawn)

    def _repr_png_(self) -> bytes:
        """The overlay, for notebooks."""
        stored = io.BytesIO()
        self.plot().save(stored, format="PNG")
        return stored.getvalue()

    def _region(self, area: ClassArea) -> Region:
        return Region(**vars(area), mask=self.labels == area.label)

    def view(self, view: str) -> np.ndarray:
        """Draw one of ``VIEWS``, a uint8 RGB picture."""
        if view == "overlay":
            return self.overlay()
        if view == "mask":
            colors = visualization.palette(self.names, background=self.background)
            return visualization.colorize(self.labels, colors)
        return visualization.panels(self.image, self.labels, self.names, background=self.background)


def result_paths(
    directory: str | os.PathLike[str], stem: str, views: Sequence[str], labels: str = ".png"
) -> dict[str, Path]:
    """Name the files of a result.

    Args:
        directory: where they lie.
        stem: start of every file name.
        views: pictures among them, see `Segmentation.save`.
        labels: the label map's suffix.

    Returns:
        Paths by kind: "labels", "json" and the views.

    Raises:
        ValueError: an unknown view.
    """
    check_views(views)
    folder = Path(directory)
    pictures = {v: folder / f"{stem}_{v}.{'png' if v == 'mask' else 'jpg'}" for v in views}
    return {
        "labels": folder / f"{stem}_labels{labels}",
        "json": folder / f"{stem}.json",
        **pictures,
    }


def check_views(views: Sequence[str]) -> None:
    """Refuse a view that cannot be drawn.

    Args:
        views: names of views.

    Raises:
        ValueError: one of them is not in ``VIEWS``.
    """
    if unknown := [view for view in views if view not in VIEWS]:
        raise ValueError(f"views: expected some of {list(VIEWS)}, got {unknown}")
