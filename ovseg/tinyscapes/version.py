"""The world's version, which every dataset and every model made from it carries."""

from __future__ import annotations

VERSION = "1"
"""Raised by hand when a picture, a label, a caption or a written file changes.

A dataset of another version is drawn again. `tests/tinyscapes/test_version.py` knows what this one
draws and fails when that changes.
"""

SAME_CONTENT = ("9e2bb597a72cab36",)
"""Stamps of datasets with this version's very content; to be emptied when `VERSION` is raised."""
