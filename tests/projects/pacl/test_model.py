from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from ovseg.clip import build_clip
from ovseg.config import load_cfg
from ovseg.d2.modeling import build_model
from ovseg.projects.pacl.embedder import PatchEmbedder
from ovseg.projects.pacl.model import settle_config
from ovseg.projects.pacl.towers import CLIPTower, TimmTower
from ovseg.vocab import Vocabulary
from ovseg.weights.load import WeightsError, write_safetensors

SMALL_CLIP = {  # the grid and the patches of ViT-B/16, one narrow layer
    "embed_dim": 16,
    "vision_cfg": {
        "image_size": 224,
        "patch_size": 16,
        "width": 32,
        "layers": 1,
        "head_width": 16,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}
WORDS = ("sky", "grass", "house")
STRETCHED = ("MODEL.PACL.TEST.EXACT_PLACEMENT", "False")


def make(*opts, config="pacl_tiny"):
    cfg = load_cfg(config, ["MODEL.DEVICE", "cpu", *opts])
    torch.manual_seed(0)
    return build_model(cfg)


def picture(height=64, width=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 255 * torch.rand(3, height, width, generator=generator)


def training_input(number, texts=("a sky", "art of the sky")):
    return {
        "image": picture(seed=number),
        "file_name": f"{number}.jpg",
        "image_root": "pictures",
        "texts": list(texts),
        "text_nouns": ["", "sky"][: len(texts)],
        "mentioned": ["sky"],
    }


def vocabulary(names=WORDS, **options):
    return Vocabulary.make(names, templates="pacl7", **options)


def test_the_embedder_of_vit_b16_has_the_papers_number_of_parameters():
    embedder = PatchEmbedder(768, 512)
    assert sum(p.numel() for p in embedder.parameters()) == 1_050_112
    wide = PatchEmbedder(768, 512, hidden_dim=768)
    assert sum(p.numel() for p in wide.parameters()) == 1_378_048


def test_the_embedder_adds_a_linear_branch_to_one_with_an_activation():
    embedder = PatchEmbedder(4, 3, hidden_dim=5)
    tokens = torch.randn(2, 4)
    inner, _, outer = embedder.main
    hidden = (tokens @ inner.weight.T + inner.bias).relu()
    expected = hidden @ outer.weight.T + outer.bias + tokens @ embedder.skip.weight.T
    torch.testing.assert_close(embedder(tokens), expected + embedder.skip.bias)
    with pytest.raises(ValueError, match=r"MODEL.PACL.ACT.*'tanh'"):
        PatchEmbedder(4, 3, activation="tanh")


def test_the_encoders_own_stride_gives_its_tokens_and_a_smaller_one_more():
    clip = build_clip(SMALL_CLIP).eval()
    tower, images = CLIPTower(clip), torch.randn(1, 3, 224, 224)
    clip.visual.output_tokens = True
    with torch.no_grad():
        _, tokens = clip.visual(images)  # (1, 196, 32), after ln_post
    own = tower(images).flatten(2).transpose(1, 2)
    torch.testing.assert_close(own, tokens, rtol=1e-4, atol=1e-5)
    assert torch.equal(tower(images, stride=16), tower(images))
    assert tower(images, stride=4).shape == (1, 32, 53, 53)


def test_a_timm_tower_gives_its_tokens_at_any_stride_and_its_own_statistics():
    torch.manual_seed(0)
    tower = TimmTower("vit_tiny_patch16_224.augreg_in21k", "random").train()
    images = torch.randn(1, 3, 64, 64)
    tokens = tower.vit.forward_features(images)[:, 1:]
    torch.testing.assert_close(tower(images).flatten(2).transpose(1, 2), tokens)
    assert tower(images, stride=8).shape == (1, 192, 7, 7)
    assert torch.equal(tower(images), tower(images, stride=16)) and not tower.training
    assert tower.pixel_mean == pytest.approx((127.5, 127.5, 127.5))
    with pytest.raises(ValueError, match=r"MODEL.PACL.DINO_MODEL: .*'resnet10t'"):
        TimmTower("resnet10t", "random")


def test_dino_takes_the_place_of_clips_image_tower():
    opts = ("MODEL.PACL.IMAGE_ENCODER", "dino", "MODEL.PACL.DINO_WEIGHTS", "random")
    model = make(*opts, "MODEL.PACL.DINO_MODEL", "vit_tiny_patch16_224.augreg_in21k")
    assert model.embedder.skip.weight.shape == (64, 192)
    assert model.pixel_mean.flatten().tolist() == pytest.approx([127.5] * 3)
    [result] = model.eval()([{"image": picture(48, 80)}], vocabulary())
    assert result["labels"].shape == (48, 80)
    loss = model.train()([training_input(n) for n in range(2)])["loss_contrastive"]
    loss.backward()
    assert model.embedder.skip.weight.grad.abs().sum() > 0


def test_only_the_embedder_and_the_scale_learn():
    model = make().train()
    model([training_input(n) for n in range(3)])["loss_contrastive"].backward()
    learned = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {n for n, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".")[0] for name in learned} == {"embedder", "logit_scale"}
    assert not model.clip.training and not model.tower.training
    fixed = make("MODEL.PACL.LEARN_SCALE", "False")
    assert not fixed.logit_scale.requires_grad


def test_a_scale_above_a_hundred_goes_back_before_the_next_step():
    model = make().train()
    with torch.no_grad():
        model.logit_scale.fill_(6.0)
    assert model.scale.item() == pytest.approx(100.0)
    model([training_input(n) for n in range(2)])
    assert model.logit_scale.item() == pytest.approx(math.log(100.0))
    with pytest.raises(ValueError, match=r"MODEL.PACL.LOGIT_SCALE_INIT"):
        make("MODEL.PACL.LOGIT_SCALE_INIT", "120.0")


def test_a_checkpoint_holds_what_was_trained_and_says_on_what(tmp_path):
    model, other = make("MODEL.PACL.LOGIT_SCALE_INIT", "50.0"), make()
    state = model.state_dict()
    assert {name.split(".")[0] for name in state} == {"embedder", "logit_scale", "encoder_digest"}
    file = tmp_path / "model.safetensors"
    write_safetensors(file, state)
    with torch.no_grad():
        for parameter in other.embedder.parameters():
            parameter.zero_()
    other.load_weights(file)
    for name, tensor in other.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    inside = torch.nn.ModuleDict({"model": model}).state_dict()
    assert set(inside) == {f"model.{name}" for name in state}


def test_an_embedder_of_another_clip_is_refused(tmp_path):
    model = make("MODEL.CLIP_ADAPTER.CLIP_WEIGHTS", "random")
    before = model.embedder.skip.weight.clone()
    with pytest.raises(WeightsError, match=r"trained on others.*MODEL.CLIP_ADAPTER.CLIP_WEIGHTS"):
        model.load_weights(make().state_dict())
    assert torch.equal(model.embedder.skip.weight, before)


def test_a_checkpoint_that_lacks_a_tensor_or_has_one_too_many_is_refused():
    model = make()
    state = model.state_dict()
    del state["embedder.skip.bias"]
    with pytest.raises(WeightsError, match=r"missing \(1\):\n    embedder.skip.bias"):
        model.load_weights(state | {})
    with pytest.raises(WeightsError, match=r"unexpected \(1\):\n    clip.visual.proj"):
        model.load_weights(model.state_dict() | {"clip.visual.proj": torch.zeros(1)})


@pytest.mark.parametrize("size", [(64, 80), (61, 77)])
@pytest.mark.parametrize("square", ["0", "64"])
def test_pictures_of_any_size_get_labels_of_theirs_alone_or_in_a_batch(size, square):
    model = make("MODEL.PACL.TEST.INPUT_SIZE", square).eval()
    inputs = [{"image": picture(*size)}, {"image": picture(72, 64, 1), "height": 30, "width": 20}]
    alone, together = model(inputs[:1], vocabulary()), model(inputs, vocabulary())
    assert together[0]["labels"].shape == size and together[1]["labels"].shape == (30, 20)
    assert torch.equal(alone[0]["labels"], together[0]["labels"])


def test_scores_are_cosines_of_the_templates_mean_and_the_patches():
    opts = ("MODEL.PACL.TEST.INPUT_SIZE", "64", "MODEL.PACL.TEST.PATCH_STRIDE", "0")
    model = make(*opts, *STRETCHED).eval()
    [encoding] = model.encode([{"image": picture()}])
    assert encoding.patches.shape == (64, 8, 8)
    torch.testing.assert_close(encoding.patches.norm(dim=0), torch.ones(8, 8))
    with torch.no_grad():
        prediction = model.decode(encoding, vocabulary())
    tokens = model.tower((picture()[None] - model.pixel_mean) / model.pixel_std)[0]
    embedded = F.normalize(model.embedder(tokens.movedim(0, -1)), dim=-1)  # (8, 8, 64)
    expected = embedded @ model.texts.features(vocabulary()).T
    torch.testing.assert_close(prediction.scores.movedim(0, -1), expected, rtol=1e-4, atol=1e-5)


def test_patches_of_two_texts_are_found_again_where_they_were_planted():
    model = make(*STRETCHED).eval()
    text = model.texts.features(vocabulary())
    left = torch.arange(16)[None] < 5
    planted = torch.where(left.expand(12, 16)[None], text[0, :, None, None], text[2, :, None, None])
    [encoding] = model.encode([{"image": picture(48, 64)}])
    encoding.patches = planted
    labels = model.decode(encoding, vocabulary()).labels()
    assert labels.shape == (48, 64)
    assert (labels[:, :19] == 0).all() and (labels[:, 21:] == 2).all()


def test_a_whole_picture_is_named_by_the_class_whose_patches_it_holds():
    model = make().eval()
    text = model.texts.features(vocabulary())
    generator = torch.Generator().manual_seed(0)
    noise = F.normalize(torch.randn(1, 64, 8, 8, generator=generator), dim=1)
    # Two patches of 64 show a house: pooling by the text finds them, the mean would not.
    noise[0, :, 3, 3:5] = text[2, :, None]
    model.embed = lambda images, stride=None: noise
    model.loss.pooling.temperature = 0.05
    scores = model.image_scores([{"image": picture()}], vocabulary())
    assert scores.shape == (1, 3) and scores[0].argmax() == 2 and scores[0, 2] > 0.9
    by_itself = model.loss.pooling.pairwise(noise.flatten(2).transpose(1, 2), text)
    torch.testing.assert_close(scores, by_itself)


def test_image_scores_are_the_compatibilities_that_training_learns():
    model = make("INPUT.PACL.SIZE", "64", "MODEL.PACL.TEST.INPUT_SIZE", "64").train()
    inputs = [training_input(n, texts) for n, texts in enumerate((("a sky",), ("a house",)))]
    seen = {}
    model.loss.register_forward_pre_hook(lambda _, given: seen.update(patches=given[0]))
    model(inputs)
    text = model.texts.features(vocabulary())
    expected = model.loss.pooling.pairwise(seen["patches"], text)
    torch.testing.assert_close(model.image_scores(inputs, vocabulary()), expected)


def test_micro_batches_are_refused_before_training():
    cfg = load_cfg("pacl_tiny", ["SOLVER.ACCUMULATION_STEPS", "2"]).clone()
    settle_config(cfg, evaluating=True)
    with pytest.raises(ValueError, match=r"SOLVER.ACCUMULATION_STEPS: expected 1.*got 2"):
        settle_config(cfg, evaluating=False)


def test_an_unknown_encoder_is_refused():
    with pytest.raises(ValueError, match=r"MODEL.PACL.IMAGE_ENCODER.*'sam'"):
        make("MODEL.PACL.IMAGE_ENCODER", "sam")


def test_its_protocol_says_how_pictures_are_looked_at():
    entropy = ("MODEL.PACL.TEST.BACKGROUND", "entropy")
    stated = make(*entropy, "MODEL.PACL.TEST.LOGIT_SCALE", "50.0").protocol()
    assert stated["templates"] == "pacl7" and stated["patch_stride"] == 4
    assert stated["background"] == "entropy" and stated["entropy_threshold"] == 1.5
    assert "entropy_threshold" not in make().protocol()
    assert stated["logit_scale"] == 50.0
    assert make(*entropy).protocol()["logit_scale"] == "trained"
