"""Catalogues of datasets and of what is known about them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ovseg.d2 import backend

if TYPE_CHECKING or backend() == "lite":
    from ovseg.d2._lite.catalog import DatasetCatalog, MetadataCatalog
else:
    from detectron2.data import DatasetCatalog, MetadataCatalog

__all__ = ["DatasetCatalog", "MetadataCatalog"]
