from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import ovseg
from ovseg.config import load_cfg
from ovseg.modeling import Encoding, MaskPrediction
from ovseg.predictor import Predictor, load
from ovseg.tinyscapes.scenes import SCENE_SIZES
from ovseg.toy_world import TOY_SIZES, toy_world_note
from ovseg.vocab import Vocabulary
from tests.modeling.tiny import FixedScores

ASSETS = Path(ovseg.__file__).parent / "assets"


class HalvesModel(FixedScores):
    """Calls the left half class 0 and the right half class 1."""

    def __init__(self) -> None:
        super().__init__(torch.empty(0))
        self.seen: list[tuple[dict[str, Any], Vocabulary]] = []

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> MaskPrediction:
        record = encoding.inputs
        self.seen.append((record, vocabulary))
        _, height, width = record["image"].shape
        masks = torch.zeros(3, height, width)
        masks[0, :, : width // 2] = 1.0
        masks[1, :, width // 2 :] = 0.5
        scores = torch.zeros(3, len(vocabulary))
        scores[0, 0], scores[1, 1] = 0.9, 0.6
        return MaskPrediction(
            masks=masks,
            class_scores=scores,
            proposal_scores=scores / 2,
            clip_scores=scores / 3,
            valid=torch.tensor([True, True, False]),
            output_size=encoding.output_size,
        )


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(model=HalvesModel(), short_side=32, max_side=48)


def picture(height: int = 20, width: int = 40) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def test_result_has_the_picture_size_and_the_network_its_own(predictor: Predictor) -> None:
    result = predictor.segment(picture(20, 40), ["sky", "tree"])
    record, _ = predictor.model.seen[0]
    assert record["image"].shape == (3, 24, 48)  # 32 for the short side would exceed 48
    assert result.labels.shape == (20, 40) and result.labels.dtype == np.int32
    assert (result.labels[:, :20] == 0).all() and (result.labels[:, 20:] == 1).all()
    assert result.names == ("sky", "tree")


def test_network_sees_rgb_channels_first() -> None:
    predictor = Predictor(model=HalvesModel(), short_side=8, max_side=8)
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    predictor.segment(red, ["a", "b"])
    image = predictor.model.seen[0][0]["image"]
    assert image[0].min() == 255 and image[1:].max() == 0


def test_scores_are_means_over_the_class_pixels(predictor: Predictor) -> None:
    result = predictor.segment(picture(), ["sky", "tree", "road"])
    assert result.scores.tolist() == pytest.approx([0.9, 0.6, 0.0])


def test_scores_weigh_masks_by_their_values() -> None:
    prediction = MaskPrediction(
        masks=torch.tensor([[[1.0, 0.0]], [[0.25, 1.0]]]),
        class_scores=torch.tensor([[0.8, 0.1], [0.4, 0.7]]),
        proposal_scores=torch.zeros(2, 2),
        clip_scores=None,
        valid=torch.ones(2, dtype=torch.bool),
        output_size=(1, 2),
    )
    scores = prediction.region_scores(np.array([[0, 1]], np.int32))
    assert scores.tolist() == pytest.approx([(0.8 + 0.25 * 0.4) / 1.25, 0.7])
    assert prediction.region_scores(np.array([[-1, -1]])).tolist() == [0.0, 0.0]


def test_score_of_a_region_below_the_network_grid_is_that_of_the_best_mask() -> None:
    prediction = MaskPrediction(
        masks=torch.ones(1, 1, 1),
        class_scores=torch.tensor([[0.2, 0.7]]),
        proposal_scores=torch.zeros(1, 2),
        clip_scores=None,
        valid=torch.ones(1, dtype=torch.bool),
        output_size=(8, 8),
    )
    labels = np.zeros((8, 8), np.int32)
    labels[7, 7] = 1
    assert prediction.region_scores(labels).tolist() == pytest.approx([0.2, 0.7])


def test_scores_without_any_mask() -> None:
    prediction = MaskPrediction(
        masks=torch.zeros(0, 4, 4),
        class_scores=torch.zeros(0, 2),
        proposal_scores=torch.zeros(0, 2),
        clip_scores=None,
        valid=torch.zeros(0, dtype=torch.bool),
        output_size=(4, 4),
    )
    assert prediction.region_scores(np.zeros((4, 4), np.int32)).tolist() == [0.0, 0.0]
    assert prediction.proposals() == ()


def test_proposals_are_the_surviving_masks_best_first(predictor: Predictor) -> None:
    proposals = predictor.segment(picture(), ["sky", "tree"], proposals=True).proposals
    assert [(p.label, p.score) for p in proposals] == [
        (0, pytest.approx(0.9)),
        (1, pytest.approx(0.6)),
    ]
    assert proposals[1].proposal_score == pytest.approx(0.3)
    assert proposals[1].clip_score == pytest.approx(0.2)
    assert proposals[0].area == pytest.approx(0.5)
    assert proposals[0].rle["size"] == [24, 48]


class SpeckModel(HalvesModel):
    """Calls the left half class 0, the right one class 1, and four pixels amid class 0 class 2."""

    def decode(self, encoding: Encoding, vocabulary: Vocabulary) -> MaskPrediction:
        made = super().decode(encoding, vocabulary)
        made.masks[2, 8:10, 4:6] = 1.0
        made.class_scores[2, 2] = 1.5
        made.class_scores[2, 0] = 0.3
        return made


def test_specks_are_merged_on_request_only_and_scores_follow_the_labels() -> None:
    predictor = Predictor(model=SpeckModel(), short_side=16, max_side=32)
    words, pixels = ["sky", "tree", "fish"], picture(16, 32)
    plain = predictor.segment(pixels, words)
    assert [area.pixels for area in plain.areas()] == [256, 252, 4]
    assert plain.provenance["min_region_area"] == 0
    assert (predictor.segment(pixels, words, min_region_area=4).labels == plain.labels).all()
    clean = predictor.segment(pixels, words, min_region_area=5, proposals=True)
    assert [(area.name, area.pixels) for area in clean.areas()] == [("sky", 256), ("tree", 256)]
    assert clean.scores[2] == 0 and plain.scores[2] > 0
    # The fish's four pixels now count for the sky: with 0.9 and 0.3 from the two masks there.
    assert clean.scores[0] == pytest.approx((256 * 0.9 + 4 * 0.3) / 260)
    assert plain.scores[0] == pytest.approx(0.9)
    assert clean.proposals == predictor.segment(pixels, words, proposals=True).proposals
    assert clean.provenance["min_region_area"] == 5
    asked_again = predictor.set_image(pixels).segment(words, min_region_area=5)
    assert (asked_again.labels == clean.labels).all()
    with pytest.raises(ValueError, match="0 for none, got -1"):
        predictor.segment(pixels, words, min_region_area=-1)


def test_background_becomes_a_class(predictor: Predictor) -> None:
    result = predictor.segment(picture(), ["sky"], background="others")
    assert result.names == ("sky", "others") and result.background == 1


def test_callers_list_is_not_changed(predictor: Predictor) -> None:
    names = ["sky"]
    predictor.segment(picture(), names, background="others")
    assert names == ["sky"]


def test_vocabulary_is_passed_as_it_is(predictor: Predictor) -> None:
    vocabulary = Vocabulary.make(["sky", "tree"], templates=["{}"])
    predictor.segment(picture(), vocabulary)
    assert predictor.model.seen[0][1] is vocabulary
    with pytest.raises(ValueError, match="carries its own"):
        predictor.segment(picture(), vocabulary, background="others")


def test_benchmark_with_a_background_of_its_own_choice(predictor: Predictor) -> None:
    plain = predictor.benchmark("pascal_voc_20")
    extended = predictor.benchmark("pascal_voc_20", background="others")
    assert extended.names == (*plain.names, "others")
    assert extended.background == len(plain) and extended.prompts[:-1] == plain.prompts


def test_unknown_benchmark_lists_the_known_ones(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match=r"got 'ade'; valid: ade20k_150, .*tinyscapes"):
        predictor.benchmark("ade")


def test_several_pictures_give_a_result_each(predictor: Predictor) -> None:
    batch = np.stack([picture(), picture()[:, ::-1]])
    listed = predictor.segment([picture(), Image.fromarray(picture(10, 12))], ["sky", "tree"])
    assert [result.labels.shape for result in listed] == [(20, 40), (10, 12)]
    assert [r.image[0, 0].tolist() for r in predictor.segment(batch, ["sky", "b"])] == [
        batch[0, 0, 0].tolist(), batch[1, 0, 0].tolist(),
    ]  # fmt: skip
    assert predictor.segment([], ["sky"]) == []
    with pytest.raises(ValueError, match=r"picture 2 of 2: image: expected a path.*got a int"):
        predictor.segment([picture(), 3], ["sky", "b"])
    with pytest.raises(OSError, match=r"picture 1 of 1: none.jpg: no such file"):
        predictor.segment(["none.jpg"], ["sky"])


def test_channels_are_turned_for_those_who_say_so(predictor: Predictor) -> None:
    pixels = picture()
    result = predictor.segment(pixels[..., ::-1], ["sky", "tree"], image_format="BGR")
    np.testing.assert_array_equal(result.image, pixels)
    np.testing.assert_array_equal(
        predictor.set_image(pixels[..., ::-1], image_format="BGR").image, pixels
    )


def test_a_call_answers_as_hugging_face_does(predictor: Predictor) -> None:
    found = predictor(picture(), ["sky", "tree"])
    assert [(entry["label"], round(entry["score"], 6)) for entry in found] == [
        ("sky", 0.9), ("tree", 0.6),
    ]  # fmt: skip
    assert found[0]["mask"].size == (40, 20) and found[0]["mask"].mode == "L"
    assert [len(each) for each in predictor([picture()] * 2, ["sky", "tree"])] == [2, 2]


def test_a_class_below_the_threshold_loses_its_pixels(predictor: Predictor) -> None:
    result = predictor.segment(picture(), ["sky", "tree"], threshold=0.7)
    assert (result.labels[:, :20] == 0).all() and (result.labels[:, 20:] == -1).all()
    assert result.scores.tolist() == pytest.approx([0.9, 0.0])
    assert result.provenance["threshold"] == 0.7
    for bad in (-0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="threshold: expected a score from 0 to 1"):
            predictor.segment(picture(), ["sky"], threshold=bad)


def test_another_mask_threshold_for_one_call() -> None:
    predictor = ovseg.load("ovseg_tiny", device="cpu")
    pixels, words = "demo/samples/scene_0041.jpg", ["castle", "grass", "gravel"]
    own, same, other = (
        predictor.segment(pixels, words, mask_threshold=threshold).scores
        for threshold in (None, 0.4, 0.8)
    )
    np.testing.assert_array_equal(own, same)
    assert not np.allclose(own, other)
    assert predictor.model.ensemble.mask_threshold == 0.4
    with pytest.raises(ValueError, match=r"MASK_THR: expected a mask probability .* got 40"):
        predictor.segment(pixels, words, mask_threshold=40)


def test_a_model_without_such_a_threshold_says_so(predictor: Predictor) -> None:
    with pytest.raises(ValueError, match=r"mask_threshold: expected None for HalvesModel"):
        predictor.segment(picture(), ["sky"], mask_threshold=0.5)


def test_templates_of_one_call_replace_the_models(predictor: Predictor) -> None:
    encoded = predictor.set_image(picture())
    asked = Vocabulary.make(["sky", "b"], templates=["{}", "a {}"])
    for names in (["sky", "b"], asked, "pascal_voc_20"):
        for segment in (encoded.segment, lambda *a, **k: predictor.segment(picture(), *a, **k)):
            assert segment(names, templates=["my {}"]).provenance["templates"] == 1
            assert predictor.model.seen[-1][1].templates == ("my {}",)
    with pytest.raises(ValueError, match=r"expected a template with exactly one \{\}"):
        predictor.segment(picture(), ["sky"], templates=["my"])


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({"sky": ["sky", "heaven"], "b": ["b"]}, {"sky": ("sky", "heaven"), "b": ("b",)}),
        ([["sky", "heaven"], "tree"], {"sky": ("sky", "heaven"), "tree": ("tree",)}),
        (
            ({"top": "sky", "green": ("tree ", "bush")}),
            {"top": ("sky",), "green": ("tree", "bush")},
        ),
    ],
)
def test_synonyms_reach_the_model(
    predictor: Predictor, names: object, expected: dict[str, tuple[str, ...]]
) -> None:
    vocabulary = predictor.vocabulary(names)
    assert dict(zip(vocabulary.names, vocabulary.prompts, strict=True)) == expected
    predictor.segment(picture(), vocabulary)
    assert predictor.model.seen[0][1].prompts == tuple(expected.values())


