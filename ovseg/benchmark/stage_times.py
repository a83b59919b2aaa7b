"""Seconds per stage of OVSeg, and what its savings bring."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ovseg.benchmark.cost import Comparison, Cost, compare_ways, measure, wait_for
from ovseg.benchmark.reference import WholeTexts
from ovseg.benchmark.replacing import replaced
from ovseg.clip import encode_texts
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
            with stopwatch(model) as seconds:
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

    whole = WholeTexts(clip)
    return compare_ways(
        lambda: whole(texts), lambda: encode_texts(clip, texts), model.device, repeats
    )


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
def stopwatch(model: OVSeg, read: Callable[[], float] | None = None) -> Iterator[dict[str, float]]:
    """Collect what the stages of a model take.

    Args:
        model: in eval mode.
        read: a reading that grows, such as a count of operations; None: seconds, once the device
            has finished.

    Yields:
        The difference of the readings around each stage, by its name, in the order of execution.
    """
    taken: dict[str, float] = defaultdict(float)

    def clock() -> float:
        wait_for(model.device)
        return time.perf_counter()

    read = read or clock

    def timed(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            began = read()
            result = run(*args, **kwargs)
            taken[stage] += read() - began
            return result

        return wrapper

    adapter = model.clip_adapter
    places: list[tuple[str, Any, str]] = [
        ("backbone", model.backbone, "forward"),
        ("pixel decoder and transformer", model.sem_seg_head, "forward"),
        ("regions: crop and resize", adapter, "crop_regions"),
        ("regions: CLIP image tower", adapter, "encode_batch"),
        ("label map", Prediction, "labels"),
    ]
    with ExitStack() as stack:
        for stage, owner, name in places:
            stack.enter_context(replaced(owner, name, timed(stage, getattr(owner, name))))
        yield taken
