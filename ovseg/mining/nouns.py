"""Nouns of captions.

Source: Liang et al., "Open-Vocabulary Semantic Segmentation with Mask-adapted CLIP" (CVPR 2023),
section 3.2: an off-the-shelf language parser takes the nouns from an image's caption. Which tags
it took, and whether it made words singular, is not told; the defaults here (common nouns as they
stand, in lower case) fit the number of pairs and of different nouns that the paper reports.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ovseg.mining.inflection import is_noun, singular
from ovseg.mining.taggers import TAGGERS, Token, make_tagger, tag_tokens, tokenize
from ovseg.readers.documents import parse_csv, read_text

__all__ = [
    "DEFAULT_STOP_WORDS",
    "CaptionError",
    "Noun",
    "NounConfig",
    "NounExtractor",
    "merge_nouns",
]

_IMAGE_WORDS = (
    "background close close-up closeup foreground image photo photograph photography pic picture "
    "portrait scene shot snapshot still view"
)
_POSITION_WORDS = (
    "back bottom center centre corner direction distance edge end front inside left middle "
    "outside part place position right side spot top"
)
_QUANTITY_WORDS = (
    "amount assortment bit bunch collection group kind lot number pair piece row set sort"
)
_ABSTRACT_WORDS = (
    "anybody anyone anything day everybody everyone everything fact fun idea moment nobody nothing "
    "one other somebody someone something thing time type variety way"
)
DEFAULT_STOP_WORDS: tuple[str, ...] = tuple(
    f"{_IMAGE_WORDS} {_POSITION_WORDS} {_QUANTITY_WORDS} {_ABSTRACT_WORDS}".split()
)
"""Words that captions use of any picture: nothing in it answers to them. The default stop list;
`NounConfig(stop_words=())` takes them as nouns like any others."""

_COMMON = frozenset({"NN", "NNS"})
_PROPER = frozenset({"NNP", "NNPS"})
_ADJECTIVES = frozenset({"JJ", "JJR", "JJS", "VBN"})
_PHRASE_STARTS = frozenset({"DT", "PRP$", "CD", "IN", "JJ"})

# Tagged as adjectives, but they count or compare, and say nothing of how a thing looks.
_NON_VISUAL_WORDS = (
    "certain different few following many more most much next other own same several such various"
)
_NON_VISUAL = frozenset(_NON_VISUAL_WORDS.split())
_MAX_PHRASE_WORDS = 6


class CaptionError(ValueError):
    """A caption that no nouns can be taken from; the text says why: null, empty, too long."""


@dataclass(frozen=True)
class NounConfig:
    """How nouns are taken from captions.

    Attributes:
        tagger: "nltk" (its perceptron tagger, whose data must be installed), "textblob" (the
            lexicon that comes with it), or "auto": nltk if its data is there, else textblob.
        phrases: take adjectives and nouns that stand together as one phrase, of a longer one
            the last six words.
        lemma: `Noun.text` is the singular.
        lower: `Noun.text` is in lower case.
        proper: take proper nouns too.
        stop_words: lemmas that are never taken, nor phrases that end in them.
        concreteness: table (CSV or TSV with a header) of words and how concrete they are, or
            None. Used are the columns `Word` and `Conc.M`, as the published ratings of 40,000
            English lemmas have them, else the first two.
        min_concreteness: lowest rating to take; words without a rating are taken.
        max_chars: longest caption; a longer one is refused, not cut.
    """

    tagger: str = "auto"
    phrases: bool = False
    lemma: bool = False
    lower: bool = True
    proper: bool = False
    stop_words: tuple[str, ...] = DEFAULT_STOP_WORDS
    concreteness: str | None = None
    min_concreteness: float = 0.0
    max_chars: int = 2000

    def __post_init__(self) -> None:
        if self.tagger not in TAGGERS:
            raise ValueError(f"expected a tagger of {TAGGERS}, got {self.tagger!r}")
        if isinstance(self.stop_words, str):
            raise ValueError(
                f"stop_words must be a tuple of words, got the text {self.stop_words!r}"
            )
        if self.max_chars < 1:
            raise ValueError(f"max_chars must be at least 1, got {self.max_chars}")


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


class NounExtractor:
    """Takes the nouns from captions; the same caption always gives the same nouns.

    Args:
        config: see `NounConfig`.

    Raises:
        LookupError: nltk's tagger was asked for and its data is missing.
        ValueError: the table of concreteness cannot be read.
    """

    def __init__(self, config: NounConfig | None = None) -> None:
        self.config = config or NounConfig()
        self._tagger = make_tagger(self.config.tagger)
        self._stop_words = frozenset(word.lower() for word in self.config.stop_words)
        self._ratings: dict[str, float] = {}
        self.name = self._tagger.name
        if self.config.concreteness is not None:
            table = Path(self.config.concreteness)
            self._ratings = _read_ratings(table)
            self.name += f"+{table.name}@{hashlib.sha256(table.read_bytes()).hexdigest()[:8]}"

    def extract(self, caption: str | None) -> list[Noun]:
        """Find a caption's nouns.

        Args:
            caption: English text.

        Returns:
            Nouns in the order of their first mention, each text once; empty if there are none.

        Raises:
            CaptionError: the caption is null, empty, longer than `max_chars` or no valid Unicode.
        """
        if not isinstance(caption, str):
            raise CaptionError("the caption is null")
        if not caption.strip():
            raise CaptionError("the caption is empty")
        if len(caption) > self.config.max_chars:
            raise CaptionError(
                f"the caption has {len(caption)} characters, the limit is {self.config.max_chars}"
            )
        if any("\ud800" <= character <= "\udfff" for character in caption):
            raise CaptionError("the caption holds half a character (a lone surrogate)")
        tokens = tokenize(caption)
        tags = tag_tokens(self._tagger, tokens)
        first: dict[str, Noun] = {}
        for i, token in enumerate(tokens):
            if tags[i] in _ADJECTIVES and token.text.lower() in _NON_VISUAL:
                tags[i] = "DT"
        for start, stop in self._spans(tags):
            noun = self._noun(caption, tokens[start:stop], tags[stop - 1])
            if noun is not None:
                first.setdefault(noun.text, noun)
        return list(first.values())

    def _spans(self, tags: list[str]) -> list[tuple[int, int]]:
        """First and one-past-last token of each noun, or of each phrase."""
        nouns = _COMMON | _PROPER if self.config.proper else _COMMON
        if not self.config.phrases:
            return [(i, i + 1) for i, tag in enumerate(tags) if tag in nouns]
        spans = []
        i = 0
        while i < len(tags):
            stop = i
            while stop < len(tags) and _is_modifier(tags, i, stop):
                stop += 1
            head = stop
            while head < len(tags) and tags[head] in nouns:
                head += 1
            if head > stop:
                spans.append((max(i, head - _MAX_PHRASE_WORDS), head))
            i = max(head, i + 1)
        return spans

    def _noun(self, caption: str, tokens: list[Token], tag: str) -> Noun | None:
        """Make a noun of the tokens of a span; None if it is to be left out."""
        head = tokens[-1]
        if sum(letter.isalpha() for letter in head.text) < 2:
            return None
        before = caption[tokens[0].start : head.start]
        # A plural, or a word that the lexicon lacks and that may be one.
        word = head.text.lower()
        plural = tag in ("NNS", "NNPS") or (tag == "NN" and not is_noun(word))
        base = singular(word) if plural else word
        rating = self._ratings.get(base, self._ratings.get(word))
        if base in self._stop_words or word in self._stop_words:
            return None
        if rating is not None and rating < self.config.min_concreteness:
            return None
        text = before + (_match_case(head.text, base) if self.config.lemma else head.text)
        text, lemma = (" ".join(part.split()) for part in (text, before.lower() + base))
        return Noun(
            text.lower() if self.config.lower else text, lemma, tokens[0].start, tokens[-1].end
        )


def _is_modifier(tags: list[str], start: int, i: int) -> bool:
    """Say whether word i can be an adjective of a phrase that begins at `start`."""
    if tags[i] in _ADJECTIVES:
        return True
    # "a living room", "a closed door", but not "a man riding waves"
    return tags[i] in ("VBG", "VBD") and i > 0 and (i > start or tags[i - 1] in _PHRASE_STARTS)


def _match_case(word: str, base: str) -> str:
    """The base form with the capitals of the word it comes from."""
    if word.isupper():
        return base.upper()
    return base.capitalize() if word[0].isupper() else base


def merge_nouns(found: Iterable[tuple[int, list[Noun]]]) -> list[tuple[int, Noun]]:
    """Join the nouns of an image's captions; the first mention of a text stays.

    Args:
        found: caption index and nouns, in the order of the captions.

    Returns:
        Caption index and noun, each text once.
    """
    first: dict[str, tuple[int, Noun]] = {}
    for index, nouns in found:
        for noun in nouns:
            first.setdefault(noun.text, (index, noun))
    return list(first.values())


def _read_ratings(path: Path) -> dict[str, float]:
    try:
        text = read_text(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot read the table of concreteness: {error}") from error
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    header, *rows = parse_csv(text, path, delimiter=delimiter) or [[]]
    word = header.index("Word") if "Word" in header else 0
    rating = header.index("Conc.M") if "Conc.M" in header else 1
    ratings = {}
    for number, row in enumerate(rows, start=2):
        try:
            ratings[row[word].lower()] = float(row[rating])
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number}: expected a word and a number, got {row}"
            ) from error
    return ratings
