"""How each kind of recording of upstream SegCLIP is replayed.

The size of the model follows from the recorded names and shapes; everything else from the index and
the arrays.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import open_clip.loss
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ovseg.clip import encode_texts, encode_tokens, tokenize
from ovseg.clip.contrastive import ContrastiveLoss
from ovseg.config import load_cfg
from ovseg.d2.config import CfgNode
from ovseg.d2.modeling import build_model
from ovseg.projects.segclip.inference import class_logits
from ovseg.projects.segclip.losses import Noise, inverse_temperature, superpixel_kl
from ovseg.projects.segclip.mapper import RandomResizedCrop
from ovseg.projects.segclip.model import SegCLIP
from ovseg.projects.segclip.parameters import optimizer_groups
from ovseg.projects.segclip.reconstruction import (
    Masking,
    patchify,
    reconstruction_error,
    sincos_positions,
)
from ovseg.projects.segclip.superpixels import Felzenszwalb, superpixels_of_patches
from ovseg.training.optimizer import build_lr_scheduler, build_optimizer
from ovseg.vocab import Vocabulary
from tests.parity.fill import fill
from tests.parity.recordings import (
    GRADIENT_TOLERANCE,
    LOSS_TOLERANCE,
    SCORE_TOLERANCE,
    Case,
    Recordings,
    assert_equal,
    assert_matches,
    copies,
)

BACKGROUND = "no class"
LABELS_EQUAL = 0.995
LOGITS_DIFFERENT = 0.02
SMALLEST_NORM = 1e-4

Values = Mapping[str, Tensor]


# -- the model -------------------------------------------------------------------------------


def segclip_cfg(recordings: Recordings, folder: Path, opts: list[Any] | None = None) -> CfgNode:
    """The configuration whose model has the recorded names and shapes."""
    shapes = shapes_of(recordings)
    visual, transformer = "clip.visual.", "clip.visual.transformer."
    width, _, patch, _ = shapes[visual + "conv1.weight"]
    grid = math.isqrt(shapes[visual + "positional_embedding"][0] - 1)
    vocabulary, text_width = shapes["clip.token_embedding.weight"]
    stages = [_count(shapes, f"{transformer}layers{stage}.") for stage in ("0", "2", "_mae2")]
    clip = {
        "embed_dim": shapes[visual + "proj"][1],
        "quick_gelu": True,
        "vision_cfg": {
            "image_size": grid * patch,
            "patch_size": patch,
            "width": width,
            "layers": stages[0] + stages[1],
            "head_width": shapes[transformer + "semantic_layer2.k_conv.weight"][1],
        },
        "text_cfg": {
            "context_length": shapes["clip.positional_embedding"][0],
            "vocab_size": vocabulary,
            "width": text_width,
            "heads": text_width // 64,
            "layers": _count(shapes, "clip.transformer.resblocks."),
        },
    }
    (folder / "clip.json").write_text(json.dumps(clip), encoding="utf-8")
    group = transformer + "semantic_layer2."
    settings = {
        "CLIP_ADAPTER.CLIP_MODEL_NAME": str(folder / "clip.json"),
        "CLIP_ADAPTER.CLIP_WEIGHTS": "random",
        "SEGCLIP.FIRST_STAGE_LAYERS": stages[0],
        "SEGCLIP.NUM_CENTERS": shapes[group + "semantic_center"][0],
        "SEGCLIP.CROSS_LAYERS": _count(shapes, group + "cross_att."),
        "SEGCLIP.MAE.ENCODER_LAYERS": stages[2],
        "SEGCLIP.MAE.DEC_DIM": shapes["vis_mae_decoder.decoder_embed.weight"][0],
        "SEGCLIP.MAE.DEC_DEPTH": _count(shapes, "vis_mae_decoder.decoder_blocks."),
        "DEVICE": "cpu",
    }
    pairs = [item for key, value in settings.items() for item in (f"MODEL.{key}", value)]
    return load_cfg("segclip_vitB16", [*pairs, *(opts or [])])


def shapes_of(recordings: Recordings) -> dict[str, list[int]]:
    """Recorded names and shapes; those of the copy where another folder holds cases alone."""
    name = "state_dict_segclip.json"
    if not (recordings.folder / name).is_file():
        [recordings] = [copy for copy in copies() if copy.project == "segclip"]
    return recordings.read(name)


def _count(shapes: Mapping[str, Any], prefix: str) -> int:
    return len({name[len(prefix) :].split(".")[0] for name in shapes if name.startswith(prefix)})


@lru_cache(maxsize=1)
def _filled(recordings: Recordings, folder: Path) -> SegCLIP:
    model = build_model(segclip_cfg(recordings, folder))
    with torch.no_grad():
        fill(model)
    return model.requires_grad_(True)  # norms are recorded of locked parameters, too


_folders: dict[Recordings, Path] = {}


def segclip(case: Case, folder: Path, *, training: bool = False) -> SegCLIP:
    """The full-size model, built once, as the cases expect it."""
    folder = _folders.setdefault(case.recordings, folder)
    model = _filled(case.recordings, folder).train(training)
    model.zero_grad(set_to_none=True)
    for layer in model.clip.visual.transformer.semantic_layer2.cross_att:
        layer.batch_mix = bool(case.entry.get("batch_mix"))
    return model


# -- comparing -------------------------------------------------------------------------------


def compare(case: Case, found: Values) -> None:
    """Compares what the case has recorded of the values that were found."""
    compared = [name for name in case.arrays if name in found]
    assert compared, f"none of {', '.join(found)} in the recording"
    for name in compared:
        recorded = case.tensor(name)
        if recorded.is_floating_point():
            assert_matches(found[name], recorded, name)
        else:
            assert_equal(found[name], recorded, name)


def assert_scores(actual: Tensor, recorded: Tensor, what: str) -> None:
    """Compares with `|a - b| <= 1e-3 * max|b|`."""
    assert actual.shape == recorded.shape, f"{what}: {tuple(actual.shape)}"
    error = float((actual - recorded).abs().max()) if recorded.numel() else 0.0
    assert error <= SCORE_TOLERANCE * float(recorded.abs().max()), f"{what}: {error:.3g}"


def assert_labels(actual: Tensor, recorded: Tensor, safe: Tensor, what: str) -> None:
    same = actual == recorded
    assert bool(same[safe].all()), f"{what}: {int((~same[safe]).sum())} safe pixels differ"
    assert float(same.float().mean()) >= LABELS_EQUAL, what


@contextmanager
def outputs_of(*modules: nn.Module) -> Iterator[list[list[Any]]]:
    """Collects what modules put out."""
    seen: list[list[Any]] = [[] for _ in modules]
    handles = [
        module.register_forward_hook(lambda _m, _i, out, kept=kept: kept.append(out))
        for module, kept in zip(modules, seen, strict=True)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def normalised(model: SegCLIP, images: Tensor) -> Tensor:
    """Recorded pictures (..., H, W, 3) uint8 to the network's input."""
    return (images.movedim(-1, -3).float() - model.pixel_mean) / model.pixel_std


