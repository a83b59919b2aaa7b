"""BLIP's image-text matcher, opened where words look at patches.

Sources: Li et al., "BLIP" (ICML 2022), section 3.1, the image-grounded text encoder and its
matching head, as transformers has them; Luo et al., "Emergent Open-Vocabulary Semantic Segmentation
from Off-the-shelf Vision-Language Models" (CVPR 2024, arXiv 2311.17095), for what is read from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Attention", "BlipMatcher", "Tokens", "gradient_map"]


@dataclass(frozen=True, eq=False)
class Tokens:
    """Captions as the text encoder takes them.

    Args:
        ids: (B, T) int64, padded; the first of each is the token that asks for a match, [ENC].
        mask: (B, T) int64, 0 at the padding.
        words: per caption and token the index of its word, None for special tokens.
    """

    ids: Tensor
    mask: Tensor
    words: list[list[int | None]]


@dataclass(frozen=True, eq=False)
class Attention:
    """Cross-attention of one layer, and how the match depends on it.

    Args:
        probabilities: (B, heads, T, 1 + N); of each token over class token and patches.
        gradient: same shape, of the sum of the match logits.
    """

    probabilities: Tensor
    gradient: Tensor


class BlipMatcher(nn.Module):
    """A BLIP that says whether a caption fits a picture.

    Args:
        model: transformers' BlipForImageTextRetrieval.
        tokenizer: its fast WordPiece tokenizer.
        header: (n,) uint8, config and vocabulary as `ovseg.projects.pnp_ovss.loading` writes them,
            stored with the weights; None where they lie elsewhere.
    """

    model: Any  # its parts are transformers' own
    header: Tensor | None

    def __init__(self, model: nn.Module, tokenizer: Any, header: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.tokenizer = tokenizer
        self.register_buffer("header", header)

    def become(self, other: BlipMatcher) -> None:
        """Take over the model of another matcher, on this one's device and in its mode."""
        device, training = self.model.device, self.training
        self.model = other.model.to(device).train(training)
        self.tokenizer = other.tokenizer
        self.header = None if other.header is None else other.header.to(device)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels."""
        return int(self.model.config.vision_config.patch_size)

    @property
    def image_size(self) -> int:
        """Side of the pictures that it was trained with."""
        return int(self.model.config.vision_config.image_size)

    @property
    def max_tokens(self) -> int:
        """Tokens that a caption may have, special ones included."""
        return int(self.model.config.text_config.max_position_embeddings)

    @property
    def layers(self) -> int:
        """Layers of the text encoder."""
        return int(self.model.config.text_config.num_hidden_layers)

    @property
    def heads(self) -> int:
        """Heads of each of its cross-attentions."""
        return int(self.model.config.text_config.num_attention_heads)

    def tokenize(self, captions: Sequence[Sequence[str]]) -> Tokens:
        """Cut captions into word pieces.

        Args:
            captions: per caption its words.

        Returns:
            The tokens, on the model's device.
        """
        cut = self.tokenizer(
            [list(words) for words in captions],
            is_split_into_words=True,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
        )
        ids = cut["input_ids"].to(self.model.device)  # (B, T)
        # [ENC] is the last id of the text encoder; the tokenizer does not know it.
        ids[:, 0] = self.model.config.text_config.vocab_size - 1
        mask = cut["attention_mask"].to(ids)
        return Tokens(ids, mask, [cut.word_ids(row) for row in range(len(ids))])

    def pieces(self, word: str) -> int:
        """Count the word pieces of a word."""
        return len(self.tokenizer(word, add_special_tokens=False)["input_ids"])

    def without_match(self, ids: Tensor) -> Tensor:
        """Token ids of captions that are encoded alone: [CLS] in the place of [ENC]."""
        plain = ids.clone()
        plain[:, 0] = self.tokenizer.cls_token_id
        return plain

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pictures of any size that patches divide.

        Args:
            pixels: (B, 3, H, W) normalised.

        Returns:
            (B, 1 + N, D), class token first, patches in rows.
        """
        seen = self.model.vision_model(pixel_values=pixels, interpolate_pos_encoding=True)
        return seen.last_hidden_state

    def told(self, features: Tensor, tokens: Tokens) -> Tensor:
        """Read captions in the light of pictures.

        Args:
            features: (B, 1 + N, D) of `encode_images`.
            tokens: B captions.

        Returns:
            (B, T, D'), what the text encoder's last layer makes of each token.
        """
        return self.model.text_encoder(
            input_ids=tokens.ids,
            attention_mask=tokens.mask,
            encoder_hidden_states=features,
            encoder_attention_mask=features.new_ones(features.shape[:2], dtype=torch.int64),
        ).last_hidden_state

    def match(self, features: Tensor, tokens: Tokens) -> Tensor:
        """Compare captions with pictures.

        Args:
            features: (B, 1 + N, D) of `encode_images`.
            tokens: B captions.

        Returns:
            (B, 2) logits; the second says that they match.
        """
        return self.model.itm_head(self.told(features, tokens)[:, 0])

    def attend(
        self, features: Tensor, tokens: Tokens, layers: Sequence[int]
    ) -> tuple[Tensor, dict[int, Attention]]:
        """Compare captions with pictures and watch where words look.

        Args:
            features: (B, 1 + N, D) of `encode_images`.
            tokens: B captions.
            layers: of the text encoder, from 0.

        Returns:
            (B, 2) logits, and the attention of each layer.
        """
        probabilities: dict[int, Tensor] = {}
        encoder = self.model.text_encoder.encoder

        def watch(layer: int) -> Any:
            def see(_: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
                # The graph starts at the first layer asked for; cutting it again at a later one
                # would hide that from the score.
                first = layer == min(layers)
                seen = inputs[0].detach().requires_grad_() if first else inputs[0]
                probabilities[layer] = seen
                return (seen,)

            return encoder.layer[layer].crossattention.self.dropout.register_forward_pre_hook(see)

        with ExitStack() as stack:
            # Also under no_grad and inference_mode, where the package answers questions.
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            for layer in sorted(set(layers)):
                stack.callback(watch(layer).remove)
            logits = self.match(features.detach().clone(), tokens)
            wanted = [probabilities[layer] for layer in layers]
            gradients = torch.autograd.grad(logits[:, 1].sum(), wanted)
        found = {
            layer: Attention(probabilities[layer].detach(), gradient)
            for layer, gradient in zip(layers, gradients, strict=True)
        }
        return logits.detach(), found


def gradient_map(attention: Attention, mask: Tensor, head: int, grid: tuple[int, int]) -> Tensor:
    """Weigh a head's attention by what it does for the match.

    Args:
        attention: of B captions with T tokens.
        mask: (B, T), 0 at the padding.
        head: from 0.
        grid: (h, w) of the patches.

    Returns:
        (B, T - 1, h, w), at least 0; [ENC] has no map.
    """
    seen, slope = attention.probabilities[:, head], attention.gradient[:, head]  # (B, T, 1 + N)
    salient = seen * slope.relu() * mask[..., None]
    return salient[:, 1:, 1:].unflatten(2, grid)  # without [ENC] and without the class token
