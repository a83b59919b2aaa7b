"""What segmenting costs in time and memory, and what the cost-saving measures save."""

from __future__ import annotations

from ovseg.benchmark.cost import Comparison, Cost, measure
from ovseg.benchmark.labels import LabelMaps, compare_label_maps
from ovseg.benchmark.stage_times import compare_text_towers, measure_evaluation, stages
from ovseg.benchmark.words import Words, draw_words, measure_words

__all__ = [
    "Comparison",
    "Cost",
    "LabelMaps",
    "Words",
    "compare_label_maps",
    "compare_text_towers",
    "draw_words",
    "measure",
    "measure_evaluation",
    "measure_words",
    "stages",
]
