"""How each kind of recording of upstream PnP-OVSS is replayed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD
from ovseg.config import load_cfg
from ovseg.evaluation.confusion import confusion_matrix, scores
from ovseg.modeling import DensePrediction
from ovseg.modeling.views.dense_crf import has_dense_crf
from ovseg.projects.pnp_ovss.answers import kept_positions
from ovseg.projects.pnp_ovss.captions import Caption, Wording, class_maps, make_captions
from ovseg.projects.pnp_ovss.config import rules_of
from ovseg.projects.pnp_ovss.dropout import DropSettings, salience_dropout
from ovseg.projects.pnp_ovss.labels import (
    LabelRules,
    add_background,
    blur,
    keep_salient,
    min_max,
    refine,
    score_channels,
    upsample,
)
from ovseg.projects.pnp_ovss.loading import make_blip, make_tokenizer
from ovseg.projects.pnp_ovss.matcher import BlipMatcher, Tokens, gradient_map
from ovseg.projects.pnp_ovss.prediction import SubsetPrediction
from tests.parity.fill import fill
from tests.parity.recordings import Case, Recordings, assert_equal, assert_matches

pytest.importorskip("transformers")

FLOOR = 1e-9  # attributions are small
CLOSE = 1e-5  # channels that are closer may change places, on so many of the pixels:
TIES = 0.001
CRF_PIXELS, CRF_MARGINALS = 0.002, 1e-3  # with pydensecrf
OTHER_CRF = 0.01  # below the agreement of an exact mean field
PREFIX = "A picture of"
# Config of the dataset whose rules a case follows.
CONFIG_OF = {
    "voc": "pnp_ovss_voc_21",
    "psc": "pnp_ovss_context_60",
    "ade20k": "pnp_ovss_ade20k",
    "coco_object": "pnp_ovss_coco_object",
    "coco_stuff": "pnp_ovss_coco_stuff",
}


def same(actual: Tensor, recorded: Tensor, what: str) -> None:
    assert_matches(actual, recorded, what, floor=FLOOR)


def words_of(recordings: Recordings) -> list[str]:
    return recordings.index["conventions"]["vocabulary"]


def matcher_of(case: Case) -> BlipMatcher:
    """The case's BLIP, with weights that follow from its parameters' names."""
    vocabulary = words_of(case.recordings)
    given = case.entry["model"]
    text = {
        "vocab_size": len(vocabulary) + 2,
        "bos_token_id": len(vocabulary),
        "pad_token_id": vocabulary.index("[PAD]"),
        "sep_token_id": vocabulary.index("[SEP]"),
        **given["text"],
    }
    config = {
        "vision": given["vision"],
        "text": text,
        "projection_dim": 16,
        "image_text_hidden_size": 16,
    }
    model = make_blip(config).eval()
    fill(model)
    return BlipMatcher(model, make_tokenizer(vocabulary))


def pixels_of(case: Case) -> Tensor:
    images = case.tensor("images_rgb").permute(0, 3, 1, 2).float()  # (B, 3, S, S)
    mean, std = (torch.tensor(x)[:, None, None] for x in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD))
    return (images - mean) / std


def caption_of(matcher: BlipMatcher, names: list[str]) -> Caption:
    [caption] = make_captions(
        [Wording(rule="join").words(name) for name in names],
        prefix=PREFIX,
        pieces=matcher.pieces,
        max_tokens=matcher.max_tokens,
    )
    return caption


def tokens_of(case: Case, matcher: BlipMatcher) -> tuple[list[Caption], Tokens]:
    captions = [caption_of(matcher, names) for names in case.entry["class_names"]]
    assert [" ".join(c.words) for c in captions] == case.entry["captions"]
    tokens = matcher.tokenize([caption.words for caption in captions])
    assert_equal(tokens.ids, case.tensor("input_ids"), "input_ids")
    assert_equal(tokens.mask, case.tensor("attention_mask"), "attention_mask")
    return captions, tokens


def run_attribution(case: Case, folder: Path) -> None:
    matcher = matcher_of(case)
    _, tokens = tokens_of(case, matcher)
    features = matcher.encode_images(pixels_of(case))
    pairs = case.entry["layer_head_pairs"]
    grid = tuple(case.entry["grid"])
    together = sorted({layer for layer, _ in pairs})
    logits, at_once = matcher.attend(features, tokens, together)
    same(logits, case.tensor("itm_logits"), "itm_logits")
    for layer, head in pairs:
        _, alone = matcher.attend(features, tokens, [layer])
        for how, attention in (("alone", alone[layer]), ("with others", at_once[layer])):
            recorded = {
                f"P_{layer}_{head}": attention.probabilities[:, head],
                f"dP_{layer}_{head}": attention.gradient[:, head],
                f"G_{layer}_{head}": gradient_map(attention, tokens.mask, head, grid),
            }
            for name, found in recorded.items():
                if name in case.arrays:
                    same(found, case.tensor(name), f"{name}, {how}")


def run_salience_dropout(case: Case, folder: Path) -> None:
    entry, matcher = case.entry, matcher_of(case)
    captions, tokens = tokens_of(case, matcher)
    rows = torch.zeros(tokens.ids.shape[0], tokens.ids.shape[1] - 1, dtype=torch.bool)
    # Of a batch upstream takes the same rows of every caption, whatever their lengths.
    rows[:, len(PREFIX.split()) : -1] = True
    settings = DropSettings(rounds=entry["rounds"], top_k=entry["top_k"])
    total, rounds = salience_dropout(
        matcher,
        pixels_of(case),
        tokens,
        rows,
        layer=entry["layer"],
        head=entry["head"],
        settings=settings,
    )
    for number, each in enumerate(rounds):
        assert_equal(each.blanked, case.tensor("blanked")[number], f"blanked, round {number}")
        for name, found in (
            ("itm_logits", each.logits),
            ("G", each.maps),
            ("saliency", each.saliency),
        ):
            if name in case.arrays:
                same(found, case.tensor(name)[number], f"{name}, round {number}")
    if "G_first" in case.arrays:
        same(rounds[0].kept, case.tensor("G_first"), "G_first")
    same(total, case.tensor("G_aggregate"), "G_aggregate")
    for index, caption in enumerate(captions):
        if f"class_maps_{index}" in case.arrays:
            words = tokens.words[index][1:]
            recorded = mean_of_pieces(case.tensor(f"class_maps_{index}"), matcher, caption)
            same(class_maps(total[index], words, caption), recorded, f"class_maps_{index}")


def mean_of_pieces(recorded: Tensor, matcher: BlipMatcher, caption: Caption) -> Tensor:
    """What upstream left as a sum, the last class's map where it has several pieces, as a mean."""
    recorded = recorded.clone()
    recorded[-1] /= matcher.pieces(caption.words[-1])
    return recorded