# -- inference -------------------------------------------------------------------------------


@torch.no_grad()
def run_visual(case: Case, folder: Path) -> None:
    visual = segclip(case, folder).clip.visual
    transformer = visual.transformer
    images = normalised(segclip(case, folder), case.tensor("image_uint8"))[None]
    modules = (
        visual.ln_pre,
        transformer.layers0[-1],
        transformer.semantic_layer2.cross_ln,
        transformer.layers2[-1],
    )
    with outputs_of(*modules) as seen:
        found = visual(images)
    embedded, blocks, queries, grouped = (outputs[0][0] for outputs in seen)
    slice_shape = case.arrays.get("tokens_after_block10_slice", np.empty((1, 64))).shape
    compare(
        case,
        {
            "image_feature": found.image[0],
            "group_features": found.groups[0],
            "logits": found.grouping.logits[0],
            "soft_map": found.grouping.soft[0],
            "hard_index": found.grouping.hard[0].argmax(0),
            "centers_q": queries,
            "group_tokens_stage0": found.grouping.tokens[0],
            "group_tokens_stage2": grouped,
            "tokens_after_ln_pre_slice": embedded[:8, :64],
            "tokens_after_block10_slice": blocks[
                :: len(blocks) // slice_shape[0], : slice_shape[1]
            ],
        },
    )