def test_a_benchmarks_name_stands_for_its_classes(predictor: Predictor) -> None:
    assert predictor.segment(picture(), "pascal_voc_20").names == (
        predictor.benchmark("pascal_voc_20").names
    )
    assert predictor.vocabulary("pascal_voc_20", background="others").background == 20
    with pytest.raises(ValueError, match=r"got 'sky'; write \['sky'\] for one .*: a"):
        predictor.segment(picture(), "sky")


def test_bundled_weights_note_once_that_a_picture_is_not_of_their_world(
    caplog: pytest.LogCaptureFixture,
) -> None:
    predictor = Predictor(
        model=HalvesModel(),
        short_side=32,
        max_side=48,
        provenance={"weights": {"name": "ovseg_tiny"}},
    )
    predictor.segment(picture(128, 160), ["sky", "tree"])
    assert caplog.messages == []
    predictor.segment([picture(20, 40), picture(30, 40)], ["sky", "tree"])
    assert [m[:44] for m in caplog.messages] == ["ovseg_tiny knows the drawn scenes of tinysca"]
    assert "40 x 20 pixels" in caplog.messages[0]
    assert toy_world_note("ovseg_swinB", (20, 40)) is None
    assert TOY_SIZES == SCENE_SIZES


def test_same_picture_twice_gives_the_same_result(predictor: Predictor) -> None:
    first, second = (
        predictor.segment(picture(), ["sky", "tree"], proposals=True) for _ in range(2)
    )
    assert first.to_dict(proposals=True) == second.to_dict(proposals=True)


