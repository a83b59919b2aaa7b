from __future__ import annotations

import copy

import pytest
import torch

from ovseg.d2.data import MetadataCatalog
from ovseg.d2.structures import Instances
from ovseg.modeling import MaskEncoding, RegionFeatures
from tests.modeling.tiny import NAMES, QUERIES, FixedScores, image, tiny_model, vocabulary

WEIGHT = "MODEL__CLIP_ADAPTER__CLIP_ENSEMBLE_WEIGHT"
UNSEEN = "MODEL__CLIP_ADAPTER__CLIP_ENSEMBLE_WEIGHT_UNSEEN"
TRAINED = "MODEL__CLIP_ADAPTER__TRAINED_NAMES"
ENSEMBLE = "MODEL__CLIP_ADAPTER__CLIP_ENSEMBLE"
DEMO = {"MODEL__META_ARCHITECTURE": "OVSegDEMO"}


def sample(seed: int = 0, **extra) -> dict:
    return {"image": image(50, 70, seed), **extra}


def shift_masks(model, value: float) -> None:
    """Moves all mask logits, so that none or all proposals survive the threshold."""
    conv = model.sem_seg_head.pixel_decoder.mask_features
    head = model.sem_seg_head.predictor.mask_embed.layers[-1]
    with torch.no_grad():
        for tensor in (conv.weight, head.weight):
            tensor.zero_()
        conv.bias.fill_(1.0)
        head.bias.fill_(value)


def only_query_survives(model, index: int) -> None:
    """Makes the mask of one query positive everywhere and all others negative."""
    original = type(model.sem_seg_head).forward

    def forward(self, features):
        outputs = original(self, features)
        outputs["pred_masks"] = torch.full_like(outputs["pred_masks"], -9)
        if index >= 0:
            outputs["pred_masks"][:, index, 2:6, 3:9] = 9
        return outputs

    model.sem_seg_head.forward = forward.__get__(model.sem_seg_head)


def test_the_output_has_the_requested_size_and_one_map_per_class():
    model = tiny_model()
    [result] = model([sample(height=31, width=43)], vocabulary())
    assert result["sem_seg"].shape == (len(NAMES), 31, 43)
    assert result["sem_seg"].dtype == torch.float32 and not result["sem_seg"].requires_grad
    [result] = model([sample()], vocabulary("a", "b"))
    assert result["sem_seg"].shape == (2, 50, 70)


def test_labels_are_the_argmax_of_the_scores():
    model = tiny_model()
    [scores] = model([sample(height=33, width=41)], vocabulary())
    model.output = "labels"
    [labels] = model([sample(height=33, width=41)], vocabulary())
    assert torch.equal(labels["labels"], scores["sem_seg"].argmax(0))


