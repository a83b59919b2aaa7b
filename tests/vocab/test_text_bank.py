from __future__ import annotations

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
    bank = TextBank(encoder, max_classes=2)
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
