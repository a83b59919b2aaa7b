"""Words of a caption and their parts of speech (Penn Treebank tags), with spans.

Two taggers, neither of which downloads anything: nltk's averaged perceptron, if its data is
installed, and the lexicon with rules that comes with TextBlob.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

__all__ = [
    "TAGGERS",
    "NltkTagger",
    "Tagger",
    "TextBlobTagger",
    "Token",
    "make_tagger",
    "tag_tokens",
    "tokenize",
]

TAGGERS = ("auto", "nltk", "textblob")

_NLTK_DATA = "averaged_perceptron_tagger_eng"
_TOKEN = re.compile(
    r"(?P<other>https?://\S+|\S+@\S+\.\w+)"
    r"|(?P<word>[^\W_]+?(?=n['’]t\b)|n['’]t\b|['’](?:s|re|ve|ll|d|m)\b|[^\W_]+(?:-[^\W_]+)*)"
    r"|[^\w\s]|_"
)
# Only what an English tagger can judge: other scripts would all come out as nouns.
_LATIN = re.compile(r"[A-Za-z\u00c0-\u024f\d'’-]*[A-Za-z\u00c0-\u024f][A-Za-z\u00c0-\u024f\d'’-]*")
_SENTENCE_ENDS = frozenset(".!?")
_BEFORE_A_NOUN = frozenset({"DT", "JJ", "JJR", "JJS", "PRP$", "CD", "IN"})
_SUBJECTS = frozenset({"PRP", "WP", "WDT"})
_FORMS_OF_BE = frozenset({"is", "are", "was", "were", "be", "been"})


@dataclass(frozen=True)
class Token:
    """A word or sign of a caption.

    Attributes:
        text: as it stands in the caption.
        start: first character in the caption.
        end: one past the last character.
        is_word: false for punctuation, addresses, numbers, pictograms and other scripts.
    """

    text: str
    start: int
    end: int
    is_word: bool


def tokenize(caption: str) -> list[Token]:
    """Cut a caption into words and signs; hyphens hold a word together, apostrophes split it.

    Args:
        caption: any text.

    Returns:
        Tokens in order; white space belongs to none.
    """
    tokens = []
    for match in _TOKEN.finditer(caption):
        text = match.group()
        is_word = match.group("word") is not None and _LATIN.fullmatch(text) is not None
        tokens.append(Token(text, match.start(), match.end(), is_word))
    return tokens


class Tagger(Protocol):
    """Gives each word its part of speech."""

    name: str

    def tag(self, words: Sequence[str]) -> list[str]:
        """Return one Penn Treebank tag a word."""
        ...


class NltkTagger:
    """nltk's averaged perceptron; its data must be installed."""

    def __init__(self) -> None:
        from nltk.tag.perceptron import PerceptronTagger

        if not _has_nltk_data():
            raise LookupError(
                f"tagger 'nltk' needs nltk's data {_NLTK_DATA}, which is not installed; run "
                f"`python -m nltk.downloader {_NLTK_DATA}` or choose the tagger 'textblob'"
            )
        self.name = f"nltk-{version('nltk')}"
        self._tagger = PerceptronTagger()

    def tag(self, words: Sequence[str]) -> list[str]:
        """Return one Penn Treebank tag a word."""
        return [tag for _, tag in self._tagger.tag(list(words))]


class TextBlobTagger:
    """TextBlob's lexicon and rules, with corrections for the way captions are written.

    The lexicon stems from newspapers: "bear", "sink" and "monitor" are verbs there. A caption
    has few verbs and no commands, so the tag of a word that stands where only a noun can is
    corrected.
    """

    def __init__(self) -> None:
        from textblob.en import parser

        self.name = f"textblob-{version('textblob')}"
        self._parser = parser

    def tag(self, words: Sequence[str]) -> list[str]:
        """Return one Penn Treebank tag a word."""
        known = [self._known_case(word) for word in words]
        tags = [str(tag).split("-")[0] for _, tag in self._parser.find_tags(known)]
        return _correct_tags(known, tags)

    def _known_case(self, word: str) -> str:
        """Give "geese" for "Geese" in the middle of a sentence, but leave "London"."""
        lexicon = self._parser.lexicon
        return word.lower() if word not in lexicon and word.lower() in lexicon else word


