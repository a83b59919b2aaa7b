from __future__ import annotations

import itertools
import sys

import pytest
import torch

from ovseg.projects.pnp_ovss.captions import Wording, class_maps, make_captions, rows_of_classes
from ovseg.projects.pnp_ovss.dropout import DropSettings, blank_patches, salience_dropout
from ovseg.projects.pnp_ovss.loading import matcher_from_hub, matcher_of_state
from ovseg.projects.pnp_ovss.matcher import gradient_map
from ovseg.weights.load import WeightsError
from tests.projects.pnp_ovss.tiny import PIECES, make_matcher

pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def matcher():
    return make_matcher()


@pytest.fixture
def pixels():
    return torch.randn(1, 3, 48, 48)


def caption(matcher, *names, rule="mean", max_tokens=24):
    found = make_captions(
        [Wording(rule=rule).words(name) for name in names],
        prefix="A picture of",
        pieces=matcher.pieces,
        max_tokens=max_tokens,
    )
    return found[0] if len(found) == 1 else found


def tokens_of(matcher, *names):
    asked = caption(matcher, *names)
    tokens = matcher.tokenize([asked.words])
    return asked, tokens, rows_of_classes(tokens.words[0][1:], asked)[None]


def test_the_first_token_asks_for_a_match_and_the_last_id_stands_for_it(matcher):
    tokens = matcher.tokenize([["A", "picture", "of", "sky"]])
    assert tokens.ids.tolist() == [[len(PIECES) + 1, 5, 6, 7, 8, 3]]
    assert tokens.words == [[None, 0, 1, 2, 3, None]]


def test_attention_is_a_distribution_and_its_gradient_that_of_the_match(matcher, pixels):
    _, tokens, _ = tokens_of(matcher, "sky", "tree")
    features = matcher.encode_images(pixels).detach()
    logits, found = matcher.attend(features, tokens, [0, 1])
    torch.testing.assert_close(logits, matcher.match(features, tokens).detach())
    seen, slope = found[1].probabilities, found[1].gradient
    torch.testing.assert_close(seen.sum(-1), torch.ones(seen.shape[:-1]))

    step = 1e-3 * slope / slope.norm()  # the steepest one
    dropout = matcher.model.text_encoder.encoder.layer[1].crossattention.self.dropout
    ends = []
    for way in (step, -step):
        handle = dropout.register_forward_pre_hook(lambda _, inputs, way=way: (inputs[0] + way,))
        ends.append(matcher.match(features, tokens)[0, 1].item())
        handle.remove()
    assert ends[0] - ends[1] == pytest.approx(2e-3 * float(slope.norm()), rel=0.02)


def test_layers_asked_for_together_have_the_gradients_of_each_alone(matcher, pixels):
    _, tokens, _ = tokens_of(matcher, "sky", "tree")
    features = matcher.encode_images(pixels)
    _, together = matcher.attend(features, tokens, [1, 0])
    for layer in (0, 1):
        _, alone = matcher.attend(features, tokens, [layer])
        torch.testing.assert_close(together[layer].gradient, alone[layer].gradient)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_finds_gradients_where_the_caller_has_switched_them_off(matcher, pixels, mode):
    _, tokens, _ = tokens_of(matcher, "sky", "tree")
    _, expected = matcher.attend(matcher.encode_images(pixels), tokens, [0])
    with mode():
        _, found = matcher.attend(matcher.encode_images(pixels), tokens, [0])
    assert found[0].gradient.abs().max() > 0
    torch.testing.assert_close(found[0].gradient, expected[0].gradient)


def test_no_hook_stays_behind(matcher, pixels):
    _, tokens, _ = tokens_of(matcher, "sky")
    matcher.attend(matcher.encode_images(pixels), tokens, [0, 1, 2])
    layers = matcher.model.text_encoder.encoder.layer
    assert not any(layer.crossattention.self.dropout._forward_pre_hooks for layer in layers)


