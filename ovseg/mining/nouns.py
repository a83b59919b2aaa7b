"""Nouns of captions.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2: "off-the-shelf language parsers" take the nouns from an image's caption.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CaptionError", "Noun", "NounConfig"]


class CaptionError(ValueError):
    """A caption that no nouns can be taken from: null, empty or too long; the text says which."""


@dataclass(frozen=True)
class NounConfig:
    """How nouns are taken from captions.

    Attributes:
        tagger: "nltk" (its perceptron tagger, whose data must be installed), "textblob" (the
            lexicon that comes with it), or "auto": nltk if its data is there, else textblob.
        phrases: take adjectives and nouns that stand together as one phrase.
        lemma: `Noun.text` is the singular.
        lower: `Noun.text` is in lower case.
        proper: take proper nouns too.
        stop_words: lemmas that are never taken.
        concreteness: table of words and ratings, or None.
        min_concreteness: lowest rating to take; words without a rating are taken.
        max_chars: longest caption.
    """

    tagger: str = "auto"
    phrases: bool = False
    lemma: bool = True
    lower: bool = True
    proper: bool = False
    stop_words: tuple[str, ...] = ()
    concreteness: str | None = None
    min_concreteness: float = 0.0
    max_chars: int = 2000


@dataclass(frozen=True)
class Noun:
    """A noun or noun phrase of a caption.

    Attributes:
        text: what is sent to CLIP.
        lemma: in lower case, its last word in the singular.
        start: first character in the caption.
        end: one past the last character.
    """

    text: str
    lemma: str
    start: int
    end: int