def test_images_of_a_batch_do_not_influence_each_other():
    model = tiny_model()
    inputs = [sample(seed=1), sample(seed=2)]
    together = model(inputs, vocabulary())
    for x, result in zip(inputs, together, strict=True):
        [alone] = model([x], vocabulary())
        torch.testing.assert_close(result["sem_seg"], alone["sem_seg"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("mode", [{}, DEMO], ids=["semantic", "demo"])
@pytest.mark.parametrize("weight", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("surviving", [-1, 4])
def test_no_or_one_surviving_proposal_is_no_special_case(mode, weight, surviving):
    model = tiny_model(**mode, **{WEIGHT: weight})
    only_query_survives(model, surviving)
    [prediction] = model.predict([sample()], vocabulary())
    assert prediction.valid.tolist() == [index == surviving for index in range(QUERIES)]
    scores = prediction.sem_seg()
    assert scores.isfinite().all()
    if surviving < 0 and mode:
        assert scores.abs().sum() == 0
        assert (prediction.labels(blank=-1) == -1).all()
    if surviving < 0 and not mode:  # where CLIP saw nothing, the mask classifier decides
        assert (scores.sum(0) > 0).all() and not prediction.may_abstain
    if surviving >= 0 and (mode or weight == 0):
        used = prediction.class_scores.abs().sum(1) > 0
        assert used.nonzero().flatten().tolist() == [surviving]


def test_all_proposals_below_the_threshold_keep_the_proposals_ranking():
    model = tiny_model()
    shift_masks(model, -1.0)  # sigmoid far below the threshold
    [prediction] = model.predict([sample()], vocabulary())
    assert not prediction.valid.any()
    torch.testing.assert_close(prediction.class_scores, prediction.proposal_scores**0.3)


def test_without_the_ensemble_clip_is_not_run():
    model = tiny_model(**{ENSEMBLE: False})
    model.clip_adapter.forward = None
    [prediction] = model.predict([sample()], vocabulary())
    assert prediction.clip_scores is None
    assert torch.equal(prediction.class_scores, prediction.proposal_scores)


def test_proposal_scores_lack_the_share_of_no_object():
    [prediction] = tiny_model().predict([sample()], vocabulary())
    assert (prediction.proposal_scores.sum(1) < 1).all()
    torch.testing.assert_close(prediction.clip_scores.sum(1), torch.ones(QUERIES))


@pytest.mark.parametrize("options", [{}, {WEIGHT: 0.7}, {ENSEMBLE: False}])
def test_demo_keeps_one_binary_mask_per_class(options):
    model = tiny_model(**DEMO, **{WEIGHT: 0.0} | options)
    [prediction] = model.predict([sample()], vocabulary())
    used = (prediction.class_scores.abs().sum(1) > 0).sum()
    assert 1 <= used <= len(NAMES)
    assert prediction.binary and prediction.mask_threshold == pytest.approx(0.4)
    full = prediction.class_scores.T @ (prediction.masks > 0.4).float().flatten(1)
    torch.testing.assert_close(prediction.sem_seg().flatten(1), full)


def test_demo_tells_a_single_class_from_others_without_telling_the_caller():
    model = tiny_model(**DEMO, **{WEIGHT: 0.0})
    only, pair = vocabulary("cat"), vocabulary("cat", background="others")
    names = ["cat"]
    [single] = model.predict([sample(class_names=names)])
    [double] = model.predict([sample()], pair)
    assert names == ["cat"] and only.names == ("cat",)
    assert single.sem_seg().shape == (1, 50, 70)
    torch.testing.assert_close(single.sem_seg()[0], double.sem_seg()[0])
    torch.testing.assert_close(single.hidden_scores, double.class_scores[:, 1])
    blank = single.labels(blank=9) == 9
    scores = double.sem_seg()
    assert torch.equal(blank, (scores[0] <= 0) | (scores[0] < scores[1]))


def test_demo_leaves_the_background_of_two_classes_without_a_mask_of_its_own():
    model = tiny_model(**DEMO, **{WEIGHT: 0.0})
    [prediction] = model.predict([sample()], vocabulary("cat", background="others"))
    assert (prediction.class_scores.abs().sum(1) > 0).sum() == 1


def test_semantic_mode_takes_a_single_class():
    [result] = tiny_model()([sample()], vocabulary("cat"))
    assert result["sem_seg"].shape == (1, 50, 70)


def test_an_explicit_background_is_a_class_like_the_others():
    model = tiny_model()
    explicit = model([sample()], vocabulary("cat", "sky", background="others"))
    named = model([sample()], vocabulary("cat", "sky", "others"))
    torch.testing.assert_close(explicit[0]["sem_seg"], named[0]["sem_seg"])


def training_sample(**extra) -> dict:
    masks = torch.zeros(2, 50, 70, dtype=torch.bool)
    masks[0, :20], masks[1, 20:] = True, True
    instances = Instances((50, 70), gt_classes=torch.tensor([0, 2]), gt_masks=masks)
    return sample(instances=instances, **extra)


def test_training_reaches_every_trainable_parameter_and_nothing_of_clip():
    model = tiny_model().train()
    losses = model([training_sample()], vocabulary())
    assert sorted(losses) == sorted(
        f"loss_{n}{s}" for n in ("ce", "mask", "dice") for s in ("", "_0")
    )
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        frozen = name.startswith("clip_adapter.clip_model.")
        assert parameter.requires_grad != frozen, name
        assert (parameter.grad is None) == frozen, name


def test_training_needs_as_many_classes_as_the_criterion():
    with pytest.raises(ValueError, match=r"set MODEL\.SEM_SEG_HEAD\.NUM_CLASSES to 2"):
        tiny_model().train()([training_sample()], vocabulary("a", "b"))


def test_padding_of_ground_truth_counts_as_background():
    # 50x70 is padded to 64x96; a mask over the whole image must not extend into the padding.
    model = tiny_model().train()
    x = training_sample()
    seen = {}
    forward = model.criterion.forward
    model.criterion.forward = lambda out, targets: seen.update(t=targets) or forward(out, targets)
    model([x], vocabulary())
    masks = seen["t"][0]["masks"]
    assert masks.shape == (2, 64, 96)
    assert masks.sum() == x["instances"].gt_masks.sum()


def test_the_vocabulary_comes_from_metadata_when_none_is_given():
    name = "test_ovseg_metadata"
    MetadataCatalog.get(name).set(stuff_classes=list(NAMES))
    model = tiny_model()
    x = sample(meta={"dataset_name": name})
    [found] = model([x])
    [given] = model([x], vocabulary())  # the model's templates are the same
    assert torch.equal(found["sem_seg"], given["sem_seg"])
    MetadataCatalog.get("test_ovseg_own").set(stuff_classes=["x"], vocabulary=vocabulary("a", "b"))
    [result] = model([sample(meta={"dataset_name": "test_ovseg_own"})])
    assert len(result["sem_seg"]) == 2


def test_inputs_without_a_dataset_mean_the_configs_one_test_set_but_not_in_training(caplog):
    name = "test_ovseg_default"
    MetadataCatalog.get(name).set(stuff_classes=list(NAMES))
    model = tiny_model(**{"DATASETS.TEST": (name,)})
    [found] = model([sample()])
    [given] = model([sample()], vocabulary())
    assert torch.equal(found["sem_seg"], given["sem_seg"])
    assert f"the classes are those of {name}" in caplog.text
    with pytest.raises(ValueError, match="pass a vocabulary"):
        model.train()([sample()])
    two = tiny_model(**{"DATASETS.TEST": (name, "another")})
    with pytest.raises(ValueError, match="pass a vocabulary"):
        two([sample()])


def test_inputs_without_a_vocabulary_say_what_to_do():
    model = tiny_model()
    model.dataset = None  # of the config's test set
    with pytest.raises(ValueError, match="pass a vocabulary"):
        model([sample()])
    mixed = [sample(meta={"dataset_name": "a"}), sample(meta={"dataset_name": "b"})]
    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        model(mixed)
    with pytest.raises(ValueError, match="one list of class_names per batch"):
        model([sample(class_names=["a"]), sample(class_names=["b"])])
    with pytest.raises(ValueError, match=r"shape \(3, H, W\), got \(50, 70\)"):
        model([{"image": torch.zeros(50, 70)}], vocabulary())
    with pytest.raises(ValueError, match="empty batch"):
        model([], vocabulary())


def test_a_bound_model_takes_only_inputs():
    model = tiny_model()
    bound = model.bind(vocabulary())
    assert torch.equal(
        bound([sample()])[0]["sem_seg"], model([sample()], vocabulary())[0]["sem_seg"]
    )
    assert not bound.training
    assert bound.train().model.training


def test_inference_leaves_its_inputs_alone():
    x = sample(height=20, width=30)
    before = copy.deepcopy(x)
    tiny_model()([x], vocabulary())
    assert x.keys() == before.keys() and torch.equal(x["image"], before["image"])


def test_uint8_images_are_accepted():
    model = tiny_model()
    pixels = image(50, 70).to(torch.uint8)
    [whole] = model([{"image": pixels}], vocabulary())
    [same] = model([{"image": pixels.float()}], vocabulary())
    assert torch.equal(whole["sem_seg"], same["sem_seg"])


def test_names_that_the_masks_were_not_trained_with_have_a_weight_of_their_own():
    # Of the three classes "cat" and, as sky-other, "sky" are in COCO-Stuff.
    def decoded(**options):
        model = tiny_model(**options)
        [prediction] = model.predict([sample()], vocabulary())
        assert prediction.valid.any()
        return model.protocol(), prediction.class_scores

    plain, at_half = decoded(**{WEIGHT: 0.5})
    assert "ensemble_weight_unseen" not in plain
    _, at_09 = decoded(**{WEIGHT: 0.9})
    stated, both = decoded(**{WEIGHT: 0.5, UNSEEN: 0.9})
    assert (stated["ensemble_weight"], stated["ensemble_weight_unseen"]) == (0.5, 0.9)
    assert torch.equal(both[:, :2], at_half[:, :2])
    assert torch.equal(both[:, 2], at_09[:, 2]) and not torch.equal(both[:, 2], at_half[:, 2])
    assert torch.equal(decoded(**{WEIGHT: 0.5, UNSEEN: 0.5})[1], at_half)


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"INFERENCE_MODE: expected one of .*got 'panoptic'"):
        tiny_model(MODEL__INFERENCE_MODE="panoptic")
    with pytest.raises(ValueError, match=r"CLIP_ENSEMBLE_WEIGHT: expected a number in \[0, 1\]"):
        tiny_model(**{WEIGHT: 1.5})
    with pytest.raises(ValueError, match=r"WEIGHT_UNSEEN: expected a number in \[0, 1\].* 1\.5"):
        tiny_model(**{UNSEEN: 1.5})
    with pytest.raises(ValueError, match=r"WEIGHT_UNSEEN: expected a class list in .*got none"):
        tiny_model(**{UNSEEN: 0.5, TRAINED: ""})
    with pytest.raises(ValueError, match=r"name of a class list, got 'coco'"):
        tiny_model(**{TRAINED: "coco"})
    with pytest.raises(ValueError, match=r"TEST\.OUTPUT: expected one of"):
        tiny_model(TEST__OUTPUT="masks")


def test_the_inference_mode_follows_the_architecture_unless_set():
    assert tiny_model().inference_mode == "semantic"
    assert tiny_model(**DEMO).inference_mode == "demo"
    assert tiny_model(**DEMO, MODEL__INFERENCE_MODE="semantic").inference_mode == "semantic"


CLOSED = {
    "MODEL__META_ARCHITECTURE": "MaskFormer",
    "MODEL__SEM_SEG_HEAD__NAME": "MaskFormerHead",
}


def test_the_closed_model_trains_and_predicts_without_clip():
    model = tiny_model(**CLOSED)
    assert not any("clip" in name for name in model.state_dict())
    [result] = model([sample(height=20, width=30)], vocabulary())
    assert result["sem_seg"].shape == (len(NAMES), 20, 30)
    losses = model.train()([training_sample()], vocabulary())
    sum(losses.values()).backward()
    assert model.sem_seg_head.predictor.class_embed.weight.grad.abs().sum() > 0


def test_the_closed_model_refuses_another_vocabulary():
    with pytest.raises(ValueError, match="3 classes of training, got a vocabulary of 2"):
        tiny_model(**CLOSED)([sample()], vocabulary("a", "b"))


def test_an_encoding_can_be_stored_and_decoded_elsewhere():
    model = tiny_model()
    [encoding] = model.encode([sample()])
    expected = model.decode(encoding, vocabulary())
    stored = MaskEncoding.from_tensors(encoding.tensors())
    with pytest.raises(ValueError, match=r"region features for the threshold 0\.4"):
        model.decode(stored, vocabulary())
    stored.regions[0.4] = RegionFeatures(**encoding.regions[0.4].tensors())
    torch.testing.assert_close(
        model.decode(stored, vocabulary()).sem_seg(), expected.sem_seg(), rtol=0, atol=0
    )


def test_region_features_are_filled_mask_by_mask_and_end_as_all_at_once():
    model = tiny_model()
    [encoding] = model.encode([sample()])
    adapter, calls = model.clip_adapter, []
    forward = adapter.clip_model.visual.forward
    adapter.clip_model.visual.forward = lambda *args: calls.append(len(args[0])) or forward(*args)
    with torch.no_grad():
        whole = adapter(encoding.image, encoding.masks)
        wanted = torch.arange(QUERIES) % 2 == 0
        part = adapter(encoding.image, encoding.masks, wanted=wanted)
        rest = adapter(encoding.image, encoding.masks, known=part)
    valid = whole.valid
    assert calls == [int(valid.sum()), int((valid & wanted).sum()), int((valid & ~wanted).sum())]
    assert torch.equal(part.encoded, valid & wanted) and torch.equal(rest.encoded, valid)
    torch.testing.assert_close(rest.features, whole.features, rtol=1e-4, atol=1e-5)


def test_a_loss_may_do_without_words():
    class Reconstructs(FixedScores):
        def losses(self, batched_inputs, vocabulary=None):
            assert vocabulary is None
            return {"loss": self.prepare(batched_inputs).padded.tensor.square().mean()}

    model = Reconstructs(torch.empty(0)).train()
    assert model([{"image": torch.full((3, 4, 4), 2.0)}]) == {"loss": torch.tensor(4.0)}
    with pytest.raises(NotImplementedError, match="FixedScores has no training losses"):
        FixedScores(torch.empty(0)).train()([sample()])
