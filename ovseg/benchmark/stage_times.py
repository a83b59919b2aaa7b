"""Seconds per stage of OVSeg, and what its savings bring."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from open_clip import CLIP
from torch import Tensor

from ovseg.benchmark.cost import Comparison, Cost, compare_ways, measure, wait_for
from ovseg.clip import encode_texts, tokenize
from ovseg.evaluation.confusion import confusion_matrix
from ovseg.modeling.ovseg import OVSeg
from ovseg.modeling.prediction import Prediction
from ovseg.vocab import Vocabulary


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
        wait_for(model.device)
        first = time.perf_counter() - began
        runs = []
        for _ in range(repeats):
            with _stopwatch(model) as seconds:
                began = time.perf_counter()
                model(inputs, vocabulary)
                wait_for(model.device)
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

    return compare_ways(whole, trimmed, model.device, repeats)


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


@contextmanager
def _stopwatch(model: OVSeg) -> Iterator[dict[str, float]]:
    """Collect the seconds spent in the stages of a model; nested calls count once each."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            wait_for(model.device)
            began = time.perf_counter()
            result = run(*args, **kwargs)
            wait_for(model.device)
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