def test_load_refuses_a_file_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config: .*got none.*'ovseg_swinB'"):
        load(tmp_path / "w.safetensors")


def test_load_answers_with_the_weights_that_the_settings_name(tmp_path: Path) -> None:
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes((ASSETS / "ovseg_tiny.safetensors").read_bytes())
    with pytest.raises(ValueError, match=r"config: .*mine.safetensors.*no config.yaml beside it"):
        load(opts=["MODEL.WEIGHTS", str(weights)])  # upstream's syntax; never ovseg_tiny instead
    (tmp_path / "config.yaml").write_text(load_cfg("ovseg_tiny", ["MODEL.DEVICE", "cpu"]).dump())
    for found in (load(opts=["MODEL.WEIGHTS", str(weights)]), load(weights)):
        assert found.provenance["weights"]["name"] == str(weights)
        assert found.provenance["config"] == str(tmp_path / "config.yaml")
    with pytest.raises(ValueError, match="expected one model, got"):
        load("ovseg_tiny", opts=["MODEL.WEIGHTS", str(weights)])


def test_load_takes_the_released_weights_of_a_config(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def find(wanted: str) -> Path:
        asked.append(wanted)
        raise RuntimeError("far enough")

    monkeypatch.setattr("ovseg.predictor.find_weights", find)
    for config in ("ovseg_swinB", "ovseg_R101c"):
        with pytest.raises(RuntimeError, match="far enough"):
            load(config=config, device="cpu")
    assert asked == ["ovseg_swinB", "ovseg_R101c"]


def test_load_refuses_a_device_that_is_no_device() -> None:
    with pytest.raises(ValueError, match="'cpu', 'cuda', 'cuda:N' or 'mps', got 'gpu'"):
        load("random", config="ovseg_tiny", device="gpu")


def test_random_weights_are_the_same_every_time_and_say_so() -> None:
    first = ovseg.load("random", config="ovseg_tiny", device="cpu")
    second = ovseg.load("random", config="ovseg_tiny", device="cpu")
    left, right = first.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(left[key], right[key]) for key in left)
    assert first.provenance["weights"]["name"] == "random"
    assert "random" in first.describe()
    result = first.segment(picture(64, 80), ["sky", "tree"])
    assert result.labels.shape == (64, 80)
    assert 0.0 < result.scores.max() <= 1.0


