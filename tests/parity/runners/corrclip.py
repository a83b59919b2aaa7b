"""How each kind of recording of upstream CorrCLIP is replayed.

The model is the one that users run, built from a case's CLIP and vision model; what passes between
its parts is watched from outside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, build_clip
from ovseg.config import load_cfg
from ovseg.modeling import DensePrediction
from ovseg.projects.corrclip import correlation, tower
from ovseg.projects.corrclip.dense import DenseFeatures, TimmFeatures
from ovseg.projects.corrclip.model import CorrCLIP, Decision, WindowSettings
from ovseg.projects.corrclip.prediction import RegionwisePrediction
from ovseg.projects.corrclip.strings import with_strings
from ovseg.projects.corrclip.tower import CorrelationSettings
from ovseg.projects.corrclip.windows import Window, average_windows, plan_windows
from ovseg.utils.masks import paint_by_area, paint_by_score
from ovseg.vocab import Vocabulary
from tests.parity.fill import fill
from tests.parity.recordings import Case, assert_equal, assert_matches

ABSOLUTE = 1e-5  # of means and distances of similarities
CLOSE = 1e-4  # probabilities nearer than this may be ordered either way
LABELS = 1e-3  # share of such pixels
PAIRS = 1e-6  # likewise of a similarity and the mean


class Given(DenseFeatures):
    """Recorded features in place of a vision model."""

    name, cell = "recorded", 1

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        return self.features[None]


class GivenRegions:
    name = "recorded"

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def __call__(self, image: np.ndarray, image_id: str) -> np.ndarray:
        assert image.shape[:2] == self.ids.shape
        return self.ids


def clip_of(case: Case) -> nn.Module:
    config = case.entry["clip_config"]
    clip = build_clip(config if isinstance(config, dict) else config.split()[0])
    fill(clip)
    return clip.eval()


def vision_of(entry: dict[str, Any], positions: str = "dino") -> TimmFeatures:
    sizes = {"img_size": entry["image_size"], "patch_size": entry["patch_size"]}
    shape = {key: entry[key] for key in ("embed_dim", "depth", "num_heads")}
    more = {key: entry[key] for key in ("mlp_ratio", "qkv_bias") if key in entry}
    norm = partial(nn.LayerNorm, eps=entry["ln_eps"])
    vit = VisionTransformer(
        **sizes, **shape, **more, norm_layer=norm, num_classes=0, dynamic_img_size=True
    )
    fill(vit)
    return TimmFeatures(vit.eval(), name="recorded", positions=positions)


def model_of(
    case: Case,
    *,
    dense: DenseFeatures,
    regions: np.ndarray,
    windows: WindowSettings,
    decision: Decision | None = None,
) -> CorrCLIP:
    return CorrCLIP(
        clip=clip_of(case),
        clip_name="recorded",
        dense=dense,
        regions=GivenRegions(regions),
        correlation=CorrelationSettings(),
        windows=windows,
        decision=decision or Decision(),
        pixel_mean=CLIP_PIXEL_MEAN,
        pixel_std=CLIP_PIXEL_STD,
        templates="imagenet",
    ).eval()


def input_of(case: Case, size: tuple[int, int]) -> dict[str, Any]:
    image = case.tensor("image_rgb").permute(2, 0, 1).float()  # (3, h, w)
    return {"image": image, "height": size[0], "width": size[1]}


def vocabulary_of(model: CorrCLIP, lines: list[str], rows: Tensor) -> Vocabulary:
    """Classes whose strings have the given text rows."""
    vocabulary = Vocabulary.make(lines, templates="predefined")
    strings = [s for texts in with_strings(vocabulary).prompts for s in texts]
    model.texts.remember(Vocabulary.make(strings, templates="predefined"), rows)
    return vocabulary


@contextmanager
def watch(*places: tuple[Any, str]) -> Iterator[dict[str, list[tuple[tuple[Any, ...], Any]]]]:
    """Keeps arguments and result of every call of some functions."""
    seen: dict[str, list[tuple[tuple[Any, ...], Any]]] = {name: [] for _, name in places}

    def watched(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            seen[name].append((args, result))
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in places:
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        yield seen


@torch.no_grad()
def run_forward(case: Case, folder: Path) -> None:
    entry = case.entry
    grid, crop = tuple(entry["feature_grid"]), tuple(entry["crop"])
    dense = case.tensor("dense_raw").float().T.unflatten(1, grid)  # (C, h, w)
    whole = WindowSettings(crop=max(crop), stride=max(crop), pad_multiple=1)
    ids = case.arrays["region_map"]
    model = model_of(case, dense=Given(dense), regions=ids, windows=whole)
    normed: list[Tensor] = []
    model.clip.visual.ln_post.register_forward_hook(lambda _m, _i, out: normed.append(out))
    places = [(tower, name) for name in ("resize_ids", "allowed_pairs", "rebuilt_attention")]
    places += [(tower, name) for name in ("embed_patches", "last_values", "mix_values")]
    places += [(correlation, name) for name in ("region_distances", "cluster_regions")]
    cls = tower.CorrelatedTower
    with watch(*places, (cls, "run_blocks"), (cls, "fuse")) as seen:
        [encoding] = model.encode([input_of(case, crop)])
    first, last = cls(model.clip.visual, CorrelationSettings()).spatial_blocks
    assert [first, last - 1] == entry["spatial_blocks"]
    compare_correlation(case, seen)
    outputs, summaries, _ = seen["run_blocks"][0][1]
    fuse_inputs, features = seen["fuse"][0][0][1:], seen["fuse"][0][1]
    vocabulary = Vocabulary.make([str(i) for i in range(len(case.arrays["text"]))])
    model.texts.remember(vocabulary, case.tensor("text"))
    cosines = torch.einsum("pd,dhw->phw", case.tensor("text"), encoding.features[0])
    compare_rows(
        case,
        {
            "x0": seen["embed_patches"][0][1][0][0],
            "block_outputs": torch.cat(outputs),
            "mct_final": summaries,
            "value_grid": seen["last_values"][0][1],
            **dict(zip(("main_pre", "spatial_pre", "semantic_pre"), fuse_inputs, strict=True)),
            **dict(zip(("main", "spatial", "semantic"), normed[-3:], strict=True)),
            "features": features,
            "logits_f": cosines,
            "logits": model.decode(encoding, vocabulary).scores,
        },
    )


def compare_correlation(case: Case, seen: dict[str, list[Any]]) -> None:
    """Regions, their merging, the scope and the attention."""
    (similarity, merged, *_), scope = seen["allowed_pairs"][0]
    assert bool(seen["region_distances"]) == bool(case.arrays["region_cluster"].size)
    found = {
        "region_map_f": (assert_equal, seen["resize_ids"][0][1]),
        "merged_f": (assert_same_parts, merged.unflatten(0, tuple(case.entry["feature_grid"]))),
        "merged_g": (assert_same_parts, seen["resize_ids"][1][1]),
        "sim_mean": (assert_near, similarity.mean()),
    }
    if seen["region_distances"]:
        found["region_distance"] = (assert_near, seen["region_distances"][0][1])
        found["region_cluster"] = (assert_same_parts, seen["cluster_regions"][0][1])
    for key, (compare, value) in found.items():
        if key in case.arrays:
            compare(value, case.tensor(key), key)
    same = compare_scope(case, similarity, scope)
    attention = seen["rebuilt_attention"][0][1]
    if "attention" in case.arrays:
        assert_matches(attention[same], case.tensor("attention")[same], "attention")
    if "attention_rows" in case.arrays:
        rows = case.tensor("attention_rows_index")
        rows, kept = rows[same[rows]], same[rows]
        assert_matches(attention[rows], case.tensor("attention_rows")[kept], "attention_rows")


def compare_scope(case: Case, similarity: Tensor, scope: Tensor) -> Tensor:
    """Which pairs may correlate; returns the rows in which no doubtful pair fell otherwise."""
    packed = case.arrays["scope_packed"]
    wanted = torch.from_numpy(np.unpackbits(packed, axis=1, count=len(scope))).bool()
    differs = scope != wanted
    doubtful = (similarity - case.tensor("sim_mean")).abs() < PAIRS
    assert not (differs & ~doubtful).any(), "scope differs"
    same = ~differs.any(1)
    assert_equal(scope.sum(1)[same], case.tensor("scope_row_counts")[same], "scope_row_counts")
    return same


def compare_rows(case: Case, found: dict[str, Tensor]) -> None:
    """Everything from the tokens on, whole or those rows that were recorded."""
    index = {key: case.tensor(key) for key in case.arrays if case.arrays[key].dtype == np.int64}
    rows_of = {"x0": "token_rows", "features": "rows64"}
    rows_of |= dict.fromkeys(("main", "spatial", "semantic"), "rows16")
    compared = 0
    for key, value in found.items():
        parts = {key: value}
        if key in rows_of and rows_of[key] in index:
            parts[f"{key}_rows"] = value[index[rows_of[key]]]
        if key == "block_outputs" and "block_token_rows" in index:
            parts["block_outputs_rows"] = value[:, index["block_token_rows"]]
        if key == "logits":
            parts["logits_stride8"] = value[:, ::8, ::8]
        for name, part in parts.items():
            if name in case.arrays:
                assert_matches(part, case.tensor(name), name)
                compared += 1
    assert compared >= 6, f"only {compared} arrays of {sorted(case.arrays)} are known"


@torch.no_grad()
def run_dense_features(case: Case, folder: Path) -> None:
    vision = vision_of(case.entry["vit"])
    image = case.tensor("image_rgb").permute(2, 0, 1).float()
    assert_matches(vision.normalise(image), case.tensor("vfm_input"), "vfm_input")
    features = vision(image[None])[0]  # (C, h, w)
    assert list(features.shape[1:]) == case.entry["feature_grid"]
    rows = nn.functional.normalize(features.flatten(1).T, dim=1)
    assert_matches(rows, case.tensor("dense"), "dense")
    stock = vision_of(case.entry["vit"], positions="timm")(image[None])[0].flatten(1).T
    off = (nn.functional.normalize(stock, dim=1) - case.tensor("dense")).abs().max()
    assert float(off) <= 1.1 * case.entry["timm_max_abs_difference"] + ABSOLUTE


def run_sliding_windows(case: Case, folder: Path) -> None:
    default = load_cfg("corrclip_vitB").MODEL.CORRCLIP.WINDOW
    for one in case.entry["cases"]:
        windows = plan_windows(
            one["height"],
            one["width"],
            crop=one["crop"],
            stride=one["stride"],
            pad_multiple=one.get("pad_multiple", default.PAD_MULTIPLE),
        )
        assert [list(window) for window in windows] == one["windows"]


def run_decide(case: Case, folder: Path) -> None:
    scores, classes = case.tensor("logits"), case.tensor("query_idx")
    size = tuple(scores.shape[1:])
    decide = partial(
        RegionwisePrediction,
        scores,
        size,
        classes=classes,
        count=int(classes.max()) + 1,
        scale=case.entry["logit_scale"],
    )
    assert_matches(decide().sem_seg(), case.tensor("class_prob"), "class_prob")
    threshold = case.entry["prob_thd"]
    before = decide(threshold=threshold, background=0)
    final = decide(threshold=threshold, background=0, regions=case.tensor("region_map"))
    compare_labels(case, before, final, decide().sem_seg(), threshold)


def compare_labels(
    case: Case,
    before: RegionwisePrediction,
    final: RegionwisePrediction,
    probabilities: Tensor,
    threshold: float,
) -> None:
    best = probabilities.topk(2, dim=0).values  # (2, H, W)
    doubtful = (best[0] - best[1] < CLOSE) | ((best[0] - threshold).abs() < CLOSE)
    wrong = before.labels() != case.tensor("label_before_correction")
    assert not (wrong & ~doubtful).any() and wrong.float().mean() <= LABELS
    assert (final.labels() != case.tensor("label")).float().mean() <= LABELS
    for prediction in (before, final):
        assert_equal(prediction.sem_seg().argmax(0), prediction.labels(), "argmax of the scores")


@torch.no_grad()
def run_end_to_end(case: Case, folder: Path) -> None:
    entry = case.entry
    names = {"crop": "crop", "stride": "stride", "pad_multiple": "pad_multiple"}
    threshold = entry["prob_thd"]
    decision = Decision(scale=entry["logit_scale"], threshold=threshold, background_id=0)
    model = model_of(
        case,
        dense=vision_of(entry["vfm"]),
        regions=case.arrays["region_map"],
        windows=WindowSettings(**{name: entry[key] for name, key in names.items()}),
        decision=decision,
    )
    rows = case.tensor("query_features")
    vocabulary = vocabulary_of(model, entry["class_file_lines"], rows)
    size = tuple(entry["original_size"])
    with watch((Window, "cut")) as seen:
        [encoding] = model.encode([input_of(case, size)])
    assert len(encoding.windows) == entry["n_windows"]
    assert list(encoding.size) == entry["resized_size"]
    ids = [result for _, result in seen["cut"] if not result.is_floating_point()]
    for name, number in (("first", 0), ("last", -1)):
        recorded = case.tensor(f"{name}_window_region_map")
        assert_equal(ids[number], recorded, f"{name}_window_region_map")
        extent = encoding.windows[number].size
        cosines = torch.einsum("pd,dhw->phw", rows, encoding.features[number])
        logits = average_windows([Window(0, 0, *extent, 0, 0, 0, 0)], [cosines], extent)
        key = f"{name}_window_logits_stride2"
        assert_matches(logits[:, ::2, ::2], case.tensor(key), key)
    final = model.decode(encoding, vocabulary)
    assert_equal(final.classes, case.tensor("query_idx"), "query_idx")
    logits = DensePrediction(final.scores, size).sem_seg()
    assert_matches(logits[:, ::2, ::2], case.tensor("logits_stride2"), "logits_stride2")
    options = {"classes": final.classes, "count": final.count, "scale": final.scale}
    plain = RegionwisePrediction(final.scores, size, **options)
    before = RegionwisePrediction(final.scores, size, **options, threshold=threshold, background=0)
    compare_labels(case, before, final, plain.sem_seg(), threshold)


def run_flatten(case: Case, folder: Path) -> None:
    masks, scores = case.arrays["masks"], case.arrays["scores"]
    assert_equal(torch.from_numpy(paint_by_area(masks)), case.tensor("by_area"), "by_area")
    painted = torch.from_numpy(paint_by_score(masks, scores))
    assert_equal(painted, case.tensor("by_score"), "by_score")


def run_text(case: Case, folder: Path) -> None:
    settings = WindowSettings(pad_multiple=1)
    nothing = np.zeros((1, 1), np.int32)
    model = model_of(case, dense=Given(torch.zeros(1, 1, 1)), regions=nothing, windows=settings)
    lines = Vocabulary.make(case.entry["class_file_lines"], templates=model.templates)
    features, classes = model.texts.prompt_features(with_strings(lines))
    assert_matches(features, case.tensor("query_features"), "query_features")
    assert_equal(classes, case.tensor("query_idx"), "query_idx")


def run_class_file(case: Case, folder: Path) -> None:
    vocabulary = with_strings(Vocabulary.make(case.entry["lines"]))
    pairs = [(i, text) for i, texts in enumerate(vocabulary.prompts) for text in texts]
    assert [text for _, text in pairs] == [name.strip() for name in case.entry["names"]]
    assert [i for i, _ in pairs] == case.entry["query_idx"]


def assert_near(actual: Tensor, recorded: Tensor, what: str) -> None:
    error = float((actual - recorded).abs().max())
    assert error <= ABSOLUTE, f"{what}: largest difference {error:.3g}"


def assert_same_parts(actual: Tensor, recorded: Tensor, what: str) -> None:
    """Equal up to the numbers, which keep their order."""
    assert_equal(
        actual.unique(return_inverse=True)[1], recorded.unique(return_inverse=True)[1], what
    )


RUNNERS = {
    "forward": run_forward,
    "dense_features": run_dense_features,
    "sliding_windows": run_sliding_windows,
    "decide": run_decide,
    "end_to_end": run_end_to_end,
    "flatten": run_flatten,
    "text": run_text,
    "class_file": run_class_file,
}


def runner_of(case: Case) -> Callable[[Case, Path], None] | None:
    """Tell how a case is replayed; None for a kind that is not known."""
    return RUNNERS.get(case.kind)
