"""Vocabularies, prompt templates, class lists of the benchmarks, text features."""

from __future__ import annotations

from .classes import ClassList, class_list, class_list_names
from .templates import TEMPLATE_NAMES, templates_by_name
from .text_bank import TextBank
from .vocabulary import Vocabulary

__all__ = [
    "TEMPLATE_NAMES",
    "ClassList",
    "TextBank",
    "Vocabulary",
    "class_list",
    "class_list_names",
    "templates_by_name",
]