def run_token_merging(case: Case, folder: Path) -> None:
    tokenizer = make_tokenizer(words_of(case.recordings))
    for index, item in enumerate(case.entry["items"]):
        names = item["class_names"]
        start = PREFIX.split()
        caption = Caption((*start, *names), tuple((len(start) + k,) for k in range(len(names))))
        cut = tokenizer(list(caption.words), is_split_into_words=True)
        assert tokenizer.convert_ids_to_tokens(cut["input_ids"])[1:-1] == item["tokens"]
        recorded = case.tensor(f"class_maps_{index}").clone()
        for k, (pieces, mean) in enumerate(zip(item["pieces"], item["equals_mean"], strict=True)):
            recorded[k] /= 1 if mean else pieces
        maps = case.tensor(f"G_{index}")
        same(class_maps(maps, cut.word_ids()[1:], caption), recorded, f"class_maps_{index}")


def rules_of_case(entry: dict[str, Any]) -> LabelRules:
    rules = rules_of(load_cfg(CONFIG_OF[entry["data_type"]]))
    assert rules.scale_01 == (entry["script"] == "coco")
    return replace(
        rules,
        threshold=entry["threshold"],
        blur=entry["blur_scale"],
        post=entry["postprocess"] or "none",
    )


def run_labels(case: Case, folder: Path) -> None:
    entry, rules = case.entry, rules_of_case(case.entry)
    maps, image = case.tensor("class_maps"), case.arrays["image_rgb"]
    assert image.shape[:2] == tuple(entry["size"])
    kept = keep_salient(maps, rules.threshold)
    same(kept, case.tensor("kept_maps"), "kept_maps")
    whole = upsample(kept, image.shape[:2])
    same(whole[:, ::2, ::2], case.tensor("upsampled_stride2"), "upsampled_stride2")
    assert entry["scaled_0_1_after_upsampling"] == (rules.scale_01 and len(maps) >= 2)
    whole = min_max(whole) if entry["scaled_0_1_after_upsampling"] else whole
    assert rules.has_background(len(maps)) == entry["has_background_channel"]
    channels = add_background(whole) if entry["has_background_channel"] else whole
    if "blurred_stride2" in case.arrays:
        sigma = rules.blur * max(image.shape[:2])
        assert sigma == pytest.approx(entry["blur_sigma"])
        recorded = case.tensor("blurred_stride2").nan_to_num(0.0)  # ours, of constant channels
        same(blur(channels, sigma)[:, ::2, ::2], recorded, "blurred_stride2")
    found = score_channels(maps, image, rules)
    torch.testing.assert_close(found, refine(channels, image, rules))
    compare_labels(case, found)


