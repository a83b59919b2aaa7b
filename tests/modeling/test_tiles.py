from __future__ import annotations

import pytest
import torch

from ovseg.modeling.views.tiles import SlidingWindow, tile_starts
from tests.modeling.tiny import NAMES, image, tiny_cfg, tiny_model, vocabulary


def test_tiles_cover_the_axis_and_the_last_ends_with_it():
    assert tile_starts(300, 224, 2 / 3) == [0, 75, 76]
    assert tile_starts(224, 224, 2 / 3) == [0]
    assert tile_starts(100, 224, 2 / 3) == [0]
    assert tile_starts(10, 4, 0.5) == [0, 2, 4, 6]
    for length in range(1, 60):
        starts = tile_starts(length, 8, 0.4)
        assert {i for start in starts for i in range(start, min(start + 8, length))} == set(
            range(length)
        )


def test_one_tile_is_the_plain_model():
    model = tiny_model()
    x = {"image": image(40, 60), "height": 25, "width": 33}
    [tiled] = SlidingWindow(model, tile=64)([x], vocabulary())
    [plain] = model([x], vocabulary())
    torch.testing.assert_close(tiled["sem_seg"], plain["sem_seg"], rtol=1e-4, atol=1e-6)


def test_overlapping_tiles_are_averaged():
    model = tiny_model()
    picture = image(32, 48)
    [tiled] = SlidingWindow(model, tile=32, overlap=0.5)([{"image": picture}], vocabulary())
    left, right = (
        model([{"image": picture[:, :, start : start + 32]}], vocabulary())[0]["sem_seg"]
        for start in (0, 16)
    )
    expected = torch.cat(
        (left[..., :16], (left[..., 16:] + right[..., :16]) / 2, right[..., 16:]), 2
    )
    torch.testing.assert_close(tiled["sem_seg"], expected)


def test_labels_are_made_where_the_model_makes_labels():
    model = tiny_model(TEST__OUTPUT="labels")
    [result] = SlidingWindow.from_config(tiny_cfg(TEST__SLIDING_TILE_SIZE=32), model)(
        [{"image": image(32, 48)}], vocabulary()
    )
    assert result["labels"].shape == (32, 48) and int(result["labels"].max()) < len(NAMES)


def test_an_automatic_tile_needs_a_known_size():
    window = SlidingWindow(tiny_model(), tile=0)
    with pytest.raises(ValueError, match="shorter side of 32 pixels"):
        window([{"image": image(32, 48)}], vocabulary())
    with pytest.raises(ValueError, match="SLIDING_OVERLAP"):
        SlidingWindow(tiny_model(), overlap=1.0)


def test_a_tile_says_which_part_of_which_picture_it_is():
    model, seen = tiny_model(), []
    prepare = model.prepare
    model.prepare = lambda inputs: seen.append(prepare(inputs)) or seen[-1]
    x = {"image": image(32, 48), "image_id": "scene_7"}
    list(SlidingWindow(model, tile=32, overlap=0.5).encode([x]))
    assert [batch.offsets for batch in seen] == [[(0, 0)], [(0, 16)]]
    assert {batch.image_ids[0] for batch in seen} == {"scene_7"}


def test_tiles_are_encoded_once_for_all_words():
    model = tiny_model(TEST__OUTPUT="labels")
    window = SlidingWindow(model, tile=32, overlap=0.5)
    x = {"image": image(32, 48), "height": 20, "width": 30}
    expected = [p.labels() for p in window.predict([x], vocabulary("a", "b"))]
    [encoding] = window.encode([x])
    window.prefetch(encoding)
    model.backbone = model.clip_adapter.clip_model.visual = None
    assert torch.equal(window.decode(encoding, vocabulary("a", "b")).labels(), expected[0])
    other = window.decode(encoding, vocabulary("c", "d", "e"))
    assert other.num_classes == 3 and other.sem_seg().shape == (3, 20, 30)
    stored = encoding.tensors()
    assert {"0.mask_logits", "1.mask_logits", "1.embeddings"} <= stored.keys()
