"""The evaluation loop and its reporting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite.evaluation import (
        DatasetEvaluator,
        DatasetEvaluators,
        inference_on_dataset,
        print_csv_format,
        verify_results,
    )
else:
    from detectron2.evaluation import (
        DatasetEvaluator,
        DatasetEvaluators,
        inference_on_dataset,
        print_csv_format,
        verify_results,
    )

__all__ = [
    "DatasetEvaluator",
    "DatasetEvaluators",
    "inference_on_dataset",
    "print_csv_format",
    "verify_results",
]