def compare_labels(case: Case, found: Tensor) -> None:
    """Channels and labels; with NaN in the recording, those that zeros in its place give."""
    entry, table = case.entry, torch.tensor(case.entry["label_of_channel"])
    total = int(table.max()) + 1
    prediction = DensePrediction(found, tuple(entry["size"]))
    labels = SubsetPrediction(prediction, table.tolist(), total).labels()
    assert torch.equal(labels, table[found.argmax(0)])
    wanted = "label_if_zero" if entry["nan"] else "label_lut"
    if wanted not in case.arrays:
        return
    recorded = case.tensor(wanted)
    differs = labels != recorded
    if "crf" not in (entry["postprocess"] or ""):
        top = found.topk(min(2, len(found)), dim=0).values
        certain = top[0] - top[-1] > CLOSE * found.abs().max() if len(found) > 1 else differs
        assert not (differs & certain).any(), "labels"
        assert differs.float().mean() <= TIES
    elif has_dense_crf() and not entry["nan"]:
        assert differs.float().mean() <= CRF_PIXELS
        marginals = case.tensor("crf_marginals_stride2")
        assert (found[:, ::2, ::2] - marginals).abs().max() <= CRF_MARGINALS
    else:
        agreement = 1 - differs.float().mean()
        assert agreement >= entry.get("exact_mean_field_agreement", 0.99) - OTHER_CRF
    if not entry["nan"] and "crf" not in (entry["postprocess"] or ""):
        channel = case.tensor("channel")
        assert (found.argmax(0) != channel).float().mean() <= TIES, "channel"
    if entry["upstream_label_equals_lut"] and not entry["nan"]:
        assert_equal(case.tensor("label"), case.tensor("label_lut"), "the recording itself")


def run_filter_answers(case: Case, folder: Path) -> None:
    entry = case.entry
    ids = {"names": range(1, len(entry["names"]) + 1), "sparse": entry["sparse_ids"]}
    for item in entry["items"]:
        kept = kept_positions(item["answer"], ids[item["vocabulary"]])
        assert list(kept) == item["kept_index"], item["answer"]


def run_metric(case: Case, folder: Path) -> None:
    count = case.entry["n_labels"]
    truth, found = case.arrays["label"], case.arrays["prediction"]
    matrix = sum(
        confusion_matrix(one, labels, count, ignore_label=65535)
        for one, labels in zip(found, truth, strict=True)
    )
    np.testing.assert_array_equal(matrix[:count, :count].T, case.arrays["histogram"])
    measured = scores(matrix, [f"class {k}" for k in range(count)])
    assert measured["mIoU-gt"] == pytest.approx(100 * case.entry["mean_iou"])
    assert measured["pACC"] == pytest.approx(100 * case.entry["pixel_accuracy"])


RUNNERS = {
    "attribution": run_attribution,
    "salience_dropout": run_salience_dropout,
    "token_merging": run_token_merging,
    "labels": run_labels,
    "filter_answers": run_filter_answers,
    "metric": run_metric,
}


def runner_of(case: Case) -> Callable[[Case, Path], None] | None:
    """The function that replays a case, None if its kind is unknown."""
    return RUNNERS.get(case.kind)
