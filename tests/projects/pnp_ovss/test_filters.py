from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ovseg.projects.pnp_ovss.answers import kept_positions
from ovseg.projects.pnp_ovss.filters import (
    AllClasses,
    Asked,
    CachedAnswers,
    PresentClasses,
    UserList,
)
from ovseg.projects.pnp_ovss.model_filters import ClipFilter, MatcherFilter, most_probable
from ovseg.utils.images import write_png
from ovseg.vocab import Vocabulary
from tests.clip.tiny import make_clip
from tests.projects.pnp_ovss.tiny import make_matcher

NAMES = ["background", "sky", "grass", "tree", "sea"]


def asked(names=NAMES, *, image_id="a", seen=None, features=None):
    vocabulary = Vocabulary.make(names, background="background" if "background" in names else None)
    candidates = [k for k in range(len(names)) if k != vocabulary.background]
    words = [tuple(names[k].split()) for k in candidates]
    return Asked(vocabulary, candidates, words, image_id, features, seen or {})


def chosen(class_filter, **options):
    question = asked(**options)
    kept = class_filter.choose(question)
    return [question.vocabulary.names[question.candidates[position]] for position in kept]


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ("[1: 'cat', 3: dog], [1: 90%, 3: 71%]", (0, 2)),
        ("[1: cat, 3: dog]\n\n[1: 90, 3: 40]", (0,)),
        ("[2: \"cat; kitten\", 4: 'x'],\n[80%, 85.5%]", (1, 3)),
        ("[2: cat]\n[70%]", (0,)),  # more than 70 is asked for
        ("[2: cat, 4: dog]", (1, 3)),
        ("[2: cat, 99: dog], [99%, 99%]", (1,)),
        ("[2: cat, 2: cat], [99%, 98%]", (1,)),
        ("[2: cat, 3: dog], [99%]", (1,)),  # as far as both lists go
        ("", (0,)),
        ("I cannot see anything.", (0,)),
    ],
)
def test_answers_are_read_however_they_are_written(answer, kept):
    assert kept_positions(answer, range(1, 6)) == kept


def test_ids_of_an_answer_may_be_sparse():
    assert kept_positions("[18: dog, 12: none], [90%, 90%]", [1, 2, 18]) == (2,)


def test_all_classes_but_the_background_are_asked_for():
    assert chosen(AllClasses()) == NAMES[1:]


def test_a_list_names_the_classes_and_must_name_some():
    assert chosen(UserList(["sea", "sky", "moon"])) == ["sky", "sea"]
    with pytest.raises(ValueError, match=r"FILTER.NAMES: expected some of .*'grass'.*got \['moon'"):
        chosen(UserList(["moon"]))
    with pytest.raises(ValueError, match=r"FILTER.NAMES: expected class names"):
        UserList([])


def test_a_file_tells_the_classes_of_each_picture(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"a": "[2: grass, 4: sea], [90%, 20%]", "b": ["sea", "tree"]}))
    assert chosen(CachedAnswers(path)) == ["grass"]
    assert chosen(CachedAnswers(path, min_probability=10)) == ["grass", "sea"]
    assert chosen(CachedAnswers(path), image_id="b") == ["tree", "sea"]
    with pytest.raises(ValueError, match=r"an entry for the picture 'c', got none .* among 2"):
        chosen(CachedAnswers(path), image_id="c")


def test_cocos_ids_are_those_of_its_categories(tmp_path):
    path = tmp_path / "answers.json"
    path.write_text(json.dumps({"a": "[1: person, 90: toothbrush, 13: stop sign]"}))
    names = ["background", "people", "stop sign", "toothbrush"]
    kept = chosen(CachedAnswers(path, ids="coco"), names=names)
    assert kept == ["people", "toothbrush", "stop sign"]
    with pytest.raises(ValueError, match=r"expected classes of COCO, got \['sky"):
        chosen(CachedAnswers(path, ids="coco"), names=["sky", "person"])


def test_files_of_answers_that_are_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"FILTER.PATH: expected a JSON file of classes .* got ''"):
        CachedAnswers("")
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(ValueError, match=r"expected an object"):
        CachedAnswers(tmp_path / "a.json")
    with pytest.raises(ValueError, match=r"FILTER.IDS: expected 'position' or 'coco', got 'name'"):
        CachedAnswers(tmp_path / "a.json", ids="name")


def test_the_oracle_reads_which_classes_are_there_and_says_so(tmp_path):
    labels = np.full((4, 4), 255, np.uint8)
    labels[0, :2] = 3
    labels[1, 1] = 1
    write_png(tmp_path / "labels.png", labels)
    oracle = PresentClasses()
    seen = oracle.look({"sem_seg_file_name": str(tmp_path / "labels.png")})
    assert chosen(oracle, seen=seen) == ["sky", "tree"]
    assert oracle.prompts == "present classes"
    with pytest.raises(ValueError, match="oracle: expected a picture of a dataset"):
        oracle.look({"file_name": "photo.jpg"})


def test_the_most_probable_classes_are_kept_and_never_none():
    probabilities = torch.tensor([0.1, 0.5, 0.3, 0.02])
    assert most_probable(probabilities, ratio=0.5, top=9) == [1, 2]
    assert most_probable(probabilities, ratio=0.1, top=2) == [1, 2]
    assert most_probable(probabilities, ratio=1.0, top=0) == [1]


def test_the_matcher_chooses_by_captions_of_one_class_each():
    pytest.importorskip("transformers")
    matcher = make_matcher()
    features = matcher.encode_images(torch.randn(1, 3, 32, 32)).detach()
    captions = [["A", "picture", "of", name] for name in NAMES[1:]]
    alone = torch.stack(
        [
            matcher.match(features, matcher.tokenize([words])).detach()[0].softmax(-1)[1]
            for words in captions
        ]
    )
    best = [NAMES[1:][k] for k in sorted(alone.topk(2).indices.tolist())]
    found = MatcherFilter(matcher, prefix="A picture of", ratio=0.0, top=2)
    assert chosen(found, features=features[0]) == best
    assert not list(found.parameters())


def test_the_clip_of_a_filter_goes_along_but_is_no_part_of_what_is_saved():
    class_filter = ClipFilter(make_clip(), model="tiny", ratio=0.1, top=5)
    inputs = {"image": torch.randint(0, 256, (3, 40, 30)).float()}
    before = class_filter.look(inputs)["clip"]
    model = torch.nn.ModuleDict({"class_filter": class_filter}).train()
    assert model.state_dict() == {}
    torch.testing.assert_close(class_filter.look(inputs)["clip"], before, rtol=0, atol=0)
    model.bfloat16()
    after = class_filter.look(inputs)["clip"]
    assert 1e-5 < (after - before).abs().max() < 0.05
