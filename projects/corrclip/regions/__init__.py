"""Where CorrCLIP's regions come from; importing this registers the sources and loads no model."""

from ovseg.projects.corrclip.regions import files, maskformer, panoptic, plain, sam2
from ovseg.projects.corrclip.regions.config import add_region_keys
from ovseg.projects.corrclip.regions.source import (
    REGION_SOURCE_REGISTRY,
    RegionError,
    RegionSource,
    build_regions,
)

__all__ = [
    "REGION_SOURCE_REGISTRY",
    "RegionError",
    "RegionSource",
    "add_region_keys",
    "build_regions",
    "files",
    "maskformer",
    "panoptic",
    "plain",
    "sam2",
]
