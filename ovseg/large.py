"""Segmenting pictures of many megapixels into many classes, tile by tile.

>>> import ovseg
>>> from ovseg.large import segment_large
>>> result = segment_large(ovseg.load("ovseg_tiny"), "ortho.tif", ["roof", "road", "meadow"])
>>> result.save("out")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from ovseg.large_segmentation import LargeSegmentation
from ovseg.modeling.mosaic import Cell, Mosaic
from ovseg.modeling.prediction import Prediction, Window
from ovseg.modeling.segmentor import Encoding
from ovseg.readers.rasters import GeoTiff, PictureSource
from ovseg.regions import label_type
from ovseg.utils.pictures import ImageLike, open_picture, picture_name
from ovseg.visualization import BLANK
from ovseg.vocab import Names, Vocabulary

if TYPE_CHECKING:
    from ovseg.predictor import Predictor

__all__ = ["OVERLAP", "segment_large"]

OVERLAP = 0.25


@torch.no_grad()
def segment_large(
    predictor: Predictor,
    image: ImageLike,
    names: Names | str | Vocabulary,
    *,
    tile: int | None = None,
    overlap: float = OVERLAP,
    background: str | None = None,
    templates: str | Sequence[str] | None = None,
    threshold: float = 0.0,
    progress: bool = False,
) -> LargeSegmentation:
    """Cut a large picture into the regions of the classes named.

    Each tile is shown to the model as a picture of its own; where tiles overlap, their scores fade
    into each other (`ovseg.modeling.mosaic`). What is held in memory: a byte a pixel for the label
    map (two for more than 255 classes), the encodings of one row of tiles, the predictions of four
    tiles, and the picture, unless it is the path of a TIFF, which is read by windows.

    Args:
        predictor: the model.
        image: one picture, see `Predictor.segment`; the path of a TIFF takes the extra `geo`.
        names: class names, alone or with synonyms, a benchmark's name, or a vocabulary.
        tile: side of a tile in the picture's pixels, which the model scales as it does any picture;
            None: the shorter side that it scales to, so that nothing is lost.
        overlap: share of a tile that the next one covers again, in [0, 0.5].
        background: a further class for everything else.
        templates: other prompt templates than the model's.
        threshold: in [0, 1]; a class with a lower score loses its pixels.
        progress: show a bar of the tiles on stderr.

    Returns:
        The result, at the picture's own size; pixels of a GeoTIFF that hold no picture are left
        without a class.

    Raises:
        ImportError: a TIFF, and rasterio is not installed.
        ValueError: unusable image array or names, or a value out of range.
        OSError: the file cannot be read.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold: expected a score from 0 to 1, got {threshold}")
    vocabulary = predictor.vocabulary(names, background=background, templates=templates)
    tile = predictor.short_side if tile is None else tile
    with open_picture(image) as source:
        mosaic = Mosaic(source.size, tile=tile, overlap=overlap)
        gathered = _Gathered(source, len(vocabulary))
        with tqdm(total=len(mosaic), unit=" tiles", disable=not progress) as bar:

            def encode(window: Window) -> Encoding | None:
                bar.update()
                blank = source.blank(window)
                if blank is not None and blank.all():
                    return None
                encoding = predictor.set_image(source.read(window)).encoding
                encoding.forget()
                return encoding

            def decode(encoding: Encoding) -> Prediction:
                prediction = predictor.model.decode(encoding, vocabulary)
                encoding.forget()
                return prediction

            for cell in mosaic.cells(encode, decode):
                gathered.add(cell)
        georeference = source.georeference if isinstance(source, GeoTiff) else None
    name = picture_name(image)
    return LargeSegmentation(
        image=image,
        labels=gathered.labels,
        names=vocabulary.names,
        scores=gathered.finish(threshold),
        background=vocabulary.background,
        provenance={
            **({} if name is None else {"image": name}),
            **predictor.provenance,
            "templates": len(vocabulary.templates),
            "threshold": threshold,
            "tile": tile,
            "overlap": overlap,
        },
        georeference=georeference,
    )


class _Gathered:
    """Labels and scores of the cells so far.

    Args:
        source: the picture.
        classes: K.
    """

    def __init__(self, source: PictureSource, classes: int) -> None:
        kind = label_type(classes)
        self.source = source
        self.blank = int(np.iinfo(kind).max)
        self.labels = np.full(source.size, self.blank, kind)  # (H, W)
        self.pixels = np.zeros(classes, np.int64)
        self.total = np.zeros(classes)  # scores times pixels

    def add(self, cell: Cell) -> None:
        """Take the labels and scores of a cell."""
        labels = cell.labels.to("cpu", torch.int32).numpy()  # (h, w)
        blank = self.source.blank(cell.window)
        if blank is not None:
            labels[blank] = BLANK
        counts = np.bincount(labels.ravel() + 1, minlength=len(self.pixels) + 1)[1:]
        if counts.any():
            self.pixels += counts
            self.total += counts * cell.region_scores(labels).astype(np.float64)
        self.labels[cell.window] = np.where(labels == BLANK, self.blank, labels)

    def finish(self, threshold: float) -> np.ndarray:
        """Take classes below a score off the label map and return the scores, (K,) float32."""
        scores = (self.total / np.maximum(self.pixels, 1)).astype(np.float32)
        lost = scores < threshold
        if lost.any():
            kept = np.arange(self.blank + 1, dtype=self.labels.dtype)
            kept[: len(lost)][lost] = self.blank
            for row in self.labels:
                row[:] = kept[row]
        return np.where(lost, np.float32(0), scores)
