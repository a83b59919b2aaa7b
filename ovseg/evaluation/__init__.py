"""Scores of segmentations against labelled pictures."""

from __future__ import annotations

from ovseg.evaluation.confusion import CONVENTIONS, confusion_matrix, scores
from ovseg.evaluation.evaluator import SemSegEvaluator

__all__ = ["CONVENTIONS", "SemSegEvaluator", "confusion_matrix", "scores"]
