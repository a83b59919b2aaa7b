"""Config keys of the sources of regions, with upstream's values."""

from __future__ import annotations

from ovseg.d2.config import CfgNode

__all__ = ["add_region_keys"]


def add_region_keys(node: CfgNode) -> None:
    """Add REGIONS to a section of a config.

    Args:
        node: MODEL.CORRCLIP.
    """
    node.REGIONS = CfgNode(
        {
            # files, labels, grid, slic, maskformer, sam2, mask2former or eomt
            "NAME": "files",
            # Which id of a map or crop counts as "no region": "min", the smallest, as in the
            # paper's code, or "zero".
            "UNSEGMENTED_RULE": "min",
            # The models below compute in this: float32, float16 or bfloat16.
            "PRECISION": "float32",
            # files: folder of NAME.npz with an array instance_mask
            "PATH": "",
            # labels: dataset whose label maps are the regions (one region a class)
            "DATASET": "",
            "GRID": {"ROWS": 8, "COLS": 8, "BORDER": 0},
            "SLIC": {"SEGMENTS": 100, "COMPACTNESS": 10.0, "SIGMA": 0.0},
            "MASKFORMER": {
                "WEIGHTS": "ovseg_tiny",  # name in the catalogue, path or address
                "CONFIG": "",  # "" for the one that belongs to the weights
                "DUPLICATE_IOU": 1.0,
                "ON_TOP": "larger",  # where masks overlap: the larger or the smaller one
            },
            "SAM2": {
                "WEIGHTS": "facebook/sam2-hiera-large",
                "POINTS_PER_SIDE": 8,
                "POINTS_PER_BATCH": 64,
                "PRED_IOU": 0.4,
                "STABILITY": 0.4,
                "STABILITY_OFFSET": 1.0,
                "MASK_THRESHOLD": 0.0,
                "NMS": 0.7,
                "MULTIMASK": False,
                # Fall back on the best of several masks where the single one is unstable; the
                # original has it as a part of its post-processing, which upstream switches off.
                "DYNAMIC_MULTIMASK": False,
            },
            "MASK2FORMER": {
                "WEIGHTS": "facebook/mask2former-swin-large-coco-panoptic",
                "THRESHOLD": 0.5,
                "MASK_THRESHOLD": 0.5,
                "OVERLAP": 0.8,
            },
            "EOMT": {
                "WEIGHTS": "tue-mps/coco_panoptic_eomt_large_640",
                "THRESHOLD": 0.8,
                "MASK_THRESHOLD": 0.5,
                "OVERLAP": 0.8,
            },
        }
    )
