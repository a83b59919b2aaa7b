"""OVSeg as released code computes it: what the package saves, computed after all.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP", CVPR 2023. The
parts are the package's own and open_clip's: precision, proposals, crops and merge are those of the
model that is measured, so nothing but the savings differs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from open_clip import CLIP
from torch import Tensor

from ovseg.benchmark.replacing import replaced
from ovseg.clip import tokenize
from ovseg.modeling.ovseg import OVSeg
from ovseg.vocab import TextBank

__all__ = ["SAVINGS", "WholeTexts", "without"]

SAVINGS = ("texts", "blocks")
_CHUNK = 256


class WholeTexts:
    """Encodes texts with open_clip's own method, over all tokens that the tower takes.

    Args:
        clip: any CLIP of open_clip.
    """

    def __init__(self, clip: CLIP) -> None:
        self.clip = clip

    def __call__(self, texts: list[str]) -> Tensor:
        """Encode N texts: (N, D), not normalised."""
        tokens = tokenize(texts, self.clip.context_length)
        tokens = tokens.to(self.clip.positional_embedding.device)
        # The method of our own CLIP stops behind the end of the text.
        return torch.cat([CLIP.encode_text(self.clip, chunk) for chunk in tokens.split(_CHUNK)])


@contextmanager
def without(
    model: OVSeg, savings: Collection[str] = SAVINGS, *, bank: TextBank | None = None
) -> Iterator[None]:
    """Let a model answer without savings.

    Args:
        model: in eval mode; after the block it is as before, its bank of texts, too.
        savings: of `SAVINGS`. "texts": every text is encoded over all tokens, and none is looked up
            on disk. "blocks": CLIP's image tower runs open_clip's blocks, whose attention writes
            its weights out, and the last one for all tokens.
        bank: of `WholeTexts`, to remember texts for the next time; None: one for this time.

    Raises:
        ValueError: a saving that there is not.
    """
    unknown = sorted({*savings} - {*SAVINGS})
    if unknown:
        raise ValueError(f"expected savings of {', '.join(SAVINGS)}, got {', '.join(unknown)}")
    adapter = model.clip_adapter
    with ExitStack() as stack:
        if "texts" in savings:
            bank = TextBank(WholeTexts(adapter.clip_model)) if bank is None else bank
            stack.enter_context(replaced(adapter, "text_bank", bank))
        if "blocks" in savings:
            # In training the tower calls open_clip's blocks as they are. The blocks themselves
            # stay in eval mode, in which attention takes the road of inference.
            stack.enter_context(replaced(adapter.clip_model.visual, "training", True))
        yield