def make_tagger(name: str = "auto") -> Tagger:
    """Choose a tagger.

    Args:
        name: one of `TAGGERS`; "auto" is nltk's if its data is installed, else TextBlob's.

    Returns:
        The tagger; its `name` tells package and version.

    Raises:
        ValueError: an unknown name.
        LookupError: nltk's tagger was asked for and its data is missing.
    """
    if name not in TAGGERS:
        raise ValueError(f"expected a tagger of {TAGGERS}, got {name!r}")
    if name == "nltk" or (name == "auto" and _has_nltk_data()):
        return NltkTagger()
    return TextBlobTagger()


def _has_nltk_data() -> bool:
    import nltk

    try:
        nltk.data.find(f"taggers/{_NLTK_DATA}")
    except LookupError:
        return False
    return True


def tag_tokens(tagger: Tagger, tokens: Sequence[Token]) -> list[str]:
    """Tag a caption's tokens sentence by sentence.

    Capital letters that say nothing are taken away first: those of a sentence's first word, and
    all of a caption written in Title Case or in CAPITALS. Without that most of its words would be
    proper nouns.

    Args:
        tagger: gives the tags.
        tokens: of one caption.

    Returns:
        One tag a token; "." for what is no word.
    """
    words = _normalize_case(tokens)
    tags: list[str] = []
    start = 0
    for i, token in enumerate(tokens):
        if token.text in _SENTENCE_ENDS or i == len(tokens) - 1:
            tags += tagger.tag(words[start : i + 1])
            start = i + 1
    return [tag if token.is_word else "." for tag, token in zip(tags, tokens, strict=True)]


def _normalize_case(tokens: Sequence[Token]) -> list[str]:
    words = [token.text for token in tokens]
    later = [word for word in words[1:] if word[0].isalpha()]
    capitals = sum(word[0].isupper() for word in later)
    if capitals * 2 >= len(later):
        return [word.lower() for word in words]
    first = True
    for i, word in enumerate(words):
        if first and word[0].isalpha():
            words[i] = word.lower()
            first = False
        first = first or word in _SENTENCE_ENDS
    return words


def _correct_tags(words: list[str], tags: list[str]) -> list[str]:
    """Correct the tags of words that stand where only a noun, or only a verb, can."""
    for i, tag in enumerate(tags):
        before = tags[i - 1] if i else "."
        after = tags[i + 1] if i + 1 < len(tags) else "."
        if tag in ("VB", "VBP") and words[i] not in _FORMS_OF_BE:
            # "a bear", "teddy bear", "toilet, sink"; nobody is told to do anything.
            if before in _BEFORE_A_NOUN or before in ("NN", ".") or _conjunct_tag(tags, i) == "NN":
                tags[i] = "NN"
        elif tag == "VBZ" and words[i] not in _FORMS_OF_BE and words[i].endswith("s"):
            # "down tracks", "falling leaves", "branches and leaves"
            if before in _BEFORE_A_NOUN | {"VBG", "VBN"} or _conjunct_tag(tags, i) == "NNS":
                tags[i] = "NNS"
        elif tag == "NNS" and (
            before in _SUBJECTS or (before == "NN" and after in ("DT", "PRP$", "PRP"))
        ):
            tags[i] = "VBZ"  # "he watches", "the woman cuts a sandwich"
        elif tag == "NN" and words[i].endswith("ing") and i and words[i - 1] in _FORMS_OF_BE:
            tags[i] = "VBG"  # "people are skiing"
    return tags


def _conjunct_tag(tags: Sequence[str], i: int) -> str | None:
    """Tag of the word that a comma or "and" joins to word i; None if nothing joins."""
    j = i - 1
    while j >= 0 and tags[j] in (",", "CC"):
        j -= 1
    return tags[j] if 0 <= j < i - 1 else None
