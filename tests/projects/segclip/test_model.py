"""What the parts of SegCLIP do, on a model of the bundled CLIP's size."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.projects.segclip.grouping import CrossAttention, SemanticGrouping
from ovseg.projects.segclip.inference import background_groups, group_affinity, window_starts
from ovseg.projects.segclip.losses import Noise, superpixel_kl
from ovseg.projects.segclip.parameters import FROZEN
from ovseg.projects.segclip.reconstruction import Masking, patchify, reconstruction_error
from ovseg.vocab import Vocabulary, class_list

WINDOWS = ("MODEL.SEGCLIP.TEST.CROP", 128, "MODEL.SEGCLIP.TEST.STRIDE", 128)
SMALL = ("MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "random", "MODEL.DEVICE", "cpu", *WINDOWS)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(load_cfg("segclip_tiny", SMALL))


def samples(count: int, *, superpixels: bool = True) -> list[dict]:
    generator = torch.Generator().manual_seed(count)
    found = []
    for index in range(count):
        image = torch.randint(0, 256, (3, 64, 64), generator=generator, dtype=torch.uint8)
        sample = {"image": image, "caption": f"a picture of {index} cars", "noise_seed": index}
        if superpixels:
            sample["superpixels"] = torch.randint(0, 9, (8, 8), generator=generator)
        found.append(sample)
    return found


# -- grouping --------------------------------------------------------------------------------


def grouping(**options) -> SemanticGrouping:
    torch.manual_seed(1)
    module = SemanticGrouping(32, 4, centers=5, **options)
    torch.nn.init.normal_(module.semantic_center)
    return module


def test_every_patch_is_in_one_group_with_gradients_of_a_softmax():
    module, patches = grouping(), torch.randn(2, 12, 32)
    found = module(patches, torch.randn(2, 5, 12))
    torch.testing.assert_close(found.hard.sum(1), torch.ones(2, 12))
    one_hot = found.hard.detach()
    assert float((one_hot - one_hot.round()).abs().max()) < 1e-6
    found.hard[:, 0].sum().backward()
    assert float(module.semantic_center.grad.abs().max()) > 0
    torch.testing.assert_close(found.soft, found.logits.softmax(1))


def test_noise_moves_patches_to_other_groups_in_training_alone():
    module, patches = grouping(), torch.randn(1, 40, 32)
    noise = torch.zeros(1, 5, 40)
    noise[:, 3] = 1e4
    assert set(module(patches, noise).hard.argmax(1).flatten().tolist()) == {3}
    assert len(set(module(patches).hard.argmax(1).flatten().tolist())) > 1


def test_a_centre_without_patches_has_a_finite_token():
    module = grouping()
    found = module(torch.randn(1, 1, 32))  # one patch, so four groups are empty
    assert int((found.hard.sum(2) < 0.5).sum()) == 4
    assert bool(found.tokens.isfinite().all())


def test_keys_are_mixed_over_the_batch_only_if_asked_and_in_training():
    torch.manual_seed(2)
    layer = CrossAttention(16, 2, batch_mix=True)
    queries, tokens = torch.randn(2, 3, 16), torch.randn(2, 7, 16)
    plain = layer.eval()(queries, tokens)
    mixed = layer.train()(queries, tokens)
    # The key s of sample n is row s * 2 + n of both samples' keys behind each other.
    rows = tokens.flatten(0, 1)
    by_hand = torch.stack([rows[n::2] for n in range(2)])
    torch.testing.assert_close(mixed, layer.eval()(queries, by_hand))
    assert not torch.allclose(mixed, plain, atol=1e-3)


@torch.no_grad()
def test_an_image_is_encoded_the_same_beside_any_other(model):
    model.eval()
    images = torch.randn(3, 3, 64, 64)
    together, alone = model.clip.visual(images), model.clip.visual(images[1:2])
    torch.testing.assert_close(together.image[1:2], alone.image, rtol=1e-4, atol=1e-5)
    assert together.groups.shape == (3, 8, 64) and together.image.shape == (3, 64)


@torch.no_grad()
def test_the_image_token_is_the_maximum_over_the_groups_before_the_last_norm(model):
    visual = model.eval().clip.visual
    patches = visual.embed(torch.randn(2, 3, 64, 64))
    tokens, _ = visual.transformer(patches)
    wanted = visual.ln_post(tokens.max(1).values) @ visual.proj
    torch.testing.assert_close(visual.encode(patches).image, wanted)


def test_first_stage_and_image_size_are_checked():
    for opts, words in (
        (("MODEL.SEGCLIP.FIRST_STAGE_LAYERS", 4), "1 to 3 for this CLIP, got 4"),
        (("MODEL.SEGCLIP.IMAGE_SIZE", 60), "multiple of the patch size 8, got 60"),
        (("MODEL.SEGCLIP.TEST.STRIDE", 129), "up to a window's side .128.*got 129"),
    ):
        with pytest.raises(ValueError, match=words):
            build_model(load_cfg("segclip_tiny", [*SMALL, *opts]))


def test_another_training_size_interpolates_the_positions_once():
    opts = ("MODEL.SEGCLIP.IMAGE_SIZE", 96)
    visual = build_model(load_cfg("segclip_tiny", [*SMALL, *opts])).clip.visual
    assert visual.positional_embedding.shape == (1 + 12 * 12, 128)
    assert visual.image_size == (96, 96)


# -- losses ----------------------------------------------------------------------------------


def test_patches_of_one_superpixel_are_pulled_together():
    one_hot = F.one_hot(torch.tensor([[0, 0, 1, 2]]), 3).float()
    assert float(superpixel_kl(one_hot, torch.arange(4)[None])) == 0.0
    assert float(superpixel_kl(one_hot, torch.tensor([[5, 5, 2, 3]]))) == pytest.approx(0.0)
    mixed = float(superpixel_kl(one_hot, torch.tensor([[5, 5, 5, 3]])))
    p, q = one_hot[0, :3].softmax(1), one_hot[0, :3].mean(0, keepdim=True).softmax(1)
    both = ((q - p) * (q.log() - p.log())).sum() / 2 / one_hot.numel()
    assert mixed == pytest.approx(float(both)) and mixed > 0


def test_masking_keeps_a_quarter_of_the_tokens_the_class_token_counted_in():
    masking = Masking.from_noise(torch.rand(2, 196), 0.75)
    assert masking.keep.shape == (2, 48) and masking.hidden.sum(1).tolist() == [148, 148]
    kept = torch.arange(196).expand(2, -1)[~masking.hidden].view(2, -1)
    torch.testing.assert_close(kept, masking.keep.sort().values)
    rows = torch.randn(2, 196, 3)
    shuffled = torch.cat([masking.select(rows), torch.zeros(2, 148, 3)], dim=1)
    restored = shuffled.gather(1, masking.restore[..., None].expand(-1, -1, 3))
    torch.testing.assert_close(restored, rows * ~masking.hidden[..., None])


def test_the_target_is_what_is_hidden_and_nothing_else(model):
    images, noise = torch.randn(1, 3, 64, 64), torch.rand(1, 64)
    masking = Masking.from_noise(noise, 0.75)
    predicted = torch.randn(1, 65, 192)
    before = reconstruction_error(predicted, images, masking.hidden)
    for kept in (True, False):
        changed = images.clone()
        index = int((masking.hidden[0] != kept).nonzero()[0])
        top, left = 8 * (index // 8), 8 * (index % 8)
        changed[:, :, top : top + 8, left : left + 8] += 1.0
        after = reconstruction_error(predicted, changed, masking.hidden)
        assert (float(after) == float(before)) is kept
    assert patchify(images, 8).shape == (1, 64, 192)
    torch.testing.assert_close(patchify(images, 8)[0, 9, :3], images[0, :, 8, 8])


def test_three_losses_train_the_new_parts_and_what_is_frozen_gets_no_gradient(model):
    model.train().zero_grad()
    losses = model(samples(4))
    assert list(losses) == ["loss_contrastive", "loss_superpixel", "loss_reconstruction"]
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith(FROZEN)
        assert parameter.requires_grad is not frozen, name
        assert (parameter.grad is None) is frozen, name


def test_the_contrastive_loss_alone_reaches_the_centres(model):
    model.train().zero_grad()
    model(samples(4))["loss_contrastive"].backward()
    centres = model.clip.visual.transformer.semantic_layer2.semantic_center
    assert float(centres.grad.norm()) > 0


def test_losses_that_are_switched_off_leave_nothing_without_a_gradient():
    off = ("MODEL.SEGCLIP.KL.ENABLED", "False", "MODEL.SEGCLIP.MAE.ENABLED", "False")
    model = build_model(load_cfg("segclip_tiny", [*SMALL, *off])).train()
    losses = model(samples(3, superpixels=False))
    assert list(losses) == ["loss_contrastive"]
    losses["loss_contrastive"].backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_noise_is_that_of_the_sample_whatever_batch_it_is_in():
    options = {"centers": 3, "patches": 7, "visible": 2, "device": torch.device("cpu")}
    both, second = Noise.draw([4, 9], **options), Noise.draw([9], **options)
    assert torch.equal(both.gumbel[1:], second.gumbel)
    assert torch.equal(both.gumbel_visible[1:], second.gumbel_visible)
    assert torch.equal(both.masking[1:], second.masking)
    many = Noise.draw(range(300), **options)
    assert float(many.gumbel.mean()) == pytest.approx(0.5772, abs=0.05)
    assert float(many.gumbel.std()) == pytest.approx(math.pi / 6**0.5, abs=0.05)


def test_the_temperature_is_kept_in_bounds_after_a_step(model):
    with torch.no_grad():
        model.clip.logit_scale.fill_(7.0)
    model.after_step()
    assert float(model.clip.logit_scale) == pytest.approx(math.log(100))


# -- inference -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "starts"),
    [(224, [0]), (298, [0, 74]), (448, [0, 224]), (449, [0, 224, 225]), (100, [0])],
)
def test_windows_cover_an_axis_and_the_last_is_shifted_back(length, starts):
    assert window_starts(length, 224, 224) == starts


def test_only_the_best_classes_of_a_window_may_be_named():
    group_logits = torch.tensor([[[3.0, 2.0, 1.0], [0.0, 5.0, 4.0]]])
    affinity = group_affinity(group_logits, torch.tensor([[1.0, 0.0, 2.0]]), 2)
    assert affinity.shape == (1, 2, 3) and affinity[0, :, 1].tolist() == [0.0, 0.0]
    among = torch.tensor([3.0, 1.0]).softmax(0) * group_logits[0, 0].softmax(0)[[0, 2]]
    torch.testing.assert_close(affinity[0, 0, [0, 2]], among)


def test_weak_groups_are_background_but_never_the_best_of_a_window():
    affinity = torch.tensor([[[0.5, 0.2], [0.1, 0.3]], [[0.9, 0.0], [0.85, 0.1]]])
    assert background_groups(affinity, 0.8).tolist() == [[False, True], [False, False]]
    assert background_groups(affinity, 0.05).any().item() is False


@torch.no_grad()
def test_the_background_is_scored_by_the_rule_and_takes_its_own_place(model):
    model.eval()
    [encoding] = model.encode([{"image": 255 * torch.rand(3, 70, 200)}])
    assert encoding.starts == [(0, 0), (0, 72)] and encoding.pixels.shape == (2, 70, 128)
    plain = model.decode(encoding, Vocabulary.make(["car", "tree"])).sem_seg()
    for names in (["rest", "car", "tree"], ["car", "rest", "tree"], ["car", "tree", "rest"]):
        vocabulary = Vocabulary.make(names, background="rest")
        scores = model.decode(encoding, vocabulary).sem_seg()
        named = [names.index(name) for name in ("car", "tree")]
        torch.testing.assert_close(scores[named], plain)
        assert set(scores[names.index("rest")].unique().tolist()) <= {0.0, 0.5, 1.0}
    with pytest.raises(ValueError, match="at least one class besides the background"):
        model.decode(encoding, Vocabulary.make(["rest"], background="rest"))


@torch.no_grad()
def test_overlapping_windows_are_averaged(model):
    model.eval()
    image = 255 * torch.rand(3, 64, 160)
    vocabulary = Vocabulary.make(["car", "tree", "sky"])
    [encoding] = model.encode([{"image": image}])
    whole = model.decode(encoding, vocabulary).sem_seg()
    parts = [image[:, :, :128], image[:, :, 32:]]
    left, right = (p.sem_seg() for p in model.predict([{"image": p} for p in parts], vocabulary))
    torch.testing.assert_close(whole[:, :, :32], left[:, :, :32])
    both = (left[:, :, 32:] + right[:, :, :96]) / 2
    torch.testing.assert_close(whole[:, :, 32:128], both)


def test_a_dataset_is_asked_for_with_the_words_of_the_config():
    opts = ("MODEL.SEGCLIP.TEST.WORDS", ["ship=boat", "people = a person"])
    model = build_model(load_cfg("segclip_tiny", [*SMALL, *opts]))
    found = model.find_vocabulary([{"class_names": ["ship", "car", "people"]}])
    assert found.names == ("ship", "car", "people")
    assert found.prompts == (("boat",), ("car",), ("a person",))
    assert model.protocol()["words"] == "ship=boat, people=a person"
    with pytest.raises(ValueError, match="expected 'name=word' of each entry, got 'ship='"):
        build_model(load_cfg("segclip_tiny", [*SMALL, "MODEL.SEGCLIP.TEST.WORDS", ["ship="]]))


@pytest.mark.parametrize("dataset", ["pascal_voc_21", "pascal_context_60", "coco_object_81"])
def test_evaluations_of_published_rows_name_classes_that_exist(dataset):
    cfg = load_cfg(f"eval/segclip_vitB16_{dataset}")
    names = class_list(dataset).names
    words = [pair.split("=")[0] for pair in cfg.MODEL.SEGCLIP.TEST.WORDS]
    assert set(words) <= set(names) and class_list(dataset).background == 0
    assert cfg.TEST.PROTOCOL.REPORTED in (52.6, 24.7, 26.5)


def test_text_features_are_forgotten_when_the_text_tower_trains(model):
    model.eval()
    model.texts.features(Vocabulary.make(["car"]))
    assert len(model.texts) == 1
    model.train()
    assert len(model.texts) == 0
