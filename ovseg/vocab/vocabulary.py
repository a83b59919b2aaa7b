"""What to look for in an image: class names, the strings that stand for them, templates."""

from __future__ import annotations

import hashlib
import json
import logging
import unicodedata
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property

from ovseg.vocab.classes import class_list
from ovseg.vocab.templates import check_templates, templates_by_name

_logger = logging.getLogger(__name__)

SYNONYM_RULES = ("list", "none")

Names = Sequence[str | Sequence[str]] | Mapping[str, str | Sequence[str]]
"""Class names, each alone or with the strings that stand for it; see `Vocabulary.make`."""


@dataclass(frozen=True)
class Vocabulary:
    """An ordered, immutable list of classes and the strings that describe each of them.

    Args:
        names: K display names, stripped, non-empty and unique; the order defines the label ids.
        prompts: per class the strings that are encoded and averaged.
        templates: each with exactly one "{}", filled with every string of `prompts`.
        background: index of the class that means "none of the others", if there is one.

    Raises:
        ValueError: if a name is empty, unstripped or repeated, if a class has no prompt, a template
            no "{}", or `background` is not an index.
    """

    names: tuple[str, ...]
    prompts: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    background: int | None = None

    def __post_init__(self) -> None:
        _check_names(self.names)
        check_templates(self.templates)
        if len(self.prompts) != len(self.names):
            raise ValueError(
                f"expected one tuple of prompts per class ({len(self.names)}), "
                f"got {len(self.prompts)}"
            )
        for name, prompts in zip(self.names, self.prompts, strict=True):
            if isinstance(prompts, str) or not prompts or not all(p.strip() for p in prompts):
                raise ValueError(
                    f"expected a tuple of non-empty strings for the class {name!r}, got {prompts!r}"
                )
        if self.background is not None and not 0 <= self.background < len(self.names):
            raise ValueError(
                f"expected a background index in 0..{len(self.names) - 1} or None, "
                f"got {self.background}"
            )

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def key(self) -> str:
        """The sha256 of the content, the same in every process."""
        content = [self.names, self.prompts, self.templates, self.background]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @classmethod
    def make(
        cls,
        names: Names,
        *,
        templates: str | Sequence[str] = "vild",
        synonyms: str | None = None,
        background: str | None = None,
    ) -> Vocabulary:
        """Make a vocabulary from class names.

        Args:
            names: K class names; they are stripped, and letters with accents have one form (NFC).
                Names that differ in case alone get a warning. A class may be a list of strings, all
                of which stand for it and whose first is its name: `[["sky", "heaven"], "tree"]`. A
                mapping gives each name the strings that stand for it: `{"sky": ["sky", "heaven"]}`;
                the name itself counts only where it is among them. Strings of a class are averaged.
            templates: the name of a template list or the templates themselves.
            synonyms: separator at which a plain name is split into strings that are averaged, such
                as ",". None and the rules of `from_classes` insert the whole name into the
                templates, commas included, as OVSeg does. Strings that are given stay as they are.
            background: the name of a class to append for "none of the others", such as "others".
                A name that is in `names` already marks that class instead.

        Returns:
            The vocabulary.

        Raises:
            ValueError: if a name is empty or occurs twice, or the templates are not valid.
            TypeError: if the names are one string, a set, or no strings.
        """
        given = _given(names, None if synonyms in SYNONYM_RULES else synonyms)
        background_index = None
        if background is not None:
            stripped = [name for name, _ in given]
            background = plain_name(background)
            if background not in stripped:
                stripped.append(background)
                given.append((background, (background,)))
            background_index = stripped.index(background)
        _warn_of_case_twins([name for name, _ in given])
        return cls(
            names=tuple(name for name, _ in given),
            prompts=tuple(strings for _, strings in given),
            templates=_resolve(templates),
            background=background_index,
        )

    def with_templates(self, templates: str | Sequence[str]) -> Vocabulary:
        """Return the same classes with other templates: a list's name, or the strings."""
        return replace(self, templates=_resolve(templates))

    def with_background(self, name: str) -> Vocabulary:
        """Mark a class as the background, appending it where the vocabulary lacks it.

        Args:
            name: the class for "none of the others".

        Returns:
            The vocabulary; this one, where it has a background already.
        """
        if self.background is not None:
            return self
        names, prompts, name = self.names, self.prompts, plain_name(name)
        if name not in names:
            names, prompts = (*names, name), (*prompts, (name,))
        return replace(self, names=names, prompts=prompts, background=names.index(name))

    @classmethod
    def from_classes(
        cls,
        names: Sequence[str],
        *,
        listed: Sequence[Sequence[str]] | None = None,
        templates: str | Sequence[str] = "vild",
        synonyms: str = "list",
        background: int | None = None,
    ) -> Vocabulary:
        """Make the vocabulary of a dataset's classes.

        Args:
            names: K class names; they are stripped.
            listed: the strings that the class list gives each class, if it gives any.
            templates: the name of a template list or the templates themselves.
            synonyms: what stands for a class: "list" (the listed strings, else its name), "none"
                (its name), or a separator at which names are split.
            background: index of the class that means "none of the others", if there is one.

        Returns:
            The vocabulary, in the order of the names.
        """
        separator = None if check_synonyms(synonyms) in SYNONYM_RULES else synonyms
        stripped = tuple(plain_name(name) for name in names)
        prompts = tuple(_split(name, separator) for name in stripped)
        if synonyms == "list" and listed is not None:
            prompts = tuple(tuple(plain_name(text) for text in texts) for texts in listed)
        _warn_of_case_twins(stripped)
        return cls(stripped, prompts, _resolve(templates), background)

    @classmethod
    def benchmark(
        cls, name: str, *, templates: str | Sequence[str] = "vild", synonyms: str = "list"
    ) -> Vocabulary:
        """Make the vocabulary of a benchmark from the class lists that the package ships.

        Args:
            name: such as "ade20k_150"; see `class_list_names`.
            templates: the name of a template list or the templates themselves.
            synonyms: see `from_classes`.

        Returns:
            The vocabulary, in the order of the benchmark's label ids.

        Raises:
            ValueError: if there is no such list.
        """
        classes = class_list(name)
        return cls.from_classes(
            classes.names,
            listed=classes.synonyms,
            templates=templates,
            synonyms=synonyms,
            background=classes.background,
        )


