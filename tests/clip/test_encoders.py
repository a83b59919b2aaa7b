from __future__ import annotations

import open_clip
import pytest
import torch

from ovseg.clip import encode_texts, encode_tokens, tokenize
from tests.clip.tiny import make_clip

TEXTS = ["a photo of a cat.", "dog", "There is the wooden table with four legs in the scene", ""]


@torch.no_grad()
def test_trimmed_text_equals_the_padded_text_of_open_clip():
    clip = make_clip()
    tokens = tokenize(TEXTS)
    expected = open_clip.CLIP.encode_text(clip, tokens)
    torch.testing.assert_close(encode_tokens(clip, tokens), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(clip.encode_text(tokens), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        clip.encode_text(tokens, normalize=True).norm(dim=-1), torch.ones(len(TEXTS))
    )


@torch.no_grad()
def test_no_token_behind_the_longest_end_is_encoded():
    clip = make_clip()
    lengths = []
    clip.transformer.register_forward_pre_hook(lambda _, inputs: lengths.append(inputs[0].shape[1]))
    encode_tokens(clip, tokenize(TEXTS))
    encode_tokens(clip, tokenize(TEXTS[:2]))
    assert lengths == [13, 8]


@torch.no_grad()
def test_texts_that_begin_alike_share_their_beginning():
    clip = make_clip()
    names = ["cat", "cat flap", "Cat", "traffic light", "traffic cone", ""]
    texts = [t.format(name) for t in ("a photo of a {}.", "{}", "the {} there") for name in names]
    encoded = []
    clip.ln_final.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    block = clip.transformer.resblocks[0].ln_1
    block.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0].shape[1]))
    features = encode_texts(clip, texts)
    rows = {tuple(row[: row.argmax() + 1].tolist()) for row in tokenize(texts)}
    beginnings = {row[: n + 1] for row in rows for n in range(len(row))}
    assert encoded == [len(beginnings), len(texts)] and len(beginnings) < 60
    assert sum(int(row.argmax()) + 1 for row in tokenize(texts)) == 102
    expected = open_clip.CLIP.encode_text(clip, tokenize(texts))
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(features[0], features[2])  # one text but for its case


@torch.no_grad()
@pytest.mark.parametrize("chunk_size", [1, 3, 256])
def test_chunks_keep_the_order_of_the_texts(chunk_size):
    clip = make_clip()
    expected = open_clip.CLIP.encode_text(clip, tokenize(TEXTS))
    features = encode_texts(clip, TEXTS, chunk_size=chunk_size)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_a_text_that_fills_the_context_is_encoded_whole():
    clip = make_clip()
    tokens = tokenize(["cat " * 100])
    assert tokens[0, -1] == tokens.max()  # cut off, but ended
    torch.testing.assert_close(
        encode_tokens(clip, tokens), open_clip.CLIP.encode_text(clip, tokens)
    )


def test_no_texts_give_no_rows():
    assert encode_texts(make_clip(), []).shape == (0, 8)
    assert tokenize([]).shape == (0, 77)


def test_gradients_reach_the_text_tower():
    clip = make_clip()
    encode_texts(clip, TEXTS).sum().backward()
    assert clip.token_embedding.weight.grad.abs().sum() > 0


def test_tokens_are_those_of_clip():
    tokens = tokenize(["a photo of a cat.", "Ünïcode & <html>  spaces"])
    assert tokens[0, :9].tolist() == [49406, 320, 1125, 539, 320, 2368, 269, 49407, 0]
    assert tokens[1, :11].tolist() == [
        49406, 6522, 77, 35689, 3217, 261, 283, 18231, 285, 9006, 49407,
    ]  # fmt: skip


def test_misuse_is_refused():
    with pytest.raises(TypeError, match="single string 'cat'"):
        tokenize("cat")
    with pytest.raises(ValueError, match="chunk size of at least 1, got 0"):
        encode_texts(make_clip(), ["cat"], chunk_size=0)