def test_proposals_are_listed_for_those_who_ask(predictor: Predictor) -> None:
    result = predictor.segment(picture(), ["sky", "tree"])
    assert result.proposals is None
    with pytest.raises(ValueError, match=r"proposals: .*segment\(..., proposals=True\)"):
        result.to_dict(proposals=True)


def test_one_picture_answers_many_questions_from_one_encoding() -> None:
    predictor = ovseg.load("ovseg_tiny", device="cpu")
    pixels = picture(64, 80)
    expected = [predictor.segment(pixels, names) for names in (["sky", "tree"], ["sea", "boat"])]
    encoded = predictor.set_image(pixels)
    model = predictor.model
    for part in (model.backbone, model.sem_seg_head, model.clip_adapter.clip_model.visual):
        part.forward = None  # nothing of the picture's side runs again
    for names, wanted in ((["sky", "tree"], expected[0]), (["sea", "boat"], expected[1])):
        found = encoded.segment(names)
        assert found.names == tuple(names)
        np.testing.assert_array_equal(found.labels, wanted.labels)
        np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-6)


def test_scales_and_flips_of_the_config_reach_the_predictor() -> None:
    opts = ["TEST.AUG.ENABLED", "True", "TEST.AUG.MIN_SIZES", "(48, 64)"]
    plain = ovseg.load("ovseg_tiny", device="cpu")
    augmented = ovseg.load("ovseg_tiny", device="cpu", opts=opts)
    pixels = picture(48, 60)
    assert augmented.model.short_sides == (48, 64)
    few = augmented.set_image(pixels).segment(["sky", "tree", "sea"])
    np.testing.assert_array_equal(
        few.labels, augmented.segment(pixels, ["sky", "tree", "sea"]).labels
    )
    assert (few.scores != plain.segment(pixels, ["sky", "tree", "sea"]).scores).any()
    assert few.proposals is None and augmented.model.output == "labels"


def test_a_benchmarks_synonyms_follow_the_config() -> None:
    listed = ovseg.load("random", config="ovseg_tiny", device="cpu")
    key = "MODEL.CLIP_ADAPTER.SYNONYMS"
    named = ovseg.load("random", config="ovseg_tiny", device="cpu", opts=[key, "none"])
    many, one = (each.benchmark("pascal_voc_21").prompts[0] for each in (listed, named))
    assert len(many) > 1 and one == ("background",)


def test_a_separator_of_the_config_splits_names_but_not_given_synonyms() -> None:
    predictor = Predictor(model=HalvesModel(), short_side=8, max_side=8, synonyms=",")
    made = predictor.vocabulary(["door, gate", ["sky", "blue, sky"]])
    assert made.names == ("door, gate", "sky")
    assert made.prompts == (("door", "gate"), ("sky", "blue, sky"))


def test_a_device_of_the_overrides_is_checked() -> None:
    with pytest.raises(ValueError, match="torch has no access to Apple's GPU"):
        load("random", config="ovseg_tiny", opts=["MODEL.DEVICE", "mps"])
    assert load("random", config="ovseg_tiny", device=torch.device("cpu")).provenance["device"] == (
        "cpu"
    )