def test_maps_are_not_negative_and_the_last_layer_has_none(matcher, pixels):
    _, tokens, _ = tokens_of(matcher, "sky", "tree")
    _, found = matcher.attend(matcher.encode_images(pixels), tokens, [0, 2])
    maps = gradient_map(found[0], tokens.mask, 0, (6, 6))
    assert maps.shape == (1, 6, 6, 6) and maps.min() >= 0 and maps.max() > 0
    assert gradient_map(found[2], tokens.mask, 0, (6, 6)).abs().max() == 0


def test_padding_has_no_map(matcher, pixels):
    words = [["A", "picture", "of", "sky"], ["A", "picture", "of", "sky", "tree", "sea"]]
    tokens = matcher.tokenize(words)
    features = matcher.encode_images(pixels.repeat(2, 1, 1, 1))
    _, found = matcher.attend(features, tokens, [0])
    maps = gradient_map(found[0], tokens.mask, 0, (6, 6))
    assert maps[0, 5:].abs().max() == 0 and maps[1, 5:].max() > 0
    _, alone = matcher.attend(features[:1], matcher.tokenize(words[:1]), [0])
    single = gradient_map(alone[0], torch.ones(1, 6), 0, (6, 6))
    torch.testing.assert_close(maps[0, :5], single[0])


@pytest.mark.parametrize(
    ("mode", "sizes"), [("topk", [0, 3, 6, 9]), ("halving", [0, 18, 27, 31]), ("threshold", None)]
)
def test_each_round_blanks_further_patches_and_counts_none_of_them(matcher, pixels, mode, sizes):
    _, tokens, rows = tokens_of(matcher, "sky", "tree")
    settings = DropSettings(rounds=4, mode=mode, top_k=3, threshold=0.5, first_weight=2.0)
    total, rounds = salience_dropout(
        matcher, pixels, tokens, rows, layer=1, head=0, settings=settings
    )
    found = [int(each.blanked.sum()) for each in rounds]
    assert found == sizes if sizes else found == sorted(found) and found[1] > 0
    for before, after in itertools.pairwise(rounds):
        assert (after.blanked | ~before.blanked).all()
    for each in rounds:
        assert (each.kept * each.blanked[:, None]).abs().max() == 0
        torch.testing.assert_close(each.saliency, each.kept[:, 3:5].sum(1))
    kept = [each.kept for each in rounds]
    torch.testing.assert_close(total, 2 * kept[0] + kept[1] + kept[2] + kept[3])


def test_what_stands_out_is_blanked_first(matcher, pixels):
    _, tokens, rows = tokens_of(matcher, "sky")
    settings = DropSettings(rounds=2, top_k=4)
    _, rounds = salience_dropout(matcher, pixels, tokens, rows, layer=1, head=0, settings=settings)
    first, second = rounds
    assert first.saliency[second.blanked].min() >= first.saliency[~second.blanked].max()


def test_known_features_change_nothing(matcher, pixels):
    _, tokens, rows = tokens_of(matcher, "sky")
    options = {"layer": 1, "head": 0, "settings": DropSettings(rounds=2, top_k=4)}
    total, _ = salience_dropout(matcher, pixels, tokens, rows, **options)
    features = matcher.encode_images(pixels)
    again, _ = salience_dropout(matcher, pixels, tokens, rows, features=features, **options)
    torch.testing.assert_close(total, again)


def test_blank_patches_are_zero_and_the_others_as_they_were(pixels):
    blanked = torch.zeros(1, 6, 6, dtype=torch.bool)
    blanked[0, 1, 2] = True
    blank = blank_patches(pixels, blanked)
    assert blank[0, :, 8:16, 16:24].abs().max() == 0
    blank[0, :, 8:16, 16:24] = pixels[0, :, 8:16, 16:24]
    assert torch.equal(blank, pixels)


def test_unknown_modes_and_no_rounds_are_refused():
    with pytest.raises(ValueError, match=r"DROP.MODE: expected one of .*'topk'.* got 'top'"):
        DropSettings(mode="top")
    with pytest.raises(ValueError, match=r"DROP.ITERS: expected at least 1, got 0"):
        DropSettings(rounds=0)


