"""What each stage of OVSeg costs in time and memory, and what the cost-saving measures save."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from open_clip import CLIP
from torch import Tensor

from ovseg.clip import encode_texts, tokenize
from ovseg.evaluation.confusion import confusion_matrix
from ovseg.modeling.ovseg import OVSeg
from ovseg.modeling.prediction import BAND_BYTES, Prediction
from ovseg.vocab import Vocabulary

__all__ = [
    "Comparison",
    "Cost",
    "LabelMaps",
    "compare_label_maps",
    "compare_text_towers",
    "measure",
    "measure_evaluation",
    "stages",
]

_CLEAR_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Cost:
    """Cost of one run.

    Attributes:
        seconds: best of the repeats.
        peak_bytes: most memory held at a time on top of what was held before; None where the
            system does not tell.
    """

    seconds: float
    peak_bytes: int | None

    def __str__(self) -> str:
        memory = "" if self.peak_bytes is None else f", {self.peak_bytes / 2**20:.0f} MiB"
        return f"{self.seconds * 1e3:.1f} ms{memory}"


@dataclass(frozen=True)
class Comparison:
    """The same result computed in two ways.

    Attributes:
        plain: without the measure.
        saving: with it.
        difference: largest absolute difference of the results; of label maps, pixels that differ.
    """

    plain: Cost
    saving: Cost
    difference: float

    @property
    def speedup(self) -> float:
        """How many times less time the saving way takes."""
        return self.plain.seconds / self.saving.seconds

    @property
    def memory_ratio(self) -> float | None:
        """How many times less memory it takes, where both are known."""
        if self.plain.peak_bytes is None or not self.saving.peak_bytes:
            return None
        return self.plain.peak_bytes / self.saving.peak_bytes

    def text(self) -> str:
        """Times, memory and difference in one line."""
        plain, saving = self.plain, self.saving
        line = f"{plain.seconds * 1e3:.1f} ms -> {saving.seconds * 1e3:.1f} ms"
        line += f"  ({self.speedup:.1f}x faster)"
        if plain.peak_bytes is not None and saving.peak_bytes is not None:
            line += f", {plain.peak_bytes / 2**20:.0f} MiB -> {saving.peak_bytes / 2**20:.0f} MiB"
            ratio = self.memory_ratio
            line += "" if ratio is None else f"  ({ratio:.1f}x less)"
        return f"{line}, largest difference {self.difference:.2g}"

    def record(self) -> dict[str, float | None]:
        """The figures for JSON."""
        return {
            "plain_seconds": self.plain.seconds,
            "saving_seconds": self.saving.seconds,
            "speedup": self.speedup,
            "plain_bytes": self.plain.peak_bytes,
            "saving_bytes": self.saving.peak_bytes,
            "difference": self.difference,
        }


def measure(
    run: Callable[[], Any], *, device: torch.device, repeats: int = 3, warm_up: bool = True
) -> Cost:
    """Time a function and watch its memory, without gradients.

    Args:
        run: the function.
        device: where it computes; on "cuda" memory is torch's, on the CPU the whole process's.
        repeats: timed runs.
        warm_up: run once more before, untimed.

    Returns:
        Its cost.
    """
    with torch.no_grad():
        if warm_up:
            run()
        before = _held(device)
        times = []
        for _ in range(repeats):
            _wait(device)
            began = time.perf_counter()
            run()
            _wait(device)
            times.append(time.perf_counter() - began)
        peak = _peak(device)
    return Cost(min(times), None if before is None or peak is None else max(peak - before, 0))


def stages(
    model: OVSeg, image: Tensor, vocabulary: Vocabulary, *, repeats: int = 3
) -> dict[str, float]:
    """Seconds per stage of segmenting one image.

    Args:
        model: in eval mode, on its device.
        image: (3, h, w) RGB 0-255 at network size.
        vocabulary: K classes; encoding them is measured once, on an empty cache.
        repeats: runs of which the fastest counts.

    Returns:
        Seconds by stage, in the order of execution; "total" is the whole without "text, first
        time".
    """
    inputs = [{"image": image}]
    with torch.no_grad():
        model(inputs, vocabulary)
        model.clip_adapter.text_bank.clear()
        began = time.perf_counter()
        model.clip_adapter.text_features(vocabulary)
        _wait(model.device)
        first = time.perf_counter() - began
        runs = []
        for _ in range(repeats):
            with _stopwatch(model) as seconds:
                began = time.perf_counter()
                model(inputs, vocabulary)
                _wait(model.device)
                seconds["total"] = time.perf_counter() - began
            runs.append(seconds)
    best = min(runs, key=lambda seconds: seconds["total"])
    known = sum(value for name, value in best.items() if name != "total")
    total = best.pop("total")
    return {"text, first time": first, **best, "all else": total - known, "total": total}


def compare_text_towers(model: OVSeg, texts: list[str], *, repeats: int = 3) -> Comparison:
    """Encode texts with all 77 tokens, then without what follows the longest text.

    Args:
        model: its CLIP is used.
        texts: N prompts.
        repeats: timed runs.
    """
    clip = model.clip_adapter.clip_model

    def whole() -> Tensor:
        tokens = tokenize(texts).to(model.device)
        # open_clip's own method; that of our CLIP trims, too.
        return torch.cat([CLIP.encode_text(clip, chunk) for chunk in tokens.split(256)])

    def trimmed() -> Tensor:
        return encode_texts(clip, texts)

    return _compare(whole, trimmed, model.device, repeats)


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


def measure_evaluation(
    model: OVSeg, inputs: dict[str, Any], vocabulary: Vocabulary, *, repeats: int = 1
) -> Cost:
    """Cost of evaluating one image: proposals, names, label map, and its confusion matrix.

    Args:
        model: in eval mode, with output "labels".
        inputs: of one image.
        vocabulary: K classes; they are encoded before.
        repeats: timed runs.
    """
    size = (inputs["height"], inputs["width"])
    truth = np.random.default_rng(0).integers(0, len(vocabulary), size, dtype=np.uint16)
    model.clip_adapter.text_features(vocabulary)

    def run() -> None:
        labels = model([inputs], vocabulary)[0]["labels"].cpu().numpy()
        confusion_matrix(labels, truth, len(vocabulary), 65535)

    return measure(run, device=model.device, repeats=repeats, warm_up=False)


def _compare(
    plain: Callable[[], Tensor], saving: Callable[[], Tensor], device: torch.device, repeats: int
) -> Comparison:
    with torch.no_grad():
        difference = float((plain().float() - saving().float()).abs().max())
    costs = [measure(run, device=device, repeats=repeats, warm_up=False) for run in (plain, saving)]
    return Comparison(costs[0], costs[1], difference)


@contextmanager
def _stopwatch(model: OVSeg) -> Iterator[dict[str, float]]:
    """Collect the seconds spent in the stages of a model; nested calls count once each."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            _wait(model.device)
            began = time.perf_counter()
            result = run(*args, **kwargs)
            _wait(model.device)
            seconds[stage] += time.perf_counter() - began
            return result

        return wrapper

    adapter = model.clip_adapter
    places: list[tuple[str, Any, str]] = [
        ("backbone", model.backbone, "forward"),
        ("pixel decoder and transformer", model.sem_seg_head, "forward"),
        ("regions: crop and resize", adapter, "crop_regions"),
        ("regions: CLIP image tower", adapter.clip_model.visual, "forward"),
        ("label map", Prediction, "labels"),
    ]
    with ExitStack() as stack:
        for stage, owner, name in places:
            stack.enter_context(_replaced(owner, name, timed(stage, getattr(owner, name))))
        yield seconds


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    previous = vars(owner).get(name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        delattr(owner, name)
        if previous is not None:
            setattr(owner, name, previous)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _held(device: torch.device) -> int | None:
    """Bytes held now; the peak starts anew from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        _CLEAR_PEAK.write_text("5", encoding="ascii")  # Linux: forget the largest size so far
        return _status("VmRSS")
    except OSError:
        return None


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        return _status("VmHWM")
    except OSError:
        return None


def _status(field: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no {field}")
