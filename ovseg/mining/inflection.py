"""Singular of English nouns: TextBlob's inflection, checked against its lexicon.

The inflection alone knows the irregular forms (men, geese, mice) and guesses the others by their
ending, often wrongly (pies -> py, shelves -> shelve, olives -> olife). Here its guess and a few
others are tried, and the first that the lexicon knows as a noun wins.
"""

from __future__ import annotations

from functools import lru_cache

__all__ = ["is_noun", "singular"]

# Plurals that name one thing, or whose singular is another thing.
_PLURAL_ONLY_WORDS = (
    "barracks bellows binoculars boxers briefs clothes crossroads dominoes earphones gallows "
    "glasses goggles headphones headquarters jeans khakis leggings means overalls pajamas pants "
    "pliers pyjamas scissors series shears shorts slacks species spectacles stairs suds "
    "sunglasses sweatpants tights tongs trousers tweezers underpants"
)
_PLURAL_ONLY = frozenset(_PLURAL_ONLY_WORDS.split())
_IRREGULAR = {
    "brownies": "brownie", "hoodies": "hoodie", "selfies": "selfie", "smoothies": "smoothie",
    "veggies": "veggie", "zombies": "zombie", "cookies": "cookie", "movies": "movie",
    "axes": "axe", "bases": "base", "buses": "bus", "busses": "bus", "calves": "calf",
    "cacti": "cactus", "cloths": "cloth", "dice": "dice", "fungi": "fungus", "gases": "gas",
    "halves": "half", "hooves": "hoof", "knives": "knife", "leaves": "leaf", "loaves": "loaf",
    "lives": "life", "oases": "oasis", "octopi": "octopus", "people": "person",
    "quizzes": "quiz", "scarves": "scarf", "sheaves": "sheaf", "shelves": "shelf",
    "staves": "staff", "thieves": "thief", "wharves": "wharf", "wives": "wife",
    "wolves": "wolf",
}  # fmt: skip


@lru_cache(maxsize=65536)
def singular(noun: str) -> str:
    """Return the singular of a plural noun.

    Args:
        noun: one lower-case word that is a plural ("buses", "fish", "men"); of a word with
            hyphens the last part is turned.

    Returns:
        The singular; the word itself if it has none ("scissors") or is no plural by its form.
    """
    from textblob.en.inflect import singularize

    if "-" in noun:
        first, last = noun.rsplit("-", 1)
        return f"{first}-{singular(last)}"
    if noun in _PLURAL_ONLY:
        return noun
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    guess = str(singularize(noun))
    if not noun.endswith("s"):
        return guess if is_noun(guess) else noun
    if (
        len(noun) < 4
        or noun.endswith(("ss", "us"))
        or (noun.endswith("is") and is_noun(noun, "NN"))
    ):
        return noun
    candidates = _candidates(noun)
    for candidate in (guess, *candidates):
        if is_noun(candidate):
            return candidate
    # Nothing the lexicon knows: a word that is too rare for it.
    return candidates[0]


def is_noun(word: str, tag: str = "NN") -> bool:
    """Say whether TextBlob's lexicon has a word as a noun first of all.

    Args:
        word: in lower case.
        tag: "NN" for the singular or a word without number, "NNS" for the plural.
    """
    from textblob.en import lexicon

    return lexicon.get(word) == tag


def _candidates(noun: str) -> list[str]:
    """Singulars that fit the ending, the likeliest first."""
    if noun.endswith("ies"):
        return [noun[:-3] + "y", noun[:-1]]
    if noun.endswith(("shes", "ches", "xes", "sses", "oes")):
        return [noun[:-2], noun[:-1]]
    return [noun[:-1]]