@pytest.mark.parametrize(
    ("rule", "rows"), [("mean", [[3], [4, 5]]), ("last", [[3], [5]]), ("join", [[3], [4, 5]])]
)
def test_names_of_several_words_follow_the_rule(matcher, rule, rows):
    asked = caption(matcher, "sky", "traffic light", rule=rule)
    expected = ("trafficlight",) if rule == "join" else ("traffic", "light")
    assert asked.words == ("A", "picture", "of", "sky", *expected)
    tokens = matcher.tokenize([asked.words])
    maps = torch.rand(7, 3, 3)
    found = class_maps(maps, tokens.words[0][1:], asked, rule=rule)
    for k, of_class in enumerate(rows):
        torch.testing.assert_close(found[k], maps[of_class].mean(0))


def test_a_word_of_several_pieces_weighs_as_much_as_one_of_one(matcher):
    asked = caption(matcher, "sky tvmonitor")
    tokens = matcher.tokenize([asked.words])
    maps = torch.rand(8, 2, 2)
    found = class_maps(maps, tokens.words[0][1:], asked)
    torch.testing.assert_close(found[0], (maps[3] + maps[4:7].mean(0)) / 2)


def test_names_can_be_shortened_and_exchanged():
    wording = Wording(rule="join", separator=",", rename=(("earth, ground", "ground"),))
    assert wording.words("earth, ground") == ("ground",)
    assert wording.words("pool table, billiard table") == ("pooltable",)
    assert wording.words("wall-other") == ("wallother",)
    with pytest.raises(ValueError, match="a word in it, got '- '"):
        wording.words("- ")
    with pytest.raises(ValueError, match=r"PROMPT.WORDS: expected one of .* got 'first'"):
        Wording(rule="first")


def test_classes_that_do_not_fit_into_a_caption_come_into_the_next(matcher):
    first, second = caption(matcher, "sky", "tvmonitor", "tree", "sea", max_tokens=10)
    assert first.words == ("A", "picture", "of", "sky", "tvmonitor", "tree")
    assert second.words == ("A", "picture", "of", "sea") and second.classes == ((3,),)
    with pytest.raises(ValueError, match=r"1 to 2 word pieces .* got 3 for 'tvmonitor'"):
        caption(matcher, "tvmonitor", max_tokens=7)
    with pytest.raises(ValueError, match="at least one class"):
        caption(matcher)


def test_a_matcher_is_rebuilt_from_its_tensors(matcher, pixels):
    state = {f"matcher.{k}": v for k, v in matcher.state_dict().items()}
    again = matcher_of_state(state, source="here").eval()
    features = matcher.encode_images(pixels)
    torch.testing.assert_close(again.encode_images(pixels), features)
    assert torch.equal(again.tokenize([["sky"]]).ids, matcher.tokenize([["sky"]]).ids)
    with pytest.raises(WeightsError, match=r"here: expected a matcher with its config"):
        matcher_of_state({"a": torch.zeros(1)}, source="here")
    del state["matcher.model.itm_head.bias"]
    with pytest.raises(WeightsError, match=r"missing \(1\):\s+model.itm_head.bias"):
        matcher_of_state(state, source="here")


def test_a_folder_in_hugging_faces_form_is_a_matcher(matcher, pixels, tmp_path):
    matcher.model.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES), encoding="utf-8")
    again = matcher_from_hub(str(tmp_path)).eval()
    torch.testing.assert_close(again.encode_images(pixels), matcher.encode_images(pixels))
    assert torch.equal(again.tokenize([["tvmonitor"]]).ids, matcher.tokenize([["tvmonitor"]]).ids)


def test_pickled_weights_and_missing_folders_are_refused(matcher, tmp_path):
    matcher.model.config.save_pretrained(tmp_path)
    torch.save(matcher.model.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"ITM.NAME: expected a folder .*model.safetensors"):
        matcher_from_hub(str(tmp_path))


def test_without_transformers_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"ovseg\[transformers\]"):
        matcher_from_hub("anything")
