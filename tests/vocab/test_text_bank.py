from __future__ import annotations

import pytest
import torch

from ovseg.vocab import TextBank, Vocabulary


class _Encoder:
    """Maps every distinct string to a fixed random vector and counts what it is asked for."""

    def __init__(self, dtype=torch.float32):
        self.seen: list[str] = []
        self.dtype = dtype

    def vector(self, text):
        generator = torch.Generator().manual_seed(sum(map(ord, text)) * 31 + len(text))
        return 7 * torch.randn(6, generator=generator)

    def __call__(self, texts):
        self.seen += texts
        return torch.stack([self.vector(text) for text in texts]).to(self.dtype)


def _unit(vector):
    return vector / vector.norm()


def test_features_are_the_normalised_mean_of_normalised_templates():
    encoder = _Encoder()
    vocabulary = Vocabulary.make(["cat", "red, dog"], templates=["a {}", "the {}."], synonyms=",")
    features = TextBank(encoder).features(vocabulary)
    cat = _unit(_unit(encoder.vector("a cat")) + _unit(encoder.vector("the cat.")))
    dog_texts = ["a red", "the red.", "a dog", "the dog."]
    dog = _unit(sum(_unit(encoder.vector(text)) for text in dog_texts))
    torch.testing.assert_close(features, torch.stack([cat, dog]))


def test_raw_features_are_averaged_as_they_are_and_normalised_once():
    encoder = _Encoder()
    bank = TextBank(encoder, average="raw")
    features = bank.features(Vocabulary.make(["cat"], templates=["a {}", "the {}."]))
    wanted = _unit(encoder.vector("a cat") + encoder.vector("the cat."))
    torch.testing.assert_close(features, wanted[None])
    with pytest.raises(ValueError, match="expected 'unit' or 'raw', got 'none'"):
        TextBank(encoder, average="none")


def test_a_class_is_encoded_once():
    encoder = _Encoder()
    bank = TextBank(encoder)
    first = bank.features(Vocabulary.make(["cat", "dog"], templates=["{}"]))
    second = bank.features(Vocabulary.make(["dog", "sky", "cat"], templates=["{}"]))
    assert encoder.seen == ["cat", "dog", "sky"]
    assert torch.equal(first[0], second[2])


def test_other_templates_are_another_entry():
    encoder = _Encoder()
    bank = TextBank(encoder)
    bank.features(Vocabulary.make(["cat"], templates=["{}"]))
    bank.features(Vocabulary.make(["cat"], templates=["a {}"]))
    assert encoder.seen == ["cat", "a cat"]


def test_clear_encodes_again():
    encoder = _Encoder()
    bank = TextBank(encoder)
    for _ in range(2):
        bank.features(Vocabulary.make(["cat"], templates=["{}"]))
        bank.clear()
    assert encoder.seen == ["cat", "cat"]


def test_the_oldest_classes_are_dropped_first():
    encoder = _Encoder()
    bank = TextBank(encoder, max_rows=2)
    features = bank.features(Vocabulary.make(["a", "b", "c"], templates=["{}"]))
    assert features.shape == (3, 6)
    assert len(bank) == 2
    bank.features(Vocabulary.make(["b", "c"], templates=["{}"]))
    assert encoder.seen == ["a", "b", "c"]


def test_results_are_float32_and_cannot_spoil_the_cache():
    bank = TextBank(_Encoder(torch.float16))
    vocabulary = Vocabulary.make(["cat"])
    features = bank.features(vocabulary)
    assert features.dtype == torch.float32
    assert not features.requires_grad
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(1))
    features.zero_()
    assert bank.features(vocabulary).norm() > 0.9


def test_braces_in_a_name_stay_as_they_are():
    encoder = _Encoder()
    TextBank(encoder).features(Vocabulary.make(["a {b}"], templates=["the {}."]))
    assert encoder.seen == ["the a {b}."]


def test_prompts_have_a_row_each_and_know_their_class():
    encoder = _Encoder()
    vocabulary = Vocabulary(
        ("cat", "background", "dog"), (("cat",), ("sky", "wall"), ("dog",)), ("a {}", "the {}.")
    )
    features, classes = TextBank(encoder).prompt_features(vocabulary)
    expected = [
        _unit(_unit(encoder.vector(f"a {name}")) + _unit(encoder.vector(f"the {name}.")))
        for name in ("cat", "sky", "wall", "dog")
    ]
    torch.testing.assert_close(features, torch.stack(expected))
    assert classes.dtype == torch.int64
    assert classes.tolist() == [0, 1, 1, 2]


def test_a_class_of_one_prompt_shares_its_row_between_both_kinds():
    encoder = _Encoder()
    bank = TextBank(encoder)
    vocabulary = Vocabulary.make(["cat", "red, dog"], templates=["{}"], synonyms=",")
    per_class = bank.features(vocabulary)
    per_prompt, _ = bank.prompt_features(vocabulary)
    assert encoder.seen == ["cat", "red", "dog", "red", "dog"]  # "cat" once
    assert torch.equal(per_prompt[0], per_class[0])
    bank.prompt_features(vocabulary)
    assert len(encoder.seen) == 5
    assert torch.equal(bank.features(vocabulary), per_class)


def test_a_prompt_of_two_classes_has_a_row_in_both():
    vocabulary = Vocabulary(("hot", "cold"), (("tap", "sun"), ("tap",)), ("{}",))
    features, classes = TextBank(_Encoder()).prompt_features(vocabulary)
    assert classes.tolist() == [0, 0, 1]
    assert torch.equal(features[0], features[2])
    assert not torch.equal(features[0], features[1])


def test_prompt_rows_count_against_the_limit():
    bank = TextBank(_Encoder(), max_rows=2)
    features, _ = bank.prompt_features(Vocabulary.make(["a, b, c"], templates=["{}"], synonyms=","))
    assert features.shape == (3, 6)
    assert len(bank) == 2
