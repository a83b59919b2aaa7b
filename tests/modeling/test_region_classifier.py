from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F

from ovseg.clip import CLIP_PIXEL_MEAN, CLIP_PIXEL_STD, build_clip
from ovseg.modeling.region_classifier import RegionClassifier, expand_box
from tests.modeling.tiny import image, vocabulary


def classifier(**options) -> RegionClassifier:
    torch.manual_seed(0)
    depth = options.pop("depth", 2)
    clip = build_clip("ovseg-tiny", mask_prompt_depth=depth)
    torch.nn.init.normal_(clip.visual.mask_embedding)
    return RegionClassifier(clip_model=clip, **options)


def classify(adapter, picture, masks, words=None):
    """Logits (V, K + 1) of the masks that are not empty, and which these are."""
    regions = adapter(picture, masks)
    text = adapter.text_features(words or vocabulary())
    return adapter.similarity(regions.features[regions.valid], text), regions.valid


def blobs(count: int = 5, height: int = 40, width: int = 56) -> torch.Tensor:
    torch.manual_seed(4)
    masks = torch.zeros(count, height, width)
    for index in range(count):
        masks[index, 3 * index : 3 * index + 20, 5 * index : 5 * index + 25] = 0.9
    return masks * (0.5 + 0.5 * torch.rand_like(masks))


def slow_region(adapter: RegionClassifier, picture, mask, box, fill) -> torch.Tensor:
    """The definition: blend in 0-255, normalise, resize."""
    left, top, right, bottom = box
    binary = (mask > adapter.mask_threshold).float()[None]
    color = torch.tensor(fill)[:, None, None]
    region = (picture * binary + color * (1 - binary))[:, top:bottom, left:right]
    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_PIXEL_MEAN, CLIP_PIXEL_STD))
    region = ((region - mean) / std)[None]
    size = adapter.clip_model.image_size
    return F.interpolate(region, size=size, mode="bicubic", align_corners=False)[0]


@pytest.mark.parametrize(("fill", "color"), [("mean", CLIP_PIXEL_MEAN), ("zero", (0.0, 0.0, 0.0))])
def test_regions_are_blended_normalised_and_resized_in_this_order(fill, color):
    adapter = classifier(mask_fill=fill, expand_ratio=1.2)
    picture, masks = image(40, 56), blobs()
    valid, boxes = adapter.locate(masks)
    assert valid.all()
    normalised = (picture - adapter.pixel_mean[0]) / adapter.pixel_std[0]
    regions, prompts = adapter.crop_regions(normalised, masks, boxes)
    for index, box in enumerate(boxes):
        expected = slow_region(adapter, picture, masks[index], box, color)
        torch.testing.assert_close(regions[index], expected, rtol=1e-4, atol=1e-4)
        left, top, right, bottom = box
        binary = (masks[index] > 0.4).float()[None, None, top:bottom, left:right]
        assert torch.equal(prompts[index], F.interpolate(binary, size=(64, 64))[0])


def test_boxes_are_expanded_about_the_centre_truncated_and_clipped():
    assert expand_box((10, 20, 21, 40), 1.3, (100, 100)) == (8, 17, 22, 43)
    assert expand_box((0, 0, 10, 10), 2.0, (12, 100)) == (0, 0, 15, 12)
    assert expand_box((3, 4, 9, 8), 1.0, (20, 20)) == (3, 4, 9, 8)


@pytest.mark.parametrize("chunk_size", [1, 2, 5, 64])
def test_chunk_size_does_not_change_the_result(chunk_size):
    expected = classifier(chunk_size=3)(image(40, 56), blobs()).features
    features = classifier(chunk_size=chunk_size)(image(40, 56), blobs()).features
    torch.testing.assert_close(features, expected)


def test_the_prompt_changes_features_and_matting_switches_it_off():
    picture, masks = image(40, 56), blobs() * 0.0
    masks[0, :20, :20] = masks[0, 20:, 20:] = 0.9  # leaves two empty quadrants in its box
    prompted = classifier(mask_prompt=True)(picture, masks[:1]).features
    plain = classifier(mask_prompt=False)(picture, masks[:1]).features
    assert (prompted - plain).abs().max() > 1e-2
    soft = masks.clamp(min=0.01)
    with_prompt = classifier(matting=True)(picture, soft[:1]).features
    without = classifier(matting=True, mask_prompt=False)(picture, soft[:1]).features
    torch.testing.assert_close(with_prompt, without)


def test_masks_below_the_threshold_are_left_out():
    masks = blobs()
    masks[[0, 3]] *= 0.1
    adapter = classifier()
    logits, valid = classify(adapter, image(40, 56), masks)
    assert valid.tolist() == [False, True, True, False, True]
    expected, _ = classify(adapter, image(40, 56), masks[valid])
    torch.testing.assert_close(logits, expected)
    assert logits.shape == (3, 4)


def test_no_mask_at_all_gives_no_features():
    logits, valid = classify(classifier(), image(40, 56), torch.zeros(3, 40, 56))
    assert logits.shape == (0, 4) and not valid.any()


def test_only_the_no_object_embedding_is_trained_and_clip_stays_in_eval_mode():
    adapter = classifier().train()
    assert [n for n, p in adapter.named_parameters() if p.requires_grad] == ["non_object_embedding"]
    assert adapter.training and not any(m.training for m in adapter.clip_model.modules())


def test_text_is_encoded_once_per_class():
    adapter = classifier()
    calls = []
    encode = adapter.text_bank._encode
    adapter.text_bank._encode = lambda texts: calls.append(texts) or encode(texts)
    first = adapter.text_features(vocabulary("cat", "dog"))
    second = adapter.text_features(vocabulary("dog", "cat", "cow"))
    assert calls == [["a photo of a cat.", "a photo of a dog."], ["a photo of a cow."]]
    assert torch.equal(first[0], second[1])
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))


def test_text_features_follow_new_weights_and_a_move():
    adapter = classifier()
    before = adapter.text_features(vocabulary())
    state = {name: value + 0.1 for name, value in adapter.clip_model.state_dict().items()}
    adapter.clip_model.load_state_dict(state)
    after = adapter.text_features(vocabulary())
    assert (after - before)[:-1].abs().max() > 1e-3
    adapter.to(torch.device("cpu"))
    assert len(adapter.text_bank) == 0


def test_a_copy_encodes_text_with_its_own_clip():
    original = classifier()
    copied = copy.deepcopy(original)
    with torch.no_grad():
        copied.clip_model.text_projection.zero_().fill_diagonal_(1)
    assert not torch.equal(copied.text_features(vocabulary()), original.text_features(vocabulary()))


def test_gradients_reach_the_no_object_embedding_through_the_similarity():
    adapter = classifier()
    logits = adapter.similarity(torch.randn(4, 64), adapter.text_features(vocabulary()))
    logits[:, -1].sum().backward()
    assert adapter.non_object_embedding.grad.abs().sum() > 0


def test_other_image_sizes_of_clip_are_used():
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "image_size": 48,
            "layers": 1,
            "width": 32,
            "head_width": 16,
            "patch_size": 16,
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 16,
            "heads": 1,
            "layers": 1,
        },
    }
    adapter = RegionClassifier(clip_model=build_clip(config, mask_prompt_depth=1))
    features = adapter(image(40, 56), blobs()).features
    assert features.shape == (5, 16)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"MASK_FILL: expected one of .*got 'blur'"):
        classifier(mask_fill="blur")
    with pytest.raises(ValueError, match="CHUNK_SIZE: expected at least 1, got 0"):
        classifier(chunk_size=0)