@torch.no_grad()
def run_text(case: Case, folder: Path) -> None:
    model = segclip(case, folder)
    names, templates = case.entry["class_names"], case.entry["templates"]
    texts = [template.format(name) for name in names for template in templates]
    raw = encode_texts(model.clip, texts).unflatten(0, (len(names), len(templates)))
    if len(templates) == 1:
        raw = raw[:, 0]
    rows = model.texts.features(Vocabulary.make(names, templates=templates))
    compare(case, {"tokens": tokenize(texts), "raw": raw, "class_embedding": rows})
    if "class_embedding_if_normalised_first" in case.arrays:
        other = case.tensor("class_embedding_if_normalised_first")
        assert float((rows - other).abs().max()) > 1e-4, "normalised before the mean"


@torch.no_grad()
def run_captions(case: Case, folder: Path) -> None:
    model = segclip(case, folder)
    tokens = tokenize(case.entry["captions"], case.arrays["tokens"].shape[1])
    raw = encode_tokens(model.clip, tokens)
    compare(case, {"tokens": tokens, "mask": tokens != 0, "raw": raw})


def _vocabulary(case: Case, *, background: bool) -> Vocabulary:
    names = case.entry["class_names"]
    if not background:
        return Vocabulary.make(names, templates="predefined")
    return Vocabulary.make([BACKGROUND, *names], templates="predefined", background=BACKGROUND)


@torch.no_grad()
def run_crop(case: Case, folder: Path) -> None:
    model, entry = segclip(case, folder), case.entry
    model.crop = model.stride = case.arrays["image_uint8"].shape[0]
    [encoding] = model.encode([{"image": case.tensor("image_uint8").permute(2, 0, 1)}])
    named = _vocabulary(case, background=False)
    text, scale = model.texts.features(named), float(inverse_temperature(model.clip.logit_scale))
    image_logits = class_logits(encoding.images, text, scale)[0]
    found = {
        "class_embedding": text,
        "image_class_logits": image_logits,
        "group_class_logits": class_logits(encoding.groups, text, scale)[0],
    }
    compare(case, found)
    kept = image_logits.topk(min(model.top_classes, len(named))).indices.sort().values.tolist()
    assert kept == sorted(entry["kept_classes"])
    affinity = model.group_scores(encoding, named)[0]  # (K, N)
    assert_scores(affinity, case.tensor("affinity"), "affinity")

    safe = case.tensor("safe")
    assert_labels(encoding.pixels[0], case.tensor("group_index"), safe, "group_index")
    rows, near = model.decode(encoding, named).sem_seg()[:, ::4, ::4], safe[::4, ::4]
    recorded = case.tensor("fg_logits_every4")
    assert_scores(rows[:, near], recorded[:, near], "fg_logits_every4")
    for index, threshold in enumerate(entry["bg_thresholds"]):
        model.background_threshold = threshold
        vocabulary = _vocabulary(case, background=entry["with_background"])
        prediction = model.decode(encoding, vocabulary)
        label = case.tensor(f"label_{index}")
        assert_labels(prediction.labels(), label, safe, f"label_{index}")
        if entry["with_background"]:
            drawn = case.tensor(f"background_{index}")
            assert_labels(prediction.sem_seg()[0], drawn, safe, f"background_{index}")


