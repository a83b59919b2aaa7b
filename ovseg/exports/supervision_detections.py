"""A result as supervision's detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ovseg.regions import Region

if TYPE_CHECKING:
    import supervision


def to_detections(regions: Sequence[Region]) -> supervision.Detections:
    """Give regions to the supervision package's annotators and sinks.

    Args:
        regions: of one picture.

    Returns:
        ``supervision.Detections``, one per region, with ``xyxy`` pixels, ``mask``, ``confidence``,
        ``class_id`` and ``data["class_name"]``.

    Raises:
        ImportError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise ImportError(
            "to_supervision needs the package supervision, which is not installed; "
            "install the extra: pip install 'ovseg[supervision]'"
        ) from error
    if not regions:
        return supervision.Detections.empty()
    return supervision.Detections(
        xyxy=np.array([region.box for region in regions], np.float32),
        mask=np.stack([region.mask for region in regions]),  # (N, H, W)
        confidence=np.array([region.score for region in regions], np.float32),
        class_id=np.array([region.label for region in regions], int),
        data={"class_name": np.array([region.name for region in regions])},
    )
