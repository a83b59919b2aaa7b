"""Label maps made from all scores at once, and from bands of rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg.benchmark.cost import Comparison, measure
from ovseg.modeling.prediction import BAND_BYTES, Prediction


@dataclass(frozen=True)
class LabelMaps(Comparison):
    """Labels from all scores at once, and from bands of rows.

    Attributes:
        rows: of the label map.
        plain_rows: rows whose scores were held at a time where all would not fit; the costs of
            `plain` are theirs. `difference` is that of all rows either way.
        bytes_per_row: of the scores of all classes.
    """

    rows: int
    plain_rows: int
    bytes_per_row: int

    @property
    def whole_bytes(self) -> int | None:
        """Memory of the plain way for all rows: measured, and for missing rows added."""
        if self.plain.peak_bytes is None:
            return None
        return self.plain.peak_bytes + (self.rows - self.plain_rows) * self.bytes_per_row

    def text(self) -> str:
        """The costs, and which of them were measured on a part of the rows."""
        if self.plain_rows == self.rows or self.whole_bytes is None:
            line = super().text().rpartition(", largest")[0]
        else:
            part, whole = f"{self.plain_rows} of {self.rows} rows at once", self.whole_bytes / 2**30
            line = f"{part}: {self.plain}; all in bands: {self.saving}\n  "
            line += f"all rows at once: {whole:.1f} GiB, measured on the part and added up"
        return f"{line}\n  pixels of all rows labelled differently: {self.difference:.0f}"

    def record(self) -> dict[str, float | None]:
        """The figures for JSON; `plain_bytes_all_rows` is `whole_bytes`."""
        own = {"rows": self.rows, "plain_rows": self.plain_rows}
        record = super().record() | own | {"plain_bytes_all_rows": self.whole_bytes}
        return record if self.plain_rows == self.rows else record | {"speedup": None}


def compare_label_maps(
    prediction: Prediction, *, repeats: int = 3, limit_bytes: int | None = None
) -> LabelMaps:
    """Make labels from all scores at full size, then in bands of rows.

    Args:
        prediction: of one image.
        repeats: timed runs.
        limit_bytes: room for the scores of all classes; where they take more, they are made for as
            many rows at a time as fit, so that the labels can be compared all the same.
    """
    height, width = prediction.output_size
    per_row = 4 * prediction.num_classes * width
    rows = height if limit_bytes is None else max(1, min(height, limit_bytes // per_row))
    with torch.no_grad():
        banded = prediction.labels()
        differing = 0
        for start, scores in _slabs(prediction, rows):
            labels = scores.argmax(0)
            differing += int((labels != banded[start : start + len(labels)]).sum())
    plain, saving = (
        measure(run, device=prediction.device, repeats=repeats, warm_up=False)
        for run in (lambda: next(_slabs(prediction, rows))[1].argmax(0), prediction.labels)
    )
    return LabelMaps(plain, saving, float(differing), height, rows, per_row)


def _slabs(prediction: Prediction, rows: int) -> Iterator[tuple[int, Tensor]]:
    """First row and scores (K, n, W) of slabs of rows, made from bands of the usual height."""
    height, width = prediction.output_size
    band_rows = max(1, BAND_BYTES // (4 * prediction.floats_per_pixel * width))
    start, slab = 0, torch.empty(0)
    for band, values in prediction.bands(band_rows):
        done = 0
        while done < band.stop - band.start:
            row = band.start + done
            if row == start:
                count = min(rows, height - start)
                slab = torch.empty(prediction.num_classes, count, width, device=prediction.device)
            taken = min(band.stop - row, start + slab.shape[1] - row)
            part = values[done : done + taken, :, : prediction.num_classes]  # (n, W, K)
            slab[:, row - start : row - start + taken] = part.permute(2, 0, 1)
            done += taken
            if row + taken == start + slab.shape[1]:
                yield start, slab
                start += slab.shape[1]
