"""The protocol of a published row, as TEST.PROTOCOL states it, against what an evaluation does.

Numbers of one model differ by points between protocols that papers leave unsaid; so a config that
names a row is not evaluated on a dataset that contradicts it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ovseg.d2.config import CfgNode
from ovseg.d2.data import MetadataCatalog

__all__ = ["check_protocol", "report_protocol"]

logger = logging.getLogger(__name__)

BACKGROUND_RULES = ("none", "class")
# Name of the score under each convention of mIoU.
METRICS = {"ovseg": "mIoU", "detectron2": "mIoU-gt"}


def check_protocol(cfg: CfgNode, dataset_name: str) -> None:
    """Refuse to evaluate a row on a dataset that its protocol does not fit.

    Args:
        cfg: the full config; what TEST.PROTOCOL leaves open is not checked.
        dataset_name: a registered dataset.

    Raises:
        ValueError: the background rule or the ignore value is another, or a value is not one of
            those that exist.
    """
    protocol, metadata = cfg.TEST.PROTOCOL, MetadataCatalog.get(dataset_name)
    for key, known in (("BACKGROUND", BACKGROUND_RULES), ("CONVENTION", tuple(METRICS))):
        if protocol[key] not in ("", *known):
            raise ValueError(
                f"TEST.PROTOCOL.{key}: expected one of {known} or '', got {protocol[key]!r}"
            )
    wrong = []
    background = "none" if metadata.get("background_class") is None else "class"
    if protocol.BACKGROUND not in ("", background):
        wrong.append(f"BACKGROUND {protocol.BACKGROUND!r}, got {background!r}")
    if protocol.IGNORE_VALUE not in (-1, metadata.ignore_label):
        wrong.append(f"IGNORE_VALUE {protocol.IGNORE_VALUE}, got {metadata.ignore_label}")
    if wrong:
        raise ValueError(
            f"{dataset_name}: expected the protocol of {protocol.ROW or 'the config'} with "
            f"{' and '.join(wrong)}; evaluate on the row's own dataset, or state the protocol of "
            "this one under TEST.PROTOCOL"
        )


def report_protocol(cfg: CfgNode, scores: Mapping[str, float]) -> str | None:
    """Put the measured score beside the published one, under the published convention.

    Args:
        cfg: the full config.
        scores: in percent by name, as `ovseg.evaluation.confusion.scores` gives them.

    Returns:
        The line that is logged, or None where the config names no published score.
    """
    protocol = cfg.TEST.PROTOCOL
    if protocol.REPORTED is None or not protocol.CONVENTION:
        return None
    measured = scores.get(METRICS[protocol.CONVENTION])
    if measured is None:
        return None
    line = (
        f"{protocol.ROW}: mIoU {measured:.2f} measured, {protocol.REPORTED:g} reported "
        f"(convention {protocol.CONVENTION})"
    )
    logger.info(line)
    return line
