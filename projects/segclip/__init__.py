"""SegCLIP: patches grouped by learned centres, groups named by CLIP.

Source: Luo et al., "SegCLIP: Patch Aggregation with Learnable Centers for Open-Vocabulary Semantic
Segmentation", ICML 2023, arXiv 2211.14813.
"""

from __future__ import annotations

from ovseg.projects.segclip.config import add_config, settle_config
from ovseg.projects.segclip.mapper import segclip_captions
from ovseg.projects.segclip.model import SegCLIP

__all__ = ["SegCLIP", "add_config", "segclip_captions", "settle_config"]