def check_synonyms(synonyms: str) -> str:
    """Return the rule if it is "list", "none" or a separator; see `Vocabulary.from_classes`.

    Raises:
        ValueError: it is none of these.
    """
    if synonyms not in SYNONYM_RULES and (not synonyms or synonyms[0].isalnum()):
        raise ValueError(
            f"MODEL.CLIP_ADAPTER.SYNONYMS: expected one of {SYNONYM_RULES} or a separator such "
            f"as ',', got {synonyms!r}."
        )
    return synonyms


def _resolve(templates: str | Sequence[str]) -> tuple[str, ...]:
    if isinstance(templates, str):
        return templates_by_name(templates)
    return check_templates(templates)


def _given(names: Names, separator: str | None) -> list[tuple[str, tuple[str, ...]]]:
    """Bring the forms in which classes are given into one: each its name and its strings."""
    if isinstance(names, str):
        raise TypeError(f"expected a list of class names, got the single string {names!r}")
    if isinstance(names, Set):
        raise TypeError(
            "expected class names in an order, which defines their label ids, got a set; "
            "write a list"
        )
    if isinstance(names, Mapping):
        return [
            (plain_name(name), _strings(name, (given,) if isinstance(given, str) else given))
            for name, given in names.items()
        ]
    classes = []
    for given in names:
        if isinstance(given, str):
            classes.append((plain_name(given), _split(plain_name(given), separator)))
        else:
            strings = _strings(given, given)
            classes.append((strings[0], strings))
    return classes


def _strings(name: object, given: Sequence[str]) -> tuple[str, ...]:
    """Strip and check the strings that stand for a class."""
    if (
        not isinstance(given, Sequence)
        or not given
        or not all(isinstance(text, str) and text.strip() for text in given)
    ):
        raise TypeError(
            f"expected a class name or a list of strings that stand for it, got {given!r}"
            + ("" if given is name else f" for the class {name!r}")
        )
    return tuple(dict.fromkeys(plain_name(text) for text in given))


def plain_name(name: str) -> str:
    """Strip a name and bring letters with accents into one form (NFC), whoever wrote them."""
    return unicodedata.normalize("NFC", name).strip()


def _warn_of_case_twins(names: Sequence[str]) -> None:
    """Names that differ in case alone mean the same to CLIP: one of them gets every pixel."""
    first: dict[str, str] = {}
    for name in names:
        known = first.setdefault(name.casefold(), name)
        if known != name:
            _logger.warning(
                "the classes %r and %r differ in upper and lower case only, which the model does "
                "not tell apart: one of them gets every pixel; leave one out",
                *(known, name),
            )


def _split(name: str, separator: str | None) -> tuple[str, ...]:
    if separator is None:
        return (name,)
    parts = (part.strip() for part in name.split(separator))
    return tuple(dict.fromkeys(part for part in parts if part)) or (name,)


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise ValueError("expected at least one class name, got an empty list")
    seen: dict[str, int] = {}
    for index, name in enumerate(names):
        if not isinstance(name, str) or not name or name != name.strip():
            raise ValueError(
                f"expected a non-empty class name without spaces around it, got {name!r} "
                f"at position {index}"
            )
        if any(unicodedata.category(letter) == "Cc" for letter in name):
            raise ValueError(
                f"expected a class name without control characters, got {name!r} at position "
                f"{index}"
            )
        if name in seen:
            raise ValueError(
                f"expected unique class names, got {name!r} at positions {seen[name]} and {index}; "
                "remove one of them"
            )
        seen[name] = index