@torch.no_grad()
def run_whole(case: Case, folder: Path) -> None:
    model, entry = segclip(case, folder), case.entry
    image = case.tensor(
        "network_image_uint8" if "network_image_uint8" in case.arrays else "image_uint8"
    )
    boxes = entry["windows_y1x1y2x2"]
    model.crop = model.stride = boxes[0][2] - boxes[0][0]
    height, width = entry["original_size"]
    assert list(image.shape[:2]) == entry["network_size"]
    [encoding] = model.encode([{"image": image.permute(2, 0, 1), "height": height, "width": width}])
    assert [[t, left, t + model.crop, left + model.crop] for t, left in encoding.starts] == boxes
    vocabulary = _vocabulary(case, background=entry["with_background"])
    for index, threshold in enumerate(entry["bg_thresholds"]):
        model.background_threshold = threshold
        prediction = model.decode(encoding, vocabulary)
        safe = case.tensor(f"safe_{index}")
        label = case.tensor(f"label_{index}")
        assert_labels(prediction.labels(), label, safe, f"label_{index}")
        if f"logits_{index}" in case.arrays:
            recorded = case.tensor(f"logits_{index}")
            assert_scores(prediction.scores[:, safe], recorded[:, safe], f"logits_{index}")
        if f"logits_network_size_every2_{index}" in case.arrays:
            recorded = case.tensor(f"logits_network_size_every2_{index}")
            error = (prediction.scores[:, ::2, ::2] - recorded).abs()
            wrong = error > SCORE_TOLERANCE * recorded.abs().max()
            assert float(wrong.float().mean()) <= LOGITS_DIFFERENT, f"logits {index}"


# -- training --------------------------------------------------------------------------------


def run_train(case: Case, folder: Path) -> None:
    model, entry = segclip(case, folder, training=True), case.entry
    visual = model.clip.visual
    transformer, decoder = visual.transformer, model.vis_mae_decoder
    images = normalised(model, case.tensor("images_uint8"))
    noise = Noise(
        case.tensor("gumbel_contrastive"),
        case.tensor("gumbel_mae"),
        case.tensor("mae_noise")[:, 1:],
    )
    tokens = case.tensor("tokens").long()
    assert_equal(tokenize(entry["captions"], tokens.shape[1]), tokens, "tokens")
    spied = (transformer.semantic_layer2, visual.ln_post, model.clip.ln_final)
    rebuilding = (transformer.reconstruct_layer2, transformer.layers_mae2[-1], decoder)
    with outputs_of(*spied, *rebuilding) as seen:
        superpixels = case.tensor("patch_superpixel_ids").flatten(1).long()
        losses = model.compare(images, tokens, superpixels, noise)
    groupings, (tokens_out,), (text_out,), (ungrouped,), (rebuilt,), (predicted,) = seen
    total = sum(losses.values())
    total.backward()

    image_rows = (tokens_out @ visual.proj)[:, 0].detach()
    text_rows = (text_out @ model.clip.text_projection).detach()
    scale = inverse_temperature(model.clip.logit_scale).detach()
    unit = (F.normalize(image_rows, dim=-1), F.normalize(text_rows, dim=-1))
    by_image, by_text = model.contrastive.pairwise.get_logits(*unit, scale)
    masking = Masking.from_noise(noise.masking, model.settings.mask_ratio)
    positions = [0, 1, 2, 50, 100, 196]
    hard = groupings[0].hard.detach()
    compare(
        case,
        {
            "image_features": image_rows,
            "text_features": text_rows,
            "logits_t2v": by_text,
            "logits_v2t": by_image,
            "hard_index": hard.argmax(1),
            **_with_class_position(masking),
            "mae_hard_index": groupings[1].hard.argmax(1),
            "mae_ungrouped_slice": ungrouped[:, :8, :64],
            "mae_tokens_slice": rebuilt[:, :8, :64],
            "mae_tokens_mean": rebuilt.mean(1),
            "mae_pred_slice": predicted[:, positions, :96],
            "grad_visual_proj_slice": visual.proj.grad[::12, ::8],
            "grad_logit_scale": model.clip.logit_scale.grad[None],
        },
    )
    assert float((hard - hard.round()).abs().max()) < 1e-5
    _compare_losses(case, losses, total)
    _compare_gradients(case, model)
    if "mae_with_sincos_position_table" in entry:
        with torch.no_grad(), sincos(model):
            again = model.compare(images, tokens, None, noise)["loss_reconstruction"]
        wanted = entry["mae_with_sincos_position_table"]
        assert float(again) == pytest.approx(wanted, rel=LOSS_TOLERANCE)


