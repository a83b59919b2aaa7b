from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ovseg.modeling import AugmentedSegmentor, SlidingWindow
from ovseg.projects.corrclip.correlation import resize_ids
from ovseg.projects.corrclip.model import Decision, WindowSettings
from ovseg.projects.corrclip.strings import with_strings
from ovseg.vocab import Vocabulary
from tests.projects.corrclip.tiny import Halves, picture, tiny_clip, tiny_model

WORDS = ["sky; cloud", "a tree", "a house"]


def vocabulary(words=WORDS, background: str | None = None) -> Vocabulary:
    return Vocabulary.make(words, templates="predefined", background=background)


def inputs(**more) -> dict[str, object]:
    return {"image": picture(), "height": 80, "width": 112, **more}


def test_a_picture_of_one_window_is_encoded_as_a_whole():
    model = tiny_model(windows=WindowSettings(crop=64, stride=32, pad_multiple=8))
    [encoding] = model.encode([inputs()])
    assert len(encoding.windows) == 1 and encoding.features.shape == (1, 24, 10, 14)
    norms = encoding.features.norm(dim=1)
    torch.testing.assert_close(norms, torch.ones_like(norms))
    assert encoding.regions.shape == (80, 112) and encoding.output_size == (80, 112)


@torch.no_grad()
def test_each_string_of_a_class_is_scored_and_the_words_change_no_encoding():
    model = tiny_model()
    [encoding] = model.encode([inputs()])
    model.tower = model.dense = None  # decoding needs neither
    together = model.decode(encoding, vocabulary())
    assert together.classes.tolist() == [0, 0, 1, 2] and together.num_classes == 3
    apart = model.decode(encoding, vocabulary(["sky", "cloud", "a tree", "a house"]))
    torch.testing.assert_close(together.scores, apart.scores)
    scores, each = together.sem_seg(), apart.sem_seg()
    top = together.labels() == apart.labels().clamp(min=1) - 1
    assert scores.shape == (3, 80, 112) and each.shape == (4, 80, 112) and top.any()


def test_strings_are_split_once_and_others_stay():
    split = with_strings(vocabulary(["sky; cloud ;", "people, person"]), "; ")
    assert split.prompts == (("sky", "cloud ;".strip()), ("people, person",))
    assert split.names == ("sky; cloud ;", "people, person")
    assert with_strings(vocabulary(), "") == vocabulary()


def test_unsure_pixels_go_to_the_words_own_background_or_stay_blank():
    model = tiny_model(decision=Decision(threshold=1.1, correct=False))
    [encoding] = model.encode([inputs()])
    named = model.decode(encoding, vocabulary(background="others"))
    assert named.labels().eq(3).all() and not named.may_abstain
    assert model.decode(encoding, vocabulary()).labels(blank=-1).eq(-1).all()
    model = tiny_model(decision=Decision(threshold=1.1, background_id=1))
    assert model.decode(encoding, vocabulary()).labels().eq(1).all()


@torch.no_grad()
def test_pictures_of_a_batch_do_not_touch_each_other():
    model = tiny_model()
    other = {"image": picture(33, 45, seed=5)}
    together = [p.sem_seg() for p in model.predict([inputs(), other], vocabulary())]
    [alone] = model.predict([other], vocabulary())
    torch.testing.assert_close(together[1], alone.sem_seg())
    assert together[1].shape == (3, 33, 45)


def test_regions_are_made_at_the_pictures_own_size_once():
    source = Halves()
    model = tiny_model(regions=source)
    original = np.asarray(picture(80, 112).byte().permute(1, 2, 0)).copy()
    for _ in range(2):
        [encoding] = model.encode([inputs(original=original)])
    assert source.seen == [(80, 112, 3)]
    assert encoding.regions.equal(torch.from_numpy(source(original, "")))
    source.needs_pixels = False
    list(model.encode([inputs()]))
    assert source.seen[-1] == (80, 112, 3)


def test_tiles_and_mirror_images_get_their_part_of_the_pictures_regions(tmp_path):
    original = np.asarray(picture(80, 112).byte().permute(1, 2, 0)).copy()
    Image.fromarray(original).save(tmp_path / "a.png")
    source = Halves()
    whole = torch.from_numpy(source(original, ""))
    model = tiny_model(regions=source)
    for x in (inputs(original=original), inputs(file_name=str(tmp_path / "a.png"))):
        tiled = SlidingWindow(model, tile=32, overlap=0.5)
        [encoding] = tiled.encode([x])
        small = resize_ids(whole, (40, 56))
        for (rows, columns), part in zip(encoding.windows, encoding.parts, strict=True):
            assert part.regions.equal(small[rows, columns])
        views = AugmentedSegmentor(model, short_sides=[40, 48], max_size=200)
        [augmented] = views.encode([x])
        for part, flipped in zip(augmented.parts, augmented.flipped, strict=True):
            assert part.regions.equal(whole.flip(1) if flipped else whole)
    assert len(source.seen) == 2  # here, and once for all views of both


@torch.no_grad()
def test_padding_is_a_region_of_its_own_whatever_the_ids_are():
    class Large(Halves):
        def __call__(self, image, image_id):
            return super().__call__(image, image_id) + 20000

    small = {"image": picture(27, 30)}
    for source in (Halves(), Large()):
        model = tiny_model(regions=source)
        seen = []
        tower = model.tower
        model.tower = lambda *args, tower=tower, seen=seen: seen.append(args) or tower(*args)
        [prediction] = model.predict([small], vocabulary())
        ids = seen[0][2]
        assert ids.shape == (32, 32)
        assert ids[0, 0] == max(10000, int(source(np.zeros((27, 30, 3)), "").max()) + 1)
        assert prediction.labels().shape == (27, 30)


@torch.no_grad()
def test_correlations_of_the_whole_picture_have_a_grid_of_their_own():
    source = Halves()
    model = tiny_model(regions=source, whole_image=True, grid_scale=3)
    [encoding] = model.encode([inputs()])
    assert encoding.features.shape[2:] == (12, 12)
    assert model.protocol()["correlation"] == "image"
    one = tiny_model(windows=WindowSettings(crop=64, stride=64, pad_multiple=8), whole_image=True)
    assert next(iter(one.encode([inputs()]))).features.shape[2:] == (10, 14)


def test_half_precision_gives_nearly_the_same():
    features = [
        next(iter(tiny_model(precision=precision).encode([inputs()]))).features
        for precision in ("float32", "bfloat16")
    ]
    assert (features[0] - features[1]).abs().max() < 0.1 and not features[0].equal(features[1])


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(ValueError, match=r"PAD_MULTIPLE: expected a multiple of 4.*got 30"):
        tiny_model(windows=WindowSettings(pad_multiple=30))
    with pytest.raises(ValueError, match=r"PRECISION: expected one of .*got 'half'"):
        tiny_model(precision="half")


def test_the_protocol_names_what_decides_a_number():
    protocol = tiny_model(clip=tiny_clip(layers=12)).protocol()
    assert protocol["regions"] == "halves" and protocol["dense_features"] == "random/4x12"
    assert protocol["window"] == "32 every 16" and protocol["map_correction"] is True
