"""Vocabularies, prompt templates, class lists of the benchmarks, text features."""

from __future__ import annotations

from ovseg.vocab.classes import ClassList, class_list, class_list_names
from ovseg.vocab.templates import TEMPLATE_NAMES, templates_by_name
from ovseg.vocab.text_bank import TextBank
from ovseg.vocab.text_store import TextStore
from ovseg.vocab.trained_names import are_trained, trained_names
from ovseg.vocab.vocabulary import Names, Vocabulary, check_synonyms, plain_name

__all__ = [
    "TEMPLATE_NAMES",
    "ClassList",
    "Names",
    "TextBank",
    "TextStore",
    "Vocabulary",
    "are_trained",
    "check_synonyms",
    "class_list",
    "class_list_names",
    "plain_name",
    "templates_by_name",
    "trained_names",
]