def _compare_losses(case: Case, losses: Values, total: Tensor) -> None:
    names = {"contrastive": "contrastive", "superpixel_kl": "superpixel", "mae": "reconstruction"}
    for name, recorded in case.entry["losses"].items():
        got = total if name == "total" else losses[f"loss_{names[name]}"]
        rel = GRADIENT_TOLERANCE if name == "superpixel_kl" else LOSS_TOLERANCE
        assert got.item() == pytest.approx(recorded, rel=rel), name


def _compare_gradients(case: Case, model: SegCLIP) -> None:
    parameters = dict(model.named_parameters())
    norms = case.entry["grad_norms"]
    assert set(norms) <= set(parameters)
    for name, recorded in norms.items():
        gradient = parameters[name].grad
        norm = 0.0 if gradient is None else float(gradient.norm())
        if recorded is not None and (recorded >= SMALLEST_NORM or norm >= SMALLEST_NORM):
            assert norm == pytest.approx(recorded, rel=GRADIENT_TOLERANCE), name
    transformer = model.clip.visual.transformer
    whole = {
        "grad_semantic_center": transformer.semantic_layer2.semantic_center,
        "grad_rec_proj_weight": transformer.reconstruct_layer2.rec_proj_a["a_fc"].weight,
    }
    for name, parameter in whole.items():
        if name in case.arrays:
            assert_scores(parameter.grad, case.tensor(name), name)


def _with_class_position(masking: Masking) -> dict[str, Tensor]:
    """A masking of patches as upstream stores it, with the class token in front."""
    first = torch.zeros(len(masking.keep), 1, dtype=torch.int64)
    return {
        "mae_mask": torch.cat([first, masking.hidden.long()], dim=1),
        "mae_ids_restore": torch.cat([first, masking.restore + 1], dim=1),
        "mae_ids_keep": torch.cat([first, masking.keep + 1], dim=1),
    }


@contextmanager
def sincos(model: SegCLIP) -> Iterator[None]:
    """With the decoder's true table of positions in place of the filled one."""
    table, grid = model.vis_mae_decoder.decoder_pos_embed, model.clip.visual.grid_size
    filled = table.detach().clone()
    with torch.no_grad():
        table.copy_(sincos_positions(grid, table.shape[2]))
        try:
            yield
        finally:
            table.copy_(filled)


def run_loss(case: Case, folder: Path) -> None:
    if "image_features" in case.arrays:
        _run_contrastive(case)
    elif "patch_superpixel_ids" in case.arrays:
        _run_superpixel_kl(case)
    else:
        _run_decoder(case, folder)


def _run_contrastive(case: Case) -> None:
    first, *others = map(
        float, re.findall(r"logit_scale(?: parameter)? = ([\d.]+\d)", case.entry["what"])
    )
    loss, grads = _contrastive(case, ContrastiveLoss(), first)
    assert loss == pytest.approx(case.entry["loss"], rel=LOSS_TOLERANCE)
    compare(case, {"grad_image": grads[0], "grad_text": grads[1]})
    wanted = case.entry["grad_logit_scale"]
    assert float(grads[2]) == pytest.approx(wanted, rel=GRADIENT_TOLERANCE)
    for value in others:
        loss, grads = _contrastive(case, ContrastiveLoss(), value)
        recorded = case.entry[f"loss_logit_scale_{value:g}"]
        assert loss == pytest.approx(recorded, rel=LOSS_TOLERANCE)
        assert float(grads[2]) == case.entry[f"grad_logit_scale_at_{value:g}"]
    if "image_features_rank0" in case.arrays:
        loss, grads = _contrastive(case, *_second_of_two(case), first)
        assert loss == pytest.approx(case.entry["loss_world2_rank1"], rel=LOSS_TOLERANCE)
        names = ("grad_image_world2_rank1", "grad_text_world2_rank1")
        compare(case, dict(zip(names, grads[:2], strict=True)))


