"""What each stage of OVSeg costs in time and memory, and what the cost-saving measures save."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from open_clip import CLIP
from torch import Tensor

from ovseg.clip import encode_texts, tokenize
from ovseg.modeling.ovseg import OVSeg
from ovseg.modeling.postprocess import Prediction
from ovseg.vocab import Vocabulary

__all__ = ["Comparison", "Cost", "compare_label_maps", "compare_text_towers", "measure", "stages"]

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


@dataclass(frozen=True)
class Comparison:
    """The same result computed in two ways.

    Attributes:
        plain: without the measure.
        saving: with it.
        difference: largest absolute difference of the results.
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


def compare_label_maps(prediction: Prediction, *, repeats: int = 3) -> Comparison:
    """Make labels from all scores at full size, then in bands of rows.

    Args:
        prediction: of one image.
        repeats: timed runs.
    """
    return _compare(
        lambda: prediction.sem_seg().argmax(0), prediction.labels, prediction.device, repeats
    )


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