def _contrastive(case: Case, *rest: Any) -> tuple[float, tuple[Tensor, ...]]:
    *loss_and_patch, logit_scale = rest
    loss = loss_and_patch[0]
    inputs = [case.tensor(f"{kind}_features").requires_grad_(True) for kind in ("image", "text")]
    inputs.append(torch.tensor(logit_scale, requires_grad=True))
    rows = [F.normalize(features, dim=-1) for features in inputs[:2]]
    with pytest.MonkeyPatch.context() as patch:
        if len(loss_and_patch) == 2:
            patch.setattr(open_clip.loss, "gather_features", loss_and_patch[1])
        value = loss(*rows, inverse_temperature(inputs[2]))
    return value.item(), torch.autograd.grad(value, inputs)


def _second_of_two(case: Case) -> tuple[ContrastiveLoss, Callable[..., tuple[Tensor, Tensor]]]:
    """The loss of the second process, with the recorded rows of the first as constants."""
    loss = ContrastiveLoss()
    loss.pairwise.rank, loss.pairwise.world_size = 1, 2
    first = [
        F.normalize(case.tensor(f"{kind}_features_rank0"), dim=-1) for kind in ("image", "text")
    ]

    def gather(images: Tensor, texts: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([first[0], images]), torch.cat([first[1], texts])

    return loss, gather


def _run_superpixel_kl(case: Case) -> None:
    ids = case.tensor("patch_superpixel_ids").flatten(1).long()
    other_ids = {
        "soft_unique_ids": torch.arange(ids.shape[1]).expand_as(ids),
        "soft_one_id": torch.zeros_like(ids),
    }
    for key, recorded in case.entry.items():
        if not key.startswith("loss_"):
            continue
        kind = key.removeprefix("loss_")
        given = case.tensor(f"M_{kind.split('_')[0]}").double().requires_grad_(True)
        loss = superpixel_kl(given, other_ids.get(kind, ids))
        assert loss.item() == pytest.approx(recorded, rel=LOSS_TOLERANCE, abs=1e-12), key
        if f"grad_{kind}" in case.arrays:
            [gradient] = torch.autograd.grad(loss, given)
            assert_matches(gradient, case.tensor(f"grad_{kind}"), f"grad_{kind}", floor=0.0)


@torch.no_grad()
def _run_decoder(case: Case, folder: Path) -> None:
    model, entry = segclip(case, folder), case.entry
    decoder = model.vis_mae_decoder
    images = normalised(model, case.tensor("images_uint8"))
    masking = Masking.from_noise(case.tensor("mae_noise")[:, 1:], model.settings.mask_ratio)
    predicted = decoder(case.tensor("tokens"), masking.restore)
    with sincos(model):
        with_table = decoder(case.tensor("tokens"), masking.restore)
        rows = decoder.decoder_pos_embed[0, case.arrays["sincos_rows_index"]].clone()
    positions, patch = [0, 1, 2, 50, 100, 196], model.clip.visual.patch_size
    stored = {
        name.removeprefix("mae_"): value for name, value in _with_class_position(masking).items()
    }
    target = patchify(images, patch)[:, [0, 1, 49, 99, 195], :96]
    compare(
        case,
        {
            **stored,
            "pred_slice": predicted[:, positions, :96],
            "pred_sincos_slice": with_table[:, positions, :96],
            "target_slice": target,
            "sincos_rows": rows,
        },
    )
    everywhere = torch.ones_like(masking.hidden)
    found = {
        "loss": reconstruction_error(predicted, images, masking.hidden),
        "loss_all_patches": reconstruction_error(predicted, images, everywhere),
        "loss_sincos": reconstruction_error(with_table, images, masking.hidden),
    }
    for name, value in found.items():
        if name in entry:
            assert float(value) == pytest.approx(entry[name], rel=LOSS_TOLERANCE), name


def run_superpixels(case: Case, folder: Path) -> None:
    settings = case.entry["felzenszwalb"]
    image = case.arrays["image_uint8"]
    method = Felzenszwalb(settings["scale"], settings["sigma"], settings["min_size"])
    ids = method(image)
    assert_equal(torch.from_numpy(ids), case.tensor("superpixel_ids"), "superpixel_ids")
    resized = case.arrays["last_crop_resized_uint8"]
    crop = RandomResizedCrop(resized.shape[0])
    cuts = [crop.cut(image, tuple(place)) for place in case.entry["crops_top_left_height_width"]]
    boxes = case.arrays["boxes"]
    np.testing.assert_array_equal(np.array([box for _, box in cuts]), boxes[: len(cuts)])
    np.testing.assert_array_equal(cuts[-1][0], resized)
    wanted = case.arrays["patch_ids"]
    for box, patches in zip(boxes, wanted, strict=True):
        patch_size = crop.size // len(patches)
        found = superpixels_of_patches(ids, tuple(box), size=crop.size, patch_size=patch_size)
        np.testing.assert_array_equal(found, patches)


def run_optimizer(case: Case, folder: Path) -> None:
    text, arrays = case.entry["what"], case.arrays
    share = float(re.search(r"warm-up fraction ([\d.]+\d)", text)[1])
    rates = [float(rate) for rate in re.findall(r"lr ([\d.]+e-?\d+)", text)]
    decay = float(re.search(r"decay ([\d.]+\d)", text)[1])
    names = {"w": "clip.visual.proj", "b": "clip.ln_final.bias"}
    model = nn.Module()
    for key in names:
        model.register_parameter(key, nn.Parameter(torch.from_numpy(arrays[key][0]).clone()))
    parameters = [(name, getattr(model, key)) for key, name in names.items()]
    model.optimizer_groups = lambda: optimizer_groups(
        parameters, lr_new=rates[0], lr_clip=rates[1], weight_decay=decay
    )
    settings = ["SOLVER.MAX_ITER", len(arrays["schedule"]), "SOLVER.WARMUP_SHARE", share]
    cfg = load_cfg("segclip_vitB16", settings)
    optimizer = build_optimizer(cfg, model)
    schedule = build_lr_scheduler(cfg, optimizer)
    factors = []
    for step in range(len(arrays["schedule"])):
        factors.append(optimizer.param_groups[0]["lr"] / rates[0])
        if step < len(arrays["grad_w"]):
            for key in names:
                getattr(model, key).grad = torch.from_numpy(arrays[f"grad_{key}"][step])
            optimizer.step()
            for key in names:
                after = getattr(model, key).detach().numpy()
                np.testing.assert_allclose(after, arrays[key][step + 1], rtol=1e-6, atol=1e-9)
        schedule.step()
    np.testing.assert_allclose(factors, arrays["schedule"], rtol=1e-6, atol=1e-12)


RUNNERS = {
    "visual": run_visual,
    "text": run_text,
    "text_train": run_captions,
    "crop": run_crop,
    "whole": run_whole,
    "train": run_train,
    "loss": run_loss,
    "superpixel": run_superpixels,
    "optimizer": run_optimizer,
}


def runner_of(case: Case) -> Callable[[Case, Path], None] | None:
    """The function that replays a case, None if its kind is unknown."""
    return RUNNERS.get(case.kind)
